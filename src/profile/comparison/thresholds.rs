//! When a difference between two runs counts.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::eval::statistics::centre;
use crate::files::read_text;

/// Rounds beyond which nobody waits for a verdict.
const MOST_ROUNDS: usize = 200;

/// When a difference counts. Read from TOML; what a file leaves out has these values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// Of files: the fewest runs of each side.
    pub min_runs: usize,
    /// Of files: the most noise (distance of quartiles over median) of each side.
    pub max_noise: f64,
    /// Of files: the least gap between the intervals, as a share.
    pub clear_gap: f64,
    /// Of programs in turn: the fewest rounds, and the most.
    pub min_rounds: usize,
    pub max_rounds: usize,
    /// Of programs in turn: the confidence of the ratio's interval.
    pub confidence: f64,
    /// Of programs in turn: the interval must lie beyond this share to be FAST or SLOW, and within it to be SAME.
    pub least_change: f64,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds {
            min_runs: 10,
            max_noise: 0.1,
            clear_gap: 0.005,
            min_rounds: 8,
            max_rounds: 24,
            confidence: 0.99,
            least_change: 0.01,
        }
    }
}

impl Thresholds {
    /// Reads a file of thresholds. Fails if a key is unknown or a value cannot be.
    pub fn read(path: &Path) -> Result<Thresholds> {
        let read: Thresholds =
            toml::from_str(&read_text(path)?).map_err(|e| Error::file(path, e.to_string().trim_end().to_string()))?;
        let shares = [("clear_gap", read.clear_gap), ("least_change", read.least_change)];
        let wrong = shares.iter().find(|(_, share)| !(0.0..1.0).contains(share)).map(|(name, _)| *name);
        // Where a quarter of the runs takes many times as long as another, noise is above 1.
        let wrong = wrong.or((!(0.0..f64::INFINITY).contains(&read.max_noise)).then_some("max_noise"));
        let wrong = wrong.or((read.min_runs == 0).then_some("min_runs"));
        let wrong = wrong.or((!(0.5..1.0).contains(&read.confidence)).then_some("confidence"));
        // Fewer than that have no interval of so much confidence.
        let enough = centre(&vec![0.0; read.max_rounds.min(MOST_ROUNDS)], read.confidence).is_some();
        let rounds = read.min_rounds >= 2 && (read.min_rounds..=MOST_ROUNDS).contains(&read.max_rounds) && enough;
        match wrong.or((!rounds).then_some("min_rounds and max_rounds")) {
            Some(name) => Err(Error::file(
                path,
                format!("{name} makes no sense; configs/bench-thresholds.toml says what it may be"),
            )),
            None => Ok(read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_that_cannot_be_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Thresholds::read(&path)
        };
        assert_eq!(read("").unwrap(), Thresholds::default());
        assert_eq!(read(include_str!("../../../configs/bench-thresholds.toml")).unwrap(), Thresholds::default());
        for (wrong, named) in [
            ("max_nose = 1", "max_nose"),
            ("max_noise = -0.1", "max_noise"),
            ("max_noise = inf", "max_noise"),
            ("min_rounds = 1", "min_rounds"),
            ("confidence = 0.9999999999", "max_rounds"),
            ("max_rounds = 1000000000", "max_rounds"),
        ] {
            assert!(read(wrong).unwrap_err().to_string().contains(named), "{wrong}");
        }
    }
}
