//! Loops over float slices that the compiler turns into vector code when inlined into `simd!`.
//!
//! Sums run over 16 lanes that are added up in a fixed tree, so they have the same bits on every instruction set
//! with fused multiply-add.

mod activations;

use half::{bf16, f16};

pub use activations::*;

/// Values that are summed side by side.
pub const LANES: usize = 16;

#[inline(always)]
fn total(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Folds `x` and `y` pairwise into 16 lanes, then sums the lanes.
#[inline(always)]
fn fold2(x: &[f32], y: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (xr, yr) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for i in 0..LANES {
            lanes[i] = f(lanes[i], x[i], y[i]);
        }
    }
    for (i, (&x, &y)) in xr.iter().zip(yr).enumerate() {
        lanes[i] = f(lanes[i], x, y);
    }
    total(lanes)
}

/// Σ x_i y_i
#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    fold2(x, y, |sum, x, y| x.mul_add(y, sum))
}

/// Products of a row with several others, each with the bits of [`dot`]: the row is read once for all of them. What is left
/// of the lengths, which are the same, by 16 is left out.
#[inline(always)]
pub fn dots<const N: usize>(row: &[f32], others: [&[f32]; N]) -> [f32; N] {
    let row = row.as_chunks::<LANES>().0;
    let others = others.map(|other| &other.as_chunks::<LANES>().0[..row.len()]);
    let mut lanes = [[0.0; LANES]; N];
    for (at, row) in row.iter().enumerate() {
        for (lanes, other) in lanes.iter_mut().zip(&others) {
            for i in 0..LANES {
                lanes[i] = other[at][i].mul_add(row[i], lanes[i]);
            }
        }
    }
    lanes.map(total)
}

/// Σ x_i
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    fold2(x, x, |sum, x, _| sum + x)
}

/// Σ x_i in four sums side by side, as fast as memory can be read; the length's remainder by 64 is left out.
#[inline(always)]
pub fn total4(x: &[f32]) -> f32 {
    let mut sums = [[0.0; LANES]; 4];
    for x in x.as_chunks::<{ 4 * LANES }>().0 {
        for (sums, x) in sums.iter_mut().zip(x.as_chunks::<LANES>().0) {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
        }
    }
    sums.into_iter().map(total).sum()
}

/// Σ (x_i - mean)²
#[inline(always)]
pub fn squares_about(x: &[f32], mean: f32) -> f32 {
    fold2(x, x, |sum, x, _| (x - mean).mul_add(x - mean, sum))
}

/// y += x
#[inline(always)]
pub fn add(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

/// y += a x
#[inline(always)]
pub fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = a.mul_add(x, *y));
}

/// y += Σ a_i x_i over four rows: `y` is read and written once instead of four times.
#[inline(always)]
pub fn add_scaled4(y: &mut [f32], a: [f32; 4], x: [&[f32]; 4]) {
    let [p, q, r, s] = x.map(|row| &row[..y.len()]);
    for (i, y) in y.iter_mut().enumerate() {
        *y = a[3].mul_add(s[i], a[2].mul_add(r[i], a[1].mul_add(q[i], a[0].mul_add(p[i], *y))));
    }
}

/// x *= a
#[inline(always)]
pub fn scale(x: &mut [f32], a: f32) {
    x.iter_mut().for_each(|x| *x *= a);
}

/// out = x, widened. Exact; unlike a call of the processor's conversion per eight values it is inlined.
#[inline(always)]
pub fn widen(out: &mut [f32], x: &[f16]) {
    const INFINITY: u32 = 0x7c00 << 13;
    for (out, x) in out.iter_mut().zip(x) {
        let bits = x.to_bits() as u32;
        let magnitude = (bits & 0x7fff) << 13;
        // The exponent's bias grows from 15 to 127; the product normalizes subnormal values on the way.
        let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
        let value = if magnitude >= INFINITY { magnitude | 0xff << 23 } else { finite };
        *out = f32::from_bits(value | (bits & 0x8000) << 16);
    }
}

/// out = x, widened.
#[inline(always)]
pub fn widen_bf16(out: &mut [f32], x: &[bf16]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out = f32::from_bits((x.to_bits() as u32) << 16));
}

/// out = x, rounded to the nearest bf16, ties to even. A NaN stays one.
#[inline(always)]
pub fn round_bf16(out: &mut [bf16], x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let nan = bits >> 16 | 0x40;
        *out = bf16::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { nan } else { rounded } as u16);
    }
}

/// Codes of up to 127 in magnitude with x ≈ step · code. Returns the step, which is a NaN if one of x is and not finite if
/// one of x is not, and the sum of the codes.
#[inline(always)]
pub fn quantize(codes: &mut [i8], x: &[f32]) -> (f32, i32) {
    const LARGEST: f32 = 127.0;
    let largest = largest(x);
    let scale = if largest > 0.0 { LARGEST / largest } else { 0.0 };
    let mut sum = 0;
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = nearest(x, scale) as i8;
        sum += i32::from(*code);
    }
    (largest / LARGEST, sum)
}

/// The same with codes of up to 32,639, the most whose upper byte is at most 127: `256 · upper + lower`.
#[inline(always)]
pub fn quantize_finely(upper: &mut [i8], lower: &mut [i8], x: &[f32]) -> (f32, i32) {
    const LARGEST: f32 = 32_639.0;
    let largest = largest(x);
    let scale = if largest > 0.0 { LARGEST / largest } else { 0.0 };
    let mut sum = 0;
    for ((upper, lower), &x) in upper.iter_mut().zip(lower).zip(x) {
        let code = nearest(x, scale);
        (*upper, *lower) = (((code + 128) >> 8) as i8, code as i8);
        sum += 256 * i32::from(*upper) + i32::from(*lower);
    }
    (largest / LARGEST, sum)
}

