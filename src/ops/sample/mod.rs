//! Choosing a token by its logits, so that the same logits and the same random number give the same token on every device.
//!
//! A token's weight is ⌊2^40 e⌋ of e = exp((logit - largest) / temperature), which is computed in f32 by the very operations of
//! [`vector::exp`]. Weights are integers, so their sums do not depend on their order: a kernel adds them as it likes
//! (kernels/sample.cu). A token 2^40 times less likely than the likeliest is never drawn.

mod cuda;

pub use cuda::choose as choose_there;

use bytemuck::{Pod, Zeroable};

use crate::device::cpu::{simd, vector};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// How one token is chosen; as kernels/sample.cu takes it.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Draw {
    /// Drawn uniformly from all numbers of 64 bits.
    pub number: u64,
    /// 1 / temperature; with 0 the token is the likeliest, whatever the number.
    pub sharpness: f32,
    /// The token is drawn among the likeliest that have this share of all probability together; above 0, at most 1.
    pub top_p: f32,
}

impl Draw {
    /// The likeliest token.
    pub const LIKELIEST: Draw = Draw { number: 0, sharpness: 0.0, top_p: 1.0 };
}

/// A token from each row of logits, one draw per row.
pub fn choose_each(logits: &Tensor, draws: &[Draw]) -> Result<Vec<u32>> {
    if logits.count() != draws.len() {
        return Err(Error::shape("choose", format!("{} rows of logits, {} draws", logits.count(), draws.len())));
    }
    if logits.gpu().is_some() {
        return cuda::chosen(logits, draws);
    }
    let rows = logits.wide("choose")?.chunks_exact(logits.width());
    Ok(rows.zip(draws).map(|(row, &draw)| choose(row, draw)).collect())
}

/// Of each row of logits those of these tokens: (rows, tokens).
pub fn gather(logits: &Tensor, tokens: &[u32]) -> Result<Tensor> {
    if logits.gpu().is_some() {
        return cuda::gather(logits, tokens);
    }
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= logits.width()) {
        return Err(Error::shape("gather", format!("token {token} beyond rows of {}", logits.width())));
    }
    let rows = logits.wide("gather")?.chunks_exact(logits.width());
    let values: Vec<f32> = rows.flat_map(|row| tokens.iter().map(|&token| row[token as usize])).collect();
    Tensor::new([logits.count(), tokens.len()], values)
}

/// 2^40 e in whole numbers, of 0 <= e <= 1. Of a NaN, 0.
fn weight(e: f32) -> u64 {
    (e * (1u64 << 40) as f32) as u64
}

/// The number of a token by its logits. Of equally likely ones the lower number counts as likelier; a NaN is no logit, and
/// where none is finite, the token is the first of the largest, or 0.
pub fn choose(logits: &[f32], draw: Draw) -> u32 {
    let (largest, likeliest) = peak(logits);
    if draw.sharpness == 0.0 {
        return likeliest;
    }
    let mut e: Vec<f32> = logits.iter().map(|x| (x - largest) * draw.sharpness).collect();
    simd!(e.iter_mut().for_each(|x| *x = vector::exp(*x)));
    let total: u64 = e.iter().map(|&e| weight(e)).sum();
    if total == 0 {
        return likeliest;
    }
    let mut tokens: Vec<u32> = e.iter().zip(0..).filter(|(e, _)| weight(**e) > 0).map(|(_, token)| token).collect();
    let weight = |token: u32| weight(e[token as usize]);
    let least = ((draw.top_p as f64 * total as f64).ceil() as u64).min(total);
    let mut kept = total;
    if least < total {
        // The bits of positive floats are ordered as they are.
        tokens.sort_unstable_by_key(|&token| (!e[token as usize].to_bits(), token));
        kept = 0;
        let count = tokens.iter().take_while(|&&t| (kept < least).then(|| kept += weight(t)).is_some()).count();
        tokens.truncate(count);
        tokens.sort_unstable();
    }
    // A number below `kept`; of those kept, the token at that place.
    let mut at = ((draw.number as u128 * kept as u128) >> 64) as u64;
    let drawn = tokens.iter().find(|&&token| match at.checked_sub(weight(token)) {
        Some(rest) => {
            at = rest;
            false
        }
        None => true,
    });
    drawn.copied().unwrap_or(likeliest)
}

/// The largest logit and its number, of equal ones the first.
fn peak(logits: &[f32]) -> (f32, u32) {
    logits.iter().zip(0u32..).fold((f32::NEG_INFINITY, 0), |best, (&x, token)| match x > best.0 {
        true => (x, token),
        false => best,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Choices with numbers spread evenly.
    fn drawn(temperature: f32, top_p: f32, logits: &[f32]) -> Vec<u32> {
        let draw = |i: u64| Draw { number: i << 52, sharpness: 1.0 / temperature, top_p };
        (0..4096).map(|i| choose(logits, draw(i))).collect()
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        let logits = [0.0, 3f32.ln() * 2.0, f32::NEG_INFINITY, f32::NAN];
        let all = drawn(2.0, 1.0, &logits);
        let count = |token| all.iter().filter(|&&t| t == token).count();
        // Probabilities 1/4 and 3/4; the logarithm's rounding may move one number.
        assert!(count(1).abs_diff(3072) <= 1, "{}", count(1));
        assert_eq!(count(0) + count(1), 4096);
    }

    #[test]
    fn top_p_keeps_the_fewest_that_suffice() {
        // Probabilities 1/2, 1/4, 1/4.
        let logits = [0.0, 2f32.ln(), 0.0];
        assert!(drawn(1.0, 0.49, &logits).iter().all(|&token| token == 1));
        let some = drawn(1.0, 0.6, &logits);
        assert!(some.contains(&0) && some.contains(&1) && !some.contains(&2));
        assert!(drawn(1.0, 1.0, &logits).contains(&2));
        assert!(drawn(1.0, 1e-30, &logits).iter().all(|&token| token == 1));
    }

    #[test]
    fn the_likeliest_is_the_first_of_the_largest() {
        let greedy = |logits: &[f32]| choose(logits, Draw::LIKELIEST);
        assert_eq!(greedy(&[0.0, 2.0, 2.0]), 1);
        assert_eq!(greedy(&[f32::NAN, -1.0]), 1);
        assert_eq!(greedy(&[f32::NEG_INFINITY; 3]), 0);
        // Nothing can be drawn from these.
        assert_eq!(drawn(1.0, 0.5, &[1.0, f32::INFINITY])[0], 1);
        assert_eq!(drawn(1.0, 0.5, &[f32::NAN; 2])[0], 0);
        assert_eq!(drawn(1e-40, 0.5, &[1.0, 3.0])[0], 1);
    }
}
