//! Loops over float slices that the compiler turns into vector code when inlined into `simd!`.
//!
//! Sums run over 16 lanes that are added up in a fixed tree, so they have the same bits on every instruction set
//! with fused multiply-add.

use half::f16;

const LANES: usize = 16;

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

/// Σ x_i
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    fold2(x, x, |sum, x, _| sum + x)
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

/// Softmax in place. An empty slice stays empty.
#[inline(always)]
pub fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in x.iter_mut() {
        *x = (*x - max).exp();
        sum += *x;
    }
    scale(x, 1.0 / sum);
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
    fn every_f16_widens_to_its_value() {
        let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let mut wide = vec![0.0; all.len()];
        simd!(widen(&mut wide, &all));
        for (x, wide) in all.iter().zip(wide) {
            assert!(wide.to_bits() == x.to_f32().to_bits() || x.is_nan() && wide.is_nan(), "{x}: {wide}");
        }
    }

    #[test]
    fn softmax_survives_large_logits() {
        let mut x = [1e4, 1e4 - 1.0, -1e4];
        softmax(&mut x);
        assert!((x[0] - 1.0 / (1.0 + (-1f32).exp())).abs() < 1e-6 && x[2] == 0.0);
    }
}
