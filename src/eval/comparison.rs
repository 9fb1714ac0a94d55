//! One run against another, mention by mention.

use std::collections::HashMap;

use serde::Serialize;

use super::metrics::Metrics;
use super::run_metrics::{GoldRank, RunRanks};
use super::statistics::{Interval, Resampling, TTest, bootstrap, differences, t_test};
use crate::data::Protocol;
use crate::error::{Error, Result};

/// A run compared with another over the mentions that both rank and that have a gold entity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What the lists of both mean.
    pub protocol: Protocol,
    /// The run's metrics on these mentions.
    pub run: Metrics,
    /// The other's.
    pub against: Metrics,
    /// MRR of the run less that of the other.
    pub difference: f64,
    /// The difference's bootstrap interval, of 95 % confidence.
    pub interval: Interval,
    /// How that was drawn.
    pub bootstrap: Resampling,
    /// The paired t-test of the reciprocal ranks.
    pub t_test: TTest,
    /// Mentions whose gold entity the run ranks better.
    pub better: usize,
    /// Those that it ranks worse.
    pub worse: usize,
    /// Those that both rank the same.
    pub equal: usize,
    /// Mentions left out because the run alone ranks them.
    pub only_run: usize,
    /// Mentions left out because the other alone ranks them.
    pub only_against: usize,
}

impl Comparison {
    /// Fails if the runs' lists mean different things, or if the runs have fewer than two mentions in common.
    pub fn of(run: &RunRanks, against: &RunRanks, bootstrap_by: Resampling) -> Result<Comparison> {
        let protocol = same_protocol(run, against)?;
        let others: HashMap<&str, GoldRank> = against.ranks.iter().map(|(id, gold)| (id.as_str(), *gold)).collect();
        let pair = |(id, gold): &(String, GoldRank)| Some((*gold, *others.get(id.as_str())?));
        let pairs: Vec<(GoldRank, GoldRank)> = run.ranks.iter().filter_map(pair).collect();
        let reciprocal = |gold: &GoldRank| 1.0 / gold.rank as f64;
        let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs.iter().map(|(a, b)| (reciprocal(a), reciprocal(b))).unzip();
        let differences = differences(&ours, &theirs)?;
        let count =
            |wanted: &dyn Fn(usize, usize) -> bool| pairs.iter().filter(|(a, b)| wanted(a.rank, b.rank)).count();
        let (t_test, interval) = (t_test(&differences)?, bootstrap(&differences, bootstrap_by)?);
        let run_metrics = GoldRank::metrics(pairs.iter().map(|(gold, _)| gold));
        let against_metrics = GoldRank::metrics(pairs.iter().map(|(_, gold)| gold));
        Ok(Comparison {
            protocol,
            run: run_metrics,
            against: against_metrics,
            difference: run_metrics.reciprocal - against_metrics.reciprocal,
            interval,
            bootstrap: bootstrap_by,
            t_test,
            better: count(&|a, b| a < b),
            worse: count(&|a, b| a > b),
            equal: count(&|a, b| a == b),
            only_run: run.ranks.len() - pairs.len(),
            only_against: against.ranks.len() - pairs.len(),
        })
    }
}

/// The protocol of both; fails where they differ.
fn same_protocol(run: &RunRanks, against: &RunRanks) -> Result<Protocol> {
    if run.protocol() == against.protocol() {
        return Ok(run.protocol());
    }
    let lacking = |run: &RunRanks| format!("{} of {} rankings", run.gold_missing(), run.ranks.len());
    Err(Error::invalid(format!(
        "the runs are of different protocols, whose figures are not to be compared: the gold entity is missing in {} \
         of the run and in {} of the other; make both from the same candidate lists",
        lacking(run),
        lacking(against)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOTSTRAP: Resampling = Resampling { resamples: 200, seed: 0 };

    fn run(ranks: &[(&str, usize, bool)]) -> RunRanks {
        let ranks = ranks.iter().map(|&(id, rank, found)| (id.to_string(), GoldRank { rank, found })).collect();
        RunRanks { ranks, without_gold: 0, errors: 0, absent: 0 }
    }

    #[test]
    fn mentions_are_paired_by_their_identifiers() {
        let ours = run(&[("a", 1, true), ("b", 2, true), ("c", 4, true), ("only", 9, true)]);
        let theirs = run(&[("c", 4, true), ("b", 1, true), ("other", 1, true), ("a", 4, true), ("more", 1, true)]);
        let got = Comparison::of(&ours, &theirs, BOOTSTRAP).unwrap();
        assert_eq!((got.better, got.worse, got.equal), (1, 1, 1));
        assert_eq!((got.only_run, got.only_against), (1, 2));
        assert_eq!((got.run, got.against), (Metrics::of(&[1, 2, 4]), Metrics::of(&[4, 1, 4])));
        assert!((got.difference - (0.75 - 0.5) / 3.0).abs() < 1e-15, "{}", got.difference);
        let back = Comparison::of(&theirs, &ours, BOOTSTRAP).unwrap();
        assert_eq!((back.difference, back.better, back.t_test.p), (-got.difference, got.worse, got.t_test.p));
    }

    #[test]
    fn lists_of_another_meaning_are_refused() {
        let (whole, lacking) = (run(&[("a", 1, true), ("b", 2, true)]), run(&[("a", 1, true), ("b", 3, false)]));
        for (run, against, says) in [
            (&whole, &lacking, "missing in 0 of 2 rankings of the run and in 1 of 2"),
            (&lacking, &whole, "in 1 of 2 rankings of the run"),
        ] {
            let error = Comparison::of(run, against, BOOTSTRAP).unwrap_err().to_string();
            assert!(error.contains("different protocols") && error.contains(says), "{error}");
        }
        let same = Comparison::of(&lacking, &lacking, BOOTSTRAP).unwrap();
        assert_eq!(
            (same.protocol, same.t_test.p, same.interval),
            (Protocol::AsRetrieved, 1.0, Interval { low: 0.0, high: 0.0 })
        );
    }

    #[test]
    fn one_mention_in_common_is_no_comparison() {
        let error = Comparison::of(&run(&[("a", 1, true)]), &run(&[("a", 2, true)]), BOOTSTRAP).unwrap_err();
        assert!(error.to_string().contains("1 pairs"), "{error}");
    }
}
