//! An inverted index with BM25 weights.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

/// How fast repeated terms saturate, and how much a document's length counts; the usual values.
const K1: f32 = 1.2;
const B: f32 = 0.75;

/// Documents by the terms they hold. A term's weight in a document is that of Okapi BM25 (Robertson and Zaragoza, 2009),
/// `idf · tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length))` with `idf = ln(1 + (N - n + 0.5) / (n + 0.5))`.
pub struct Inverted {
    documents: usize,
    terms: HashMap<u64, u32>,
    /// First posting of each term, then the number of postings.
    starts: Vec<usize>,
    /// Documents of each term in rising order, with the term's weight there.
    postings: Vec<(u32, f32)>,
}

impl Inverted {
    /// Indexes documents, each given by its terms.
    pub fn new<T: AsRef<str>>(documents: impl Iterator<Item = impl Iterator<Item = T>>) -> Inverted {
        let mut terms: HashMap<u64, u32> = HashMap::new();
        let mut lists: Vec<Vec<(u32, u32)>> = Vec::new();
        let mut lengths: Vec<f32> = Vec::new();
        for (number, document) in documents.enumerate() {
            let mut length = 0;
            for term in document {
                length += 1;
                let place = *terms.entry(key(term.as_ref())).or_insert(lists.len() as u32) as usize;
                if place == lists.len() {
                    lists.push(Vec::new());
                }
                match lists[place].last_mut() {
                    Some((last, count)) if *last == number as u32 => *count += 1,
                    _ => lists[place].push((number as u32, 1)),
                }
            }
            lengths.push(length as f32);
        }
        let filled = lengths.iter().filter(|&&length| length > 0.0).count() as f32;
        let mean = lengths.iter().sum::<f32>() / filled.max(1.0);
        let mut starts = vec![0];
        let mut postings = Vec::with_capacity(lists.iter().map(Vec::len).sum());
        for list in &lists {
            let n = list.len() as f32;
            let idf = (1.0 + (filled - n + 0.5) / (n + 0.5)).ln();
            postings.extend(list.iter().map(|&(document, count)| {
                let (tf, length) = (count as f32, lengths[document as usize]);
                (document, idf * tf * (K1 + 1.0) / (tf + K1 * (1.0 - B + B * length / mean)))
            }));
            starts.push(postings.len());
        }
        Inverted { documents: lengths.len(), terms, starts, postings }
    }

    /// Scores all documents for a query; `scores` then holds them until the next query.
    pub fn score<T: AsRef<str>>(&self, query: impl Iterator<Item = T>, scores: &mut Scores) {
        scores.clear(self.documents);
        for term in query {
            let Some(&place) = self.terms.get(&key(term.as_ref())) else { continue };
            for &(document, weight) in &self.postings[self.starts[place as usize]..self.starts[place as usize + 1]] {
                let score = &mut scores.of[document as usize];
                if *score == 0.0 {
                    scores.touched.push(document);
                }
                *score += weight;
            }
        }
    }
}

fn key(term: &str) -> u64 {
    xxh3_64(term.as_bytes())
}

/// Scores of all documents for one query; reused from query to query.
#[derive(Default)]
pub struct Scores {
    of: Vec<f32>,
    touched: Vec<u32>,
}

impl Scores {
    fn clear(&mut self, documents: usize) {
        self.touched.drain(..).for_each(|document| self.of[document as usize] = 0.0);
        self.of.resize(documents, 0.0);
    }

    /// Score of a document; 0 if it holds no term of the query.
    pub fn get(&self, document: u32) -> f32 {
        self.of[document as usize]
    }

    /// The highest score.
    pub fn best(&self) -> f32 {
        self.touched.iter().map(|&document| self.get(document)).fold(0.0, f32::max)
    }

    /// Appends the documents of the highest scores to `out`, in no order; of equal ones, those with the lower number.
    pub fn top(&mut self, count: usize, out: &mut Vec<u32>) {
        let Scores { of, touched } = self;
        if touched.len() > count {
            let order = |&a: &u32, &b: &u32| of[b as usize].total_cmp(&of[a as usize]).then(a.cmp(&b));
            touched.select_nth_unstable_by(count, order);
        }
        out.extend(touched.iter().take(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_bm25() {
        let documents = ["a b b", "b c", "", "d"];
        let index = Inverted::new(documents.iter().map(|d| d.split(' ').filter(|t| !t.is_empty())));
        let mut scores = Scores::default();
        index.score(["b", "a", "nothing"].iter(), &mut scores);
        // Three filled documents of 2 words in the mean; `b` is in two of them, `a` in one.
        let weight = |n: f32, tf: f32, length: f32| {
            let idf = (1.0 + (3.0 - n + 0.5) / (n + 0.5)).ln();
            idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / 2.0))
        };
        let want = [weight(2.0, 2.0, 3.0) + weight(1.0, 1.0, 3.0), weight(2.0, 1.0, 2.0), 0.0, 0.0];
        for (document, want) in want.into_iter().enumerate() {
            assert!((scores.get(document as u32) - want).abs() < 1e-6, "{document}");
        }
        let mut top = Vec::new();
        scores.top(1, &mut top);
        assert_eq!((top, scores.best()), (vec![0], scores.get(0)));
        index.score(["d"].iter(), &mut scores);
        assert_eq!((scores.get(0), scores.get(3) > 0.0), (0.0, true));
    }
}