/// The largest magnitude of x; a NaN counts as the largest.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let mut lanes = [0; LANES];
    for x in x.chunks(LANES) {
        // Floats without a sign are in the order of their bits.
        lanes.iter_mut().zip(x).for_each(|(max, x)| *max = (*max).max(x.abs().to_bits()));
    }
    f32::from_bits(lanes.into_iter().fold(0, u32::max))
}

/// The integer nearest to x times a scale, of at most 2^22 in magnitude, without a branch.
#[inline(always)]
fn nearest(x: f32, scale: f32) -> i32 {
    // Adding 1.5 · 2^23 rounds to an integer, which stays in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    x.mul_add(scale, SHIFT).to_bits() as i32 - SHIFT.to_bits() as i32
}

/// max(x, 0), in place, where NaN stays NaN: what went wrong must show.
#[inline(always)]
pub fn relu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x });
}

/// eˣ within 2 ulp, without a call and without a branch. Below -87 it is 0 to f32's normal range, above 88 infinite.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // x = n ln 2 + r with |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to an integer, which stays in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 89.0);
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts, the first exact under multiplication by n.
    let r = n.mul_add(-0.693_359_4, clamped);
    let r = n.mul_add(2.121_944_4e-4, r);
    // Taylor's coefficients, adjusted for the interval.
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_2e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 0.166_666_66);
    let p = p.mul_add(r, 0.5);
    let p = (p * r).mul_add(r, r) + 1.0;
    // 2^n in two factors, since n reaches 128.
    let half = |n: u32| f32::from_bits(n.wrapping_add(127) << 23);
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let first = (n as i32 >> 1) as u32;
    let value = p * half(first) * half(n.wrapping_sub(first));
    if x < -87.0 { 0.0 } else { value }
}

/// The largest x; of none, negative infinity.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], x[i]);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// Softmax in place. An empty slice stays empty.
#[inline(always)]
pub fn softmax(x: &mut [f32]) {
    let max = max(x);
    x.iter_mut().for_each(|x| *x = exp(*x - max));
    scale(x, 1.0 / sum(x));
}

/// Replaces each x by exp(x - max) and returns their sum.
#[inline(always)]
pub fn exp_sum(x: &mut [f32], max: f32) -> f32 {
    x.iter_mut().for_each(|x| *x = exp(*x - max));
    sum(x)
}

/// out = gain · x / sqrt(mean(x²) + eps)
#[inline(always)]
pub fn rms_norm(out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
    let rstd = 1.0 / (squares_about(x, 0.0) / x.len() as f32 + eps).sqrt();
    out.iter_mut().zip(x).zip(gain).for_each(|((out, x), gain)| *out = gain * (x * rstd));
}

/// out = silu(gate) · up, silu(x) = x σ(x)
#[inline(always)]
pub fn swiglu(out: &mut [f32], gate: &[f32], up: &[f32]) {
    out.iter_mut().zip(gate).zip(up).for_each(|((out, g), up)| *out = g / (1.0 + exp(-g)) * up);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_agree_with_f64_at_odd_lengths() {
        for n in [0usize, 1, 15, 16, 17, 100, 257] {
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
            let y: Vec<f32> = (0..n).map(|i| (i as f32 * 0.3).cos()).collect();
            let want: f64 = x.iter().zip(&y).map(|(&x, &y)| x as f64 * y as f64).sum();
            assert!((simd!(dot(&x, &y)) as f64 - want).abs() < 1e-5);
            assert!((simd!(sum(&x)) as f64 - x.iter().map(|&x| x as f64).sum::<f64>()).abs() < 1e-5);
        }
    }

    #[test]
    fn exp_agrees_with_f64() {
        for i in -880_000..=880_000 {
            let x = i as f32 * 1e-4;
            let (got, want) = (exp(x) as f64, (x as f64).exp());
            assert!((got - want).abs() <= 2.4e-7 * want || x < -87.0 && got == 0.0, "exp({x}) = {got}, not {want}");
        }
        assert_eq!((exp(0.0), exp(-1e30), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(f32::NAN).is_nan() && exp(1e30) == f32::INFINITY);
    }

    #[test]
    fn every_f16_widens_to_its_value() {
        let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let mut wide = vec![0.0; all.len()];
        simd!(widen(&mut wide, &all));
        for (x, wide) in all.iter().zip(wide) {
            assert!(wide.to_bits() == x.to_f32().to_bits() || x.is_nan() && wide.is_nan(), "{x}: {wide}");
        }
    }

    #[test]
    fn rounding_to_bf16_is_that_of_half() {
        let patterns = (0..=u16::MAX).flat_map(|high| [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| (high, low)));
        let x: Vec<f32> = patterns.map(|(high, low)| f32::from_bits((high as u32) << 16 | low)).collect();
        let (mut narrow, mut wide) = (vec![bf16::ZERO; x.len()], vec![0.0; x.len()]);
        simd!(round_bf16(&mut narrow, &x));
        simd!(widen_bf16(&mut wide, &narrow));
        for ((x, narrow), wide) in x.iter().zip(narrow).zip(wide) {
            assert_eq!(narrow.to_bits(), bf16::from_f32(*x).to_bits(), "{x:e}");
            assert_eq!(wide.to_bits(), (narrow.to_bits() as u32) << 16);
        }
    }

    #[test]
    fn softmax_survives_large_logits() {
        let mut x = [1e4, 1e4 - 1.0, -1e4];
        softmax(&mut x);
        assert!((x[0] - 1.0 / (1.0 + (-1f32).exp())).abs() < 1e-6 && x[2] == 0.0);
    }
}
