//! The best of many scored entities, of which a block at a time is at hand.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// An entity with its scores.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scored {
    /// Its number.
    pub entity: u32,
    /// Mean of the scores (Eq. 11).
    pub mean: f32,
    /// Each score.
    pub scores: Vec<f32>,
    /// Of entities of equal mean the one with the lower place comes first.
    place: u32,
}

impl Eq for Scored {}

impl Ord for Scored {
    /// The greater, the later in the ranking.
    fn cmp(&self, other: &Scored) -> Ordering {
        other.mean.total_cmp(&self.mean).then(self.place.cmp(&other.place))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Scored) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best entities of a mention so far, exactly and in a fixed order: as sorting all of them would give.
#[derive(Debug)]
pub(super) struct Best {
    top: usize,
    /// The last of them first.
    found: BinaryHeap<Scored>,
    /// Largest mean so far, and the sum of exp(mean - largest) over all entities.
    largest: f32,
    sum: f64,
}

impl Best {
    /// Keeps so many.
    pub fn new(top: usize) -> Best {
        Best { top, found: BinaryHeap::new(), largest: f32::NEG_INFINITY, sum: 0.0 }
    }

    /// Takes entities with their means and finite scores (kinds, entities). `place` decides among equal means.
    pub fn add(&mut self, entities: &[u32], means: &[f32], scores: &[f32], place: impl Fn(usize) -> u32) {
        let n = entities.len();
        let largest = means.iter().copied().fold(self.largest, f32::max);
        if n == 0 {
            return;
        }
        let relative = |mean: f32| f64::from(mean - largest).exp();
        self.sum = self.sum * relative(self.largest) + means.iter().map(|&mean| relative(mean)).sum::<f64>();
        self.largest = largest;
        for (i, (&entity, &mean)) in entities.iter().zip(means).enumerate() {
            if self.found.len() == self.top && self.found.peek().is_none_or(|last| mean < last.mean) {
                continue;
            }
            let scores = scores[i..].iter().step_by(n).copied().collect();
            let scored = Scored { entity, mean, scores, place: place(i) };
            if self.found.len() < self.top {
                self.found.push(scored);
            } else if let Some(mut last) = self.found.peek_mut()
                && scored < *last
            {
                *last = scored;
            }
        }
    }

    /// What gives the means' softmax over all entities that were taken.
    pub fn confidences(&self) -> Confidences {
        Confidences { largest: self.largest, sum: self.sum }
    }

    /// The best, in their order.
    pub fn into_sorted(self) -> Vec<Scored> {
        self.found.into_sorted_vec()
    }
}

/// Softmax over all entities of a mention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confidences {
    largest: f32,
    sum: f64,
}

impl Confidences {
    /// Of an entity with this mean.
    pub fn of(&self, mean: f32) -> f32 {
        (f64::from(mean - self.largest).exp() / self.sum) as f32
    }
}

/// How many entities stand before a mention's gold entity, by each score and by their mean.
#[derive(Debug)]
pub(super) struct Ahead {
    gold: u32,
    place: u32,
    /// The gold entity's scores, then their mean.
    own: Vec<f32>,
    counts: Vec<usize>,
}

impl Ahead {
    /// Of a gold entity with these scores and this place among equal ones.
    pub fn new(gold: u32, place: u32, mut scores: Vec<f32>, mean: f32) -> Ahead {
        scores.push(mean);
        Ahead { gold, place, counts: vec![0; scores.len()], own: scores }
    }

    /// Counts among entities with their means and scores (kinds, entities).
    pub fn add(&mut self, entities: &[u32], means: &[f32], scores: &[f32], place: impl Fn(usize) -> u32) {
        let rows = scores.chunks_exact(entities.len().max(1)).chain([means]);
        for ((count, &own), row) in self.counts.iter_mut().zip(&self.own).zip(rows) {
            let ahead = |(i, &score): (usize, &f32)| {
                entities[i] != self.gold && (score > own || score == own && place(i) < self.place)
            };
            *count += row.iter().enumerate().filter(|&row| ahead(row)).count();
        }
    }

    /// The gold entity's rank by each score, then by their mean.
    pub fn ranks(&self) -> Vec<usize> {
        self.counts.iter().map(|count| 1 + count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::rank;
    use crate::eval::ranking::order_by;
    use crate::model::mean_over_scores;

    /// Scores (2, 60) with many ties.
    fn scores() -> Vec<f32> {
        (0..120).map(|i| ((i * i * 7 + i / 3) % 5) as f32 - 2.0).collect()
    }

    #[test]
    fn blocks_give_what_sorting_all_gives() {
        let (scores, n) = (scores(), 60);
        let means = mean_over_scores(&scores, 2);
        let order = order_by(&means);
        let total: f64 = means.iter().map(|&mean| f64::from(mean).exp()).sum();
        for (top, block) in [(1, 7), (5, 60), (60, 1), (100, 13)] {
            let mut best = Best::new(top);
            let mut ahead: Vec<Ahead> = (0..n)
                .map(|gold| Ahead::new(gold as u32, gold as u32, vec![scores[gold], scores[n + gold]], means[gold]))
                .collect();
            for first in (0..n).step_by(block) {
                let range = first..(first + block).min(n);
                let entities: Vec<u32> = range.clone().map(|i| i as u32).collect();
                let part = [&scores[range.clone()], &scores[n + range.start..n + range.end]].concat();
                best.add(&entities, &means[range.clone()], &part, |i| entities[i]);
                ahead.iter_mut().for_each(|a| a.add(&entities, &means[range.clone()], &part, |i| entities[i]));
            }
            assert!(
                (f64::from(best.confidences().of(means[order[0]])) - f64::from(means[order[0]]).exp() / total).abs()
                    < 1e-7
            );
            let found = best.into_sorted();
            assert_eq!(found.len(), top.min(n));
            for (scored, &at) in found.iter().zip(&order) {
                assert_eq!((scored.entity, scored.mean), (at as u32, means[at]));
                assert_eq!(scored.scores, [scores[at], scores[n + at]]);
            }
            for (gold, ahead) in ahead.iter().enumerate() {
                let want = [&scores[..n], &scores[n..], &means].map(|row| rank(row, Some(gold)));
                assert_eq!(ahead.ranks(), want);
            }
        }
    }
}
