//! Hits at k, mean rank and mean reciprocal rank (Eq. 13).

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::statistics::{Interval, wilson};
use crate::error::Result;

/// Rank of the gold candidate: 1 + those that score strictly higher + equal ones that stand before it. `None` if it
/// is not among the candidates, which counts as ranked behind all of them.
pub fn rank(similarity: &[f32], gold: Option<usize>) -> usize {
    let Some(gold) = gold else { return similarity.len() + 1 };
    let own = similarity[gold];
    // A score that is no number must not win.
    let ahead = |(i, s): (usize, &f32)| !(*s < own || *s == own && i >= gold);
    1 + similarity.iter().enumerate().filter(|&(i, s)| i != gold && ahead((i, s))).count()
}

/// Metrics over some mentions. Shares are between 0 and 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Share of mentions whose gold entity ranks first.
    #[serde(rename = "H@1", deserialize_with = "share")]
    pub hits1: f64,
    /// Share of those that rank among the first two.
    #[serde(rename = "H@2", deserialize_with = "share")]
    pub hits2: f64,
    /// Share of those that rank among the first three.
    #[serde(rename = "H@3", deserialize_with = "share")]
    pub hits3: f64,
    /// Share of those that rank among the first four.
    #[serde(rename = "H@4", default, deserialize_with = "share")]
    pub hits4: f64,
    /// Share of those that rank among the first five.
    #[serde(rename = "H@5", deserialize_with = "share")]
    pub hits5: f64,
    /// Mean rank.
    #[serde(rename = "MR", deserialize_with = "mean_rank")]
    pub mean_rank: f64,
    /// Mean of 1 / rank.
    #[serde(rename = "MRR", deserialize_with = "share")]
    pub reciprocal: f64,
    /// Number of mentions.
    pub mentions: usize,
}

/// A share in a file.
fn share<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<f64, D::Error> {
    let value = f64::deserialize(from)?;
    match (0.0..=1.0).contains(&value) {
        true => Ok(value),
        false => Err(D::Error::custom(format!("{value} is no share, which is between 0 and 1"))),
    }
}

/// A mean rank in a file; of no mentions it is 0.
fn mean_rank<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<f64, D::Error> {
    let value = f64::deserialize(from)?;
    match value == 0.0 || value >= 1.0 {
        true => Ok(value),
        false => Err(D::Error::custom(format!("{value} is no mean of ranks, which are 1 at least"))),
    }
}

impl Metrics {
    /// From the ranks of some mentions, whose lists all hold their gold entity.
    pub fn of(ranks: &[usize]) -> Metrics {
        Metrics::with_misses(&ranks.iter().map(|&rank| (rank, true)).collect::<Vec<_>>())
    }

    /// From ranks, each with whether the list holds the gold entity: one that lacks it is no hit, however short it is.
    pub fn with_misses(ranks: &[(usize, bool)]) -> Metrics {
        let n = ranks.len().max(1) as f64;
        let hits = |k: usize| ranks.iter().filter(|&&(rank, found)| found && rank <= k).count() as f64 / n;
        let mean_rank = ranks.iter().map(|&(rank, _)| rank as f64).sum::<f64>() / n;
        let reciprocal = ranks.iter().map(|&(rank, _)| 1.0 / rank as f64).sum::<f64>() / n;
        Metrics::new(hits, mean_rank, reciprocal, ranks.len())
    }

    /// From the share of mentions whose gold entity is among the first k, the mean rank, the mean reciprocal rank, and the
    /// number of mentions.
    pub(super) fn new(hits: impl Fn(usize) -> f64, mean_rank: f64, reciprocal: f64, mentions: usize) -> Metrics {
        let [hits1, hits2, hits3, hits4, hits5] = [1, 2, 3, 4, 5].map(hits);
        Metrics { hits1, hits2, hits3, hits4, hits5, mean_rank, reciprocal, mentions }
    }

    /// Wilson's 95 % intervals of H@1 to H@5, by name. Fails for metrics of no mention.
    pub fn intervals(&self) -> Result<[(&'static str, Interval); 5]> {
        // The share times the number of mentions is the count that it was made of, but for rounding.
        let of = |share: f64| wilson((share * self.mentions as f64).round() as usize, self.mentions);
        let Metrics { hits1, hits2, hits3, hits4, hits5, .. } = *self;
        Ok([("H@1", of(hits1)?), ("H@2", of(hits2)?), ("H@3", of(hits3)?), ("H@4", of(hits4)?), ("H@5", of(hits5)?)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_those_that_stand_before() {
        let scores = [1.0, 3.0, 3.0, 2.0, 3.0];
        assert_eq!([1, 2, 4, 3, 0].map(|gold| rank(&scores, Some(gold))), [1, 2, 3, 4, 5]);
        assert_eq!(rank(&scores, None), 6);
        assert_eq!(rank(&[f32::NAN, 1.0], Some(1)), 2);
        assert_eq!(rank(&[1.0, f32::NAN], Some(1)), 2);
    }

    #[test]
    fn a_short_list_without_its_gold_entity_is_no_hit() {
        let Metrics { hits3, hits5, mean_rank, .. } = Metrics::with_misses(&[(3, false), (3, true)]);
        assert_eq!((hits3, hits5, mean_rank), (0.5, 0.5, 3.0));
    }

    #[test]
    fn metrics_are_those_of_the_paper() {
        let metrics = Metrics::of(&[1, 2, 4, 10]);
        let Metrics { hits1, hits2, hits3, hits4, hits5, .. } = metrics;
        assert_eq!([hits1, hits2, hits3, hits4, hits5], [0.25, 0.5, 0.5, 0.75, 0.75]);
        assert_eq!((metrics.mean_rank, metrics.reciprocal), (4.25, (1.0 + 0.5 + 0.25 + 0.1) / 4.0));
    }

    #[test]
    fn intervals_are_of_the_counts_that_the_shares_were_made_of() {
        for n in [1, 3, 49, 1459] {
            for hits in 0..=n {
                let ranks: Vec<usize> = (0..n).map(|i| if i < hits { 1 } else { 3 }).collect();
                let [first, second, third, ..] = Metrics::of(&ranks).intervals().unwrap();
                assert_eq!([first, second], [("H@1", wilson(hits, n).unwrap()), ("H@2", wilson(hits, n).unwrap())]);
                assert_eq!(third.1, wilson(n, n).unwrap());
            }
        }
        assert!(Metrics::default().intervals().is_err());
    }

    #[test]
    fn values_that_cannot_be_are_refused_where_they_are_read() {
        let good = serde_json::json!(Metrics::of(&[1, 2, 4, 10]));
        assert!(serde_json::from_value::<Metrics>(good.clone()).is_ok());
        for (name, value) in [("H@1", 1.7), ("H@4", -0.1), ("MRR", 62.0), ("MR", 0.5)] {
            let mut bad = good.clone();
            bad[name] = value.into();
            let says = serde_json::from_value::<Metrics>(bad).unwrap_err().to_string();
            assert!(says.contains(&value.to_string()), "{says}");
        }
    }
}
