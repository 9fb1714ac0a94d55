//! Two methods on the same mentions: their differences, tested and with an interval.

use rand::Rng;
use rayon::prelude::*;
use serde::Serialize;
use statrs::function::beta::checked_beta_reg;

use super::{CONFIDENCE, Interval, moments};
use crate::error::{Error, Result};
use crate::random::{Purpose, generator};

/// A two-sided paired t-test of whether the mean difference is zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TTest {
    /// Student's t; none where all differences are equal, so that they have no spread to be measured by.
    pub t: Option<f64>,
    /// Pairs less one.
    pub degrees_of_freedom: usize,
    /// Probability of a |t| as large as this, if the mean difference of the population is zero and differences are
    /// normal.
    pub p: f64,
    /// What to know where there is no t.
    pub note: Option<&'static str>,
}

/// How a bootstrap draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resampling {
    /// How many times the pairs are drawn anew.
    pub resamples: usize,
    /// Draws them.
    pub seed: u64,
}

/// `values - others`, pair by pair. Fails if they are not as many.
pub fn differences(values: &[f64], others: &[f64]) -> Result<Vec<f64>> {
    if values.len() != others.len() {
        return Err(Error::invalid(format!("{} values cannot be paired with {}", values.len(), others.len())));
    }
    Ok(values.iter().zip(others).map(|(value, other)| value - other).collect())
}

/// Fails if there are fewer than two pairs.
fn at_least_two(differences: &[f64]) -> Result<()> {
    match differences.len() {
        n @ (0 | 1) => {
            Err(Error::invalid(format!("{n} pairs tell nothing of chance: a comparison needs two at least")))
        }
        _ => Ok(()),
    }
}

/// The paired t-test of these differences. Fails if they are fewer than two, or not finite.
pub fn t_test(differences: &[f64]) -> Result<TTest> {
    at_least_two(differences)?;
    let (mean, variance) = moments(differences)?;
    let degrees_of_freedom = differences.len() - 1;
    let certain = |p, note| TTest { t: None, degrees_of_freedom, p, note: Some(note) };
    // Compared one by one: rounding of the mean would leave a spread where there is none.
    if differences.iter().all(|difference| *difference == differences[0]) {
        return Ok(match differences[0] == 0.0 {
            true => certain(1.0, "all differences are zero"),
            false => certain(0.0, "all differences are equal and not zero"),
        });
    }
    let error = (variance.unwrap_or_default() / differences.len() as f64).sqrt();
    let t = mean / error;
    if !t.is_finite() {
        return Err(Error::invalid("the differences are too small to be squared"));
    }
    Ok(TTest { t: Some(t), degrees_of_freedom, p: two_sided(t, degrees_of_freedom)?, note: None })
}

/// Probability that Student's t of so many degrees of freedom is at least `|t|` from zero. Accurate to 1e-9 of itself
/// up to 26,000 degrees of freedom, as many as WikiMEL has mentions, and to 1e-8 up to a million.
fn two_sided(t: f64, degrees_of_freedom: usize) -> Result<f64> {
    let (freedom, square) = (degrees_of_freedom as f64, t * t);
    let beta = |a, b, x| checked_beta_reg(a, b, x).map_err(|e| Error::invalid(format!("Student's t of {t}: {e}")));
    // Two ways of one quantity: near t = 0 the first loses the digits of its argument, far from it the second those of
    // its result.
    match square > 1.0 {
        // t may be so large that its square is not finite.
        true => beta(0.5 * freedom, 0.5, 1.0 / (1.0 + square / freedom)),
        false => Ok(1.0 - beta(0.5, 0.5 * freedom, square / (freedom + square))?),
    }
}

/// Percentile bootstrap interval of the mean difference: mentions are drawn with replacement, and the interval is
/// between the 2.5th and the 97.5th percentile of the means, interpolated linearly. The same bits on any number of
/// threads.
///
/// Fails if there are fewer than two differences, if one is not finite, or without a resample.
pub fn bootstrap(differences: &[f64], resampling: Resampling) -> Result<Interval> {
    at_least_two(differences)?;
    moments(differences)?;
    let Resampling { resamples, seed } = resampling;
    if resamples == 0 {
        return Err(Error::invalid("a bootstrap needs at least one resample"));
    }
    let n = differences.len();
    let mean = |resample: usize| {
        let mut draws = generator(seed, Purpose::Bootstrap, resample as u64);
        (0..n).map(|_| differences[draws.random_range(0..n)]).sum::<f64>() / n as f64
    };
    let mut means: Vec<f64> = (0..resamples).into_par_iter().map(mean).collect();
    means.sort_unstable_by(f64::total_cmp);
    let tail = 0.5 * (1.0 - CONFIDENCE);
    Ok(Interval { low: percentile(&means, tail), high: percentile(&means, 1.0 - tail) })
}

/// The value below which this share of sorted values lies, between two of them in proportion.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}
