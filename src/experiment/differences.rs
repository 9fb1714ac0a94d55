//! Rows of a table against one of them, mention by mention.

use std::collections::HashMap;

use serde::Serialize;

use crate::error::Result;
use crate::eval::statistics::{self, Interval, Resampling};

/// How differences are drawn anew.
pub const RESAMPLING: Resampling = Resampling { resamples: 10_000, seed: 0 };

/// A row against another, mention by mention: reciprocal ranks, averaged over the seeds of each.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Difference {
    /// MRR of the row less that of the other.
    pub reciprocal: f64,
    /// The difference's bootstrap interval, of 95 % confidence.
    pub interval: Interval,
    /// Of the paired t-test.
    pub p: f64,
    /// The same after Holm's correction for all rows that are compared.
    pub corrected: f64,
}

/// A mention's reciprocal rank by its identifier.
pub(super) type Reciprocal = HashMap<String, f64>;

/// The reciprocal ranks of each seed of a row; of a run file that is given, which has no seed, of all.
pub(super) type Reciprocals = Vec<(Option<u64>, Reciprocal)>;

/// Each mention's reciprocal rank, averaged over some seeds of a row; of a run file that is given, as it is.
fn averaged(of: &Reciprocals, seeds: &[u64]) -> Reciprocal {
    let counts = |seed: &Option<u64>| seed.is_none_or(|seed| seeds.contains(&seed));
    let counted: Vec<&Reciprocal> = of.iter().filter(|(seed, _)| counts(seed)).map(|(_, of)| of).collect();
    let mut means = Reciprocal::new();
    for (mention, reciprocal) in counted.iter().flat_map(|of| of.iter()) {
        *means.entry(mention.clone()).or_default() += reciprocal / counted.len() as f64;
    }
    means
}

/// The seeds that two rows have, and whether one has others; all of one's where the other is a run file.
fn common_seeds(a: &Reciprocals, b: &Reciprocals) -> (Vec<u64>, bool) {
    let [a, b] = [a, b].map(|of| of.iter().filter_map(|(seed, _)| *seed).collect::<Vec<u64>>());
    if a.is_empty() || b.is_empty() {
        return ([a, b].concat(), false);
    }
    let both: Vec<u64> = a.iter().copied().filter(|seed| b.contains(seed)).collect();
    let others = both.len() < a.len().max(b.len());
    (both, others)
}

/// Compares all rows with one, over the seeds that both have and the mentions that both rank: seeds differ by more than rows do.
/// Of each row its difference, if there is one, and what is to be said of it.
pub(super) fn compare(
    names: &[&str],
    reciprocals: &[Reciprocals],
    against: usize,
) -> Result<Vec<(Option<Difference>, Option<String>)>> {
    let (mut compared, mut all) = (Vec::new(), vec![(None, None); names.len()]);
    for (number, own) in reciprocals.iter().enumerate() {
        if number == against || own.is_empty() || reciprocals[against].is_empty() {
            continue;
        }
        let (seeds, others) = common_seeds(own, &reciprocals[against]);
        if others {
            let of = seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            let name = names[against];
            all[number].1 = Some(match seeds.is_empty() {
                true => format!("no seed in common with {name}, the row it is compared with"),
                false => format!("it is compared with {name} over the seeds that both have: {of}"),
            });
        }
        if others && seeds.is_empty() {
            continue;
        }
        let [reciprocal, theirs] = [own, &reciprocals[against]].map(|of| averaged(of, &seeds));
        // In an order of their own, so that the same resamples are drawn each time.
        let mut mentions: Vec<&String> = reciprocal.keys().filter(|m| theirs.contains_key(*m)).collect();
        mentions.sort();
        let differences: Vec<f64> = mentions.iter().map(|m| reciprocal[*m] - theirs[*m]).collect();
        if differences.len() < 2 {
            all[number].1 = Some("fewer than two mentions in common with the row it is compared with".into());
            continue;
        }
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        let (test, interval) = (statistics::t_test(&differences)?, statistics::bootstrap(&differences, RESAMPLING)?);
        compared.push((number, Difference { reciprocal: mean, interval, p: test.p, corrected: test.p }));
    }
    let corrected = statistics::holm(&compared.iter().map(|(_, difference)| difference.p).collect::<Vec<_>>())?;
    for ((number, difference), corrected) in compared.into_iter().zip(corrected) {
        all[number].0 = Some(Difference { corrected, ..difference });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_over_the_seeds_that_both_have() {
        let seed = |number: u64, ranks: [f64; 3]| {
            let of = ranks.iter().enumerate().map(|(i, rank)| (format!("m{i}"), 1.0 / rank)).collect();
            (Some(number), of)
        };
        // The second seed is worse for everybody; what the third row has of it alone is no difference to the first.
        let (good, bad) = ([1.0, 2.0, 1.0], [4.0, 8.0, 4.0]);
        let both = vec![seed(0, good), seed(1, bad)];
        let alone = vec![seed(1, bad)];
        let none = vec![seed(2, good)];
        let file = vec![(None, seed(0, good).1)];
        let names = ["against", "both", "alone", "none", "file"];
        let rows = compare(&names, &[both.clone(), both, alone, none, file], 0).unwrap();
        let mean = |row: usize| rows[row].0.as_ref().map(|difference| difference.reciprocal);
        assert_eq!([mean(0), mean(1), mean(2), mean(3)], [None, Some(0.0), Some(0.0), None]);
        // Of a run file against the mean of both seeds: 0.375 of what the good one has.
        assert!((mean(4).unwrap() - 0.375 * 2.5 / 3.0).abs() < 1e-12);
        let said = [1, 2, 3, 4].map(|row: usize| rows[row].1.as_deref());
        let alone = "it is compared with against over the seeds that both have: 1";
        assert_eq!(
            said,
            [None, Some(alone), Some("no seed in common with against, the row it is compared with"), None]
        );
    }
}
