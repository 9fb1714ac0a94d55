//! Is a difference more than chance? On reciprocal ranks per mention, and on metrics per seed.
//!
//! All results are finite, or there is none and an error says why.

mod paired;
mod signed_rank;

pub use paired::{Resampling, TTest, bootstrap, differences, t_test};
pub use signed_rank::{Centre, centre};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// The normal distribution's quantile at (1 + [`CONFIDENCE`]) / 2.
const Z: f64 = 1.959_963_984_540_054;

/// Where a quantity lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// A quantity over several seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation (of n - 1 degrees of freedom); one seed has none.
    pub deviation: Option<f64>,
    /// Number of seeds.
    pub seeds: usize,
}

impl Summary {
    /// Of one value per seed. Fails without a value, or if one is not finite.
    pub fn of(values: &[f64]) -> Result<Summary> {
        if values.is_empty() {
            return Err(Error::invalid("no value to take a mean of"));
        }
        let (mean, variance) = moments(values)?;
        Ok(Summary { mean, deviation: variance.map(f64::sqrt), seeds: values.len() })
    }
}

/// Wilson's score interval of a share of which `hits` of `n` were seen. Unlike the normal approximation, it stays
/// within 0 and 1 and has a width where all or none are hits.
///
/// Fails if `n` is 0 or below `hits`.
pub fn wilson(hits: usize, n: usize) -> Result<Interval> {
    if n == 0 || hits > n {
        return Err(Error::invalid(format!("{hits} of {n} is no share")));
    }
    let (share, total, square) = (hits as f64 / n as f64, n as f64, Z * Z);
    let centre = share + square / (2.0 * total);
    let half = Z * (share * (1.0 - share) / total + square / (4.0 * total * total)).sqrt();
    let scale = 1.0 + square / total;
    // Exact at the ends, where rounding would leave a trace.
    let low = if hits == 0 { 0.0 } else { (centre - half) / scale };
    let high = if hits == n { 1.0 } else { (centre + half) / scale };
    Ok(Interval { low, high })
}

/// Holm's step-down correction: p-values that may each be compared with the level at which no true hypothesis of the
/// whole family shall be rejected. In the order given.
///
/// Fails if one is no number between 0 and 1.
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>> {
    if let Some(bad) = p_values.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(Error::invalid(format!("{bad} is no p-value: it is not between 0 and 1")));
    }
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let (mut corrected, mut largest) = (vec![0.0; p_values.len()], 0.0_f64);
    for (before, &at) in order.iter().enumerate() {
        largest = largest.max((p_values[at] * (p_values.len() - before) as f64).min(1.0));
        corrected[at] = largest;
    }
    Ok(corrected)
}

/// Mean and, of two values or more, sample variance. Fails if a value or a result is not finite.
fn moments(values: &[f64]) -> Result<(f64, Option<f64>)> {
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::invalid(format!(
            "value {} of {} is {}, which is not finite",
            at + 1,
            values.len(),
            values[at]
        )));
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let variance = (values.len() > 1).then(|| squares / (n - 1.0));
    if !(mean.is_finite() && squares.is_finite()) {
        return Err(Error::invalid("the values are too large: their squares overflow"));
    }
    Ok((mean, variance))
}
