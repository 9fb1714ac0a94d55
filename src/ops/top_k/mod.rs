//! The largest of many products with the numbers of their vectors, as sorting all of them would find them: on the host, where
//! some products at a time are at hand, and of rows in a device's memory.

mod cuda;

pub use cuda::top_k;

use std::collections::HashSet;

/// Values of which a block of a device takes the best.
const PART: usize = 16384;

/// The most that a device takes of each row: half of what a block takes them of, so that fewer are left to look through.
pub const MOST: usize = PART / 2;

/// A vector that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Its number.
    pub number: u32,
    /// Its inner product with the query.
    pub product: f32,
}

/// Products that are compared with the least one that still counts at a time.
const GROUP: usize = 64;

/// The `k` best products so far: exactly those that sorting all of them would put first.
#[derive(Clone, Debug)]
pub struct Top {
    k: usize,
    found: Vec<Found>,
    /// What a product has to exceed: the least of the best `k`, if there were so many when it was last looked at.
    least: f32,
}

impl Top {
    /// Keeps so many.
    pub fn new(k: usize) -> Top {
        Top { k, found: Vec::new(), least: f32::NEG_INFINITY }
    }

    /// Takes the products of the vectors from number `first` on. What comes later has higher numbers. A product that is no number
    /// is the least of all.
    #[inline(always)]
    pub fn add(&mut self, first: u32, products: &[f32]) {
        for (group, first) in products.chunks(GROUP).zip((first..).step_by(GROUP)) {
            // Without a branch per product, since hardly a group has one that counts.
            let counts = group.iter().fold(false, |any, &product| any | (product > self.least));
            if !counts && self.found.len() >= self.k {
                continue;
            }
            for (&product, number) in group.iter().zip(first..) {
                if product > self.least || self.found.len() < self.k {
                    self.found.push(Found::new(number, product));
                }
            }
            if self.found.len() >= 2 * self.k {
                self.cut();
            }
        }
    }

    /// Takes what another one found among other vectors.
    pub fn join(&mut self, other: Top) {
        self.found.extend(other.found);
        self.cut();
    }

    /// The best first; of equal ones that with the lower number.
    pub fn into_sorted(mut self) -> Vec<Found> {
        self.cut();
        self.found.sort_unstable_by(Found::cmp);
        self.found
    }

    fn cut(&mut self) {
        if self.k == 0 || self.found.len() < self.k {
            self.found.truncate(self.k);
            return;
        }
        let (_, last, _) = self.found.select_nth_unstable_by(self.k - 1, Found::cmp);
        self.least = last.product;
        self.found.truncate(self.k);
    }
}

impl Found {
    /// One whose product is the least of all if it is no number.
    pub(crate) fn new(number: u32, product: f32) -> Found {
        Found { number, product: if product.is_nan() { f32::NEG_INFINITY } else { product } }
    }

    /// The first `k`, the best before the others.
    pub(crate) fn best(mut found: Vec<Found>, k: usize) -> Vec<Found> {
        found.sort_unstable_by(Found::cmp);
        found.truncate(k);
        found
    }

    /// What an engine found among `count` vectors, the best first; what is wrong with it, if something is.
    pub(crate) fn checked(mut found: Vec<Found>, count: usize) -> Result<Vec<Found>, String> {
        if let Some(found) = found.iter().find(|found| found.number as usize >= count || found.product.is_nan()) {
            return Err(format!(
                "it answers with number {}, product {}, of {count} vectors",
                found.number, found.product
            ));
        }
        let different: HashSet<u32> = found.iter().map(|found| found.number).collect();
        if different.len() < found.len() {
            return Err("it answers with a vector twice".into());
        }
        found.sort_unstable_by(Found::cmp);
        Ok(found)
    }

    /// The better, the earlier.
    pub(crate) fn cmp(&self, other: &Found) -> std::cmp::Ordering {
        other.product.total_cmp(&self.product).then(self.number.cmp(&other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_parts_are_those_of_all() {
        // Many products are equal.
        let products: Vec<f32> = (0..500).map(|i| ((i * i * 7 + i / 3) % 23) as f32 - 11.0).collect();
        let mut sorted: Vec<usize> = (0..500).collect();
        sorted.sort_by(|&a, &b| products[b].total_cmp(&products[a]).then(a.cmp(&b)));
        for (k, part) in [(1, 7), (5, 500), (64, 65), (500, 128), (700, 1), (0, 10)] {
            let mut top = Top::new(k);
            let mut joined = Top::new(k);
            for (i, part_of) in products.chunks(part).enumerate() {
                top.add((i * part) as u32, part_of);
                let mut alone = Top::new(k);
                alone.add((i * part) as u32, part_of);
                joined.join(alone);
            }
            let want: Vec<u32> = sorted[..k.min(500)].iter().map(|&i| i as u32).collect();
            for top in [top, joined] {
                let found = top.into_sorted();
                assert_eq!(found.iter().map(|found| found.number).collect::<Vec<_>>(), want, "{k} in parts of {part}");
                assert!(found.iter().all(|found| found.product == products[found.number as usize]));
            }
        }
    }

    #[test]
    fn what_is_no_number_comes_last() {
        let mut top = Top::new(3);
        top.add(0, &[f32::NAN, 1.0, f32::NAN, -2.0]);
        assert_eq!(top.into_sorted().iter().map(|found| found.number).collect::<Vec<_>>(), [1, 3, 0]);
    }
}
