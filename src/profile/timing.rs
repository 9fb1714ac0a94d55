//! Wall times of repeated runs.

use std::time::Instant;

use serde::Serialize;

use crate::error::{Error, Result};

/// Wall times of some runs of the same work.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Seconds, ascending.
    seconds: Vec<f64>,
}

/// Quantiles of a timing in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Summary {
    pub runs: usize,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Timing {
    /// Times `runs` runs after `warmup` ones that do not count.
    pub fn of<T>(warmup: usize, runs: usize, mut work: impl FnMut() -> Result<T>) -> Result<Timing> {
        for _ in 0..warmup {
            std::hint::black_box(work()?);
        }
        let mut seconds = Vec::with_capacity(runs);
        for _ in 0..runs {
            let start = Instant::now();
            std::hint::black_box(work()?);
            seconds.push(start.elapsed().as_secs_f64());
        }
        Timing::new(seconds)
    }

    /// Seconds that runs took. Fails if there was none.
    pub fn new(mut seconds: Vec<f64>) -> Result<Timing> {
        if seconds.is_empty() {
            return Err(Error::invalid("the number of runs must be at least 1"));
        }
        seconds.sort_by(f64::total_cmp);
        Ok(Timing { seconds })
    }

    /// The smallest time that at least this share of the runs did not exceed (nearest rank).
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.seconds.len() as f64).ceil() as usize;
        self.seconds[rank.clamp(1, self.seconds.len()) - 1]
    }

    /// The usual quantiles.
    pub fn summary(&self) -> Summary {
        Summary {
            runs: self.seconds.len(),
            min: self.quantile(0.0),
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            max: self.quantile(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let timing = Timing { seconds: (1..=100).map(f64::from).collect() };
        assert_eq!([0.0, 0.5, 0.9, 0.99, 1.0].map(|q| timing.quantile(q)), [1.0, 50.0, 90.0, 99.0, 100.0]);
        assert_eq!(Timing { seconds: vec![3.0] }.quantile(0.5), 3.0);
        assert!(Timing::of(0, 0, || Ok(())).is_err());
    }
}
