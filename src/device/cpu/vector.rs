//! Loops over float slices that the compiler turns into vector code when inlined into [`super::simd`].
//!
//! Sums run over 16 lanes that are added up in a fixed tree, so they have the same bits on every instruction set
//! with fused multiply-add.

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
    use crate::device::cpu::simd;

    #[test]
    fn sums_agree_with_f64_at_odd_lengths() {
        for n in [0usize, 1, 15, 16, 17, 100, 257] {
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
            let y: Vec<f32> = (0..n).map(|i| (i as f32 * 0.3).cos()).collect();
            let want: f64 = x.iter().zip(&y).map(|(&x, &y)| x as f64 * y as f64).sum();
            assert!((simd(|| dot(&x, &y)) as f64 - want).abs() < 1e-5);
            assert!((simd(|| sum(&x)) as f64 - x.iter().map(|&x| x as f64).sum::<f64>()).abs() < 1e-5);
        }
    }

    #[test]
    fn softmax_survives_large_logits() {
        let mut x = [1e4, 1e4 - 1.0, -1e4];
        softmax(&mut x);
        assert!((x[0] - 1.0 / (1.0 + (-1f32).exp())).abs() < 1e-6 && x[2] == 0.0);
    }
}
