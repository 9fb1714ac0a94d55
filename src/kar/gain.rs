//! Differences between two ways to rank the same mentions.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::eval::statistics::{Interval, Resampling, bootstrap};

/// How the interval is drawn.
const RESAMPLING: Resampling = Resampling { resamples: 10_000, seed: 0 };

/// A mean difference over some mentions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// Its mean.
    pub mean: f64,
    /// Where the mean lies with 95 % confidence, by a bootstrap over the mentions.
    pub interval: Interval,
}

impl Gain {
    /// Of one difference per mention. Fails if there are fewer than two, or if one is not finite.
    pub fn of(differences: &[f64]) -> Result<Gain> {
        let interval = bootstrap(differences, RESAMPLING)?;
        Ok(Gain { mean: differences.iter().sum::<f64>() / differences.len() as f64, interval })
    }

    /// The mean and its interval in this unit's numbers, such as `+1.20 (+0.31 to +2.05)`.
    pub fn shown(&self, unit: f64, digits: usize) -> String {
        let Interval { low, high } = self.interval;
        let [mean, low, high] = [self.mean, low, high].map(|x| format!("{:+.digits$}", unit * x));
        format!("{mean} ({low} to {high})")
    }
}

/// What an interval needs to say anything: of fewer mentions, chance alone gives any.
pub const LEAST_MENTIONS: usize = 20;
