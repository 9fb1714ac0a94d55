//! What rankings without a model reach: the lists' own order, and chance.

use std::collections::HashMap;

use serde::Serialize;

use super::metrics::Metrics;
use crate::data::{Mention, Sample};

/// Metrics of two rankings that know nothing: a model has to do better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Baselines {
    /// Of the candidates in the order of the dataset's files.
    pub list_order: Metrics,
    /// Expected of a random order.
    pub chance: Metrics,
}

impl Baselines {
    /// For these samples of these mentions.
    pub fn of(samples: &[Sample], mentions: &[Mention]) -> Baselines {
        let by_id: HashMap<&str, &Mention> = mentions.iter().map(|m| (m.id.as_str(), m)).collect();
        let in_list = |mention: &&Mention| {
            let place = mention.listed().iter().position(|c| Some(*c) == mention.gold);
            (1 + place.unwrap_or(mention.listed().len()), place.is_some())
        };
        let ranks: Vec<(usize, bool)> = samples.iter().filter_map(|s| by_id.get(s.id.as_str())).map(in_list).collect();
        let lists: Vec<(usize, bool)> = samples.iter().map(|s| (s.candidates.len(), s.gold.is_some())).collect();
        Baselines { list_order: Metrics::with_misses(&ranks), chance: chance(&lists) }
    }
}

/// Expectation over all orders of lists, given their lengths and whether they hold the gold entity.
pub fn chance(lists: &[(usize, bool)]) -> Metrics {
    let mean = |value: &dyn Fn(usize) -> f64, without: &dyn Fn(usize) -> f64| {
        let of = |&(n, gold): &(usize, bool)| if gold { value(n) } else { without(n) };
        lists.iter().map(of).sum::<f64>() / lists.len().max(1) as f64
    };
    let hits = |k: usize| mean(&|n| k.min(n) as f64 / n as f64, &|_| 0.0);
    let harmonic = |n: usize| (1..=n).map(|rank| 1.0 / rank as f64).sum::<f64>() / n as f64;
    let mean_rank = mean(&|n| (n + 1) as f64 / 2.0, &|n| (n + 1) as f64);
    Metrics::new(hits, mean_rank, mean(&harmonic, &|n| 1.0 / (n + 1) as f64), lists.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_the_mean_over_all_places() {
        for n in 1..8 {
            let ranks: Vec<usize> = (1..=n).collect();
            let (want, got) = (Metrics::of(&ranks), chance(&[(n, true)]));
            for (want, got) in [
                (want.hits1, got.hits1),
                (want.hits3, got.hits3),
                (want.hits5, got.hits5),
                (want.mean_rank, got.mean_rank),
                (want.reciprocal, got.reciprocal),
            ] {
                assert!((want - got).abs() < 1e-12, "{n}: {want} {got}");
            }
        }
        assert_eq!(chance(&[(4, false)]), Metrics::with_misses(&[(5, false)]));
    }
}
