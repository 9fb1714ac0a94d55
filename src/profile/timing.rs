//! Times of repeated runs of the same work.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Times of some runs of the same work, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Samples", into = "Quantiles")]
pub struct Timing {
    /// In the order in which they were measured.
    samples: Vec<f64>,
    ascending: Vec<f64>,
}

/// A timing as files hold it.
#[derive(Serialize)]
struct Quantiles {
    runs: usize,
    min: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
    noise: f64,
    samples: Vec<f64>,
}

/// What of it is read: the rest follows.
#[derive(Deserialize)]
struct Samples {
    samples: Vec<f64>,
}

impl From<Timing> for Quantiles {
    fn from(timing: Timing) -> Quantiles {
        let [min, p50, p90, p99, p999, max] = [0.0, 0.5, 0.9, 0.99, 0.999, 1.0].map(|share| timing.quantile(share));
        Quantiles { runs: timing.runs(), min, p50, p90, p99, p999, max, noise: timing.noise(), samples: timing.samples }
    }
}

impl TryFrom<Samples> for Timing {
    type Error = Error;

    fn try_from(read: Samples) -> Result<Timing> {
        Timing::new(read.samples)
    }
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

    /// Seconds that runs took. Fails if there was none, or one that no clock gives.
    pub fn new(samples: Vec<f64>) -> Result<Timing> {
        if samples.is_empty() {
            return Err(Error::invalid("the number of runs must be at least 1"));
        }
        if let Some(wrong) = samples.iter().find(|seconds| !seconds.is_finite() || **seconds < 0.0) {
            return Err(Error::invalid(format!("a run took {wrong} s, which no clock gives")));
        }
        let mut ascending = samples.clone();
        ascending.sort_by(f64::total_cmp);
        Ok(Timing { samples, ascending })
    }

    /// In the order in which they were measured.
    pub fn samples(&self) -> &[f64] {
        &self.samples
    }

    /// The fastest first.
    pub fn ascending(&self) -> &[f64] {
        &self.ascending
    }

    /// How many runs there were.
    pub fn runs(&self) -> usize {
        self.samples.len()
    }

    /// The smallest time that at least this share of the runs did not exceed (nearest rank).
    pub fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.runs() as f64).ceil() as usize;
        self.ascending[rank.clamp(1, self.runs()) - 1]
    }

    /// The median.
    pub fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The fastest.
    pub fn min(&self) -> f64 {
        self.quantile(0.0)
    }

    /// Distance of the quartiles as a share of the median.
    pub fn noise(&self) -> f64 {
        let spread = self.quantile(0.75) - self.quantile(0.25);
        if spread == 0.0 { 0.0 } else { spread / self.p50() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let timing = Timing::new((1..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!(
            [0.0, 0.5, 0.9, 0.99, 0.999, 1.0].map(|q| timing.quantile(q)),
            [1.0, 50.0, 90.0, 99.0, 100.0, 100.0]
        );
        assert_eq!((timing.samples()[0], timing.noise()), (100.0, 1.0));
        assert_eq!(Timing::new(vec![3.0]).unwrap().p50(), 3.0);
        assert!(Timing::of(0, 0, || Ok(())).is_err() && Timing::new(vec![f64::NAN]).is_err());
    }

    #[test]
    fn a_file_of_it_gives_it_back() {
        let timing = Timing::new(vec![0.3, 0.1, 0.2]).unwrap();
        let written = serde_json::to_value(&timing).unwrap();
        assert_eq!((&written["p50"], &written["runs"]), (&0.2.into(), &3.into()));
        assert_eq!(serde_json::from_value::<Timing>(written).unwrap(), timing);
        assert!(serde_json::from_str::<Timing>(r#"{"samples": []}"#).is_err());
    }
}
