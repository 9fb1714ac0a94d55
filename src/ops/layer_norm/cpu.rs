//! Layer normalization of rows: `out = gamma * x̂ + beta` with `x̂ = (x - mean) * rstd` over the row.

use rayon::prelude::*;

use crate::device::cpu::{simd, vector};
use crate::ops::linear::{ROW_CHUNK, Value, segments};

/// Normalizes one row: `x` becomes x̂, `out` the result; returns rstd.
#[inline(always)]
fn forward_row(x: &mut [f32], out: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) -> f32 {
    let width = x.len() as f32;
    let mean = vector::sum(x) / width;
    let rstd = 1.0 / (vector::squares_about(x, mean) / width + eps).sqrt();
    for (((x, out), gamma), beta) in x.iter_mut().zip(out).zip(gamma).zip(beta) {
        *x = (*x - mean) * rstd;
        *out = gamma.mul_add(*x, *beta);
    }
    rstd
}

/// Normalizes rows of `gamma.len()` floats. `x` becomes x̂; `rstd` gets one float a row.
pub fn layer_norm_forward(x: &mut [f32], out: &mut [f32], rstd: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let width = gamma.len();
    simd!({
        for ((x, out), rstd) in x.chunks_exact_mut(width).zip(out.chunks_exact_mut(width)).zip(rstd) {
            *rstd = forward_row(x, out, gamma, beta, eps);
        }
    });
}

/// Normalizes rows of `gamma.len()` floats in parallel, for inference: nothing is kept for a backward.
pub fn layer_norm<T: Value>(x: &[f32], out: &mut [T], gamma: &[f32], beta: &[f32], eps: f32) {
    let width = gamma.len();
    let chunks = out.par_chunks_mut(ROW_CHUNK * width).zip(x.par_chunks(ROW_CHUNK * width));
    chunks.for_each_init(
        || [vec![0.0; width], vec![0.0; width]],
        |[xhat, row], (out, x)| {
            simd!({
                for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                    xhat.copy_from_slice(x);
                    forward_row(xhat, row, gamma, beta, eps);
                    T::store(out, row);
                }
            });
        },
    );
}

/// Gradients of gamma and beta, summed over rows.
pub struct LayerNormGrads {
    /// (width)
    pub gamma: Vec<f32>,
    /// (width)
    pub beta: Vec<f32>,
}

impl LayerNormGrads {
    /// Zeros of the given width.
    pub fn new(width: usize) -> LayerNormGrads {
        LayerNormGrads { gamma: vec![0.0; width], beta: vec![0.0; width] }
    }

    /// Backward of some rows, in order: `dx` gets the gradient of the rows before normalization.
    pub fn rows(&mut self, dx: &mut [f32], dout: &[f32], xhat: &[f32], rstd: &[f32], gamma: &[f32]) {
        let width = gamma.len();
        let inverse = 1.0 / width as f32;
        simd!({
            let rows = dx.chunks_exact_mut(width).zip(dout.chunks_exact(width)).zip(xhat.chunks_exact(width));
            for (((dx, dout), xhat), rstd) in rows.zip(rstd) {
                vector::add(&mut self.beta, dout);
                for (((dx, sum), dout), (xhat, gamma)) in
                    dx.iter_mut().zip(&mut self.gamma).zip(dout).zip(xhat.iter().zip(gamma))
                {
                    *sum = dout.mul_add(*xhat, *sum);
                    *dx = dout * gamma;
                }
                let mean = vector::sum(dx) * inverse;
                let along = vector::dot(dx, xhat) * inverse;
                for (dx, xhat) in dx.iter_mut().zip(xhat) {
                    *dx = (*dx - mean - xhat * along) * rstd;
                }
            }
        });
    }

    /// Adds another partial sum.
    pub fn add(&mut self, other: &LayerNormGrads) {
        vector::add(&mut self.gamma, &other.gamma);
        vector::add(&mut self.beta, &other.beta);
    }
}

/// Backward of all rows in parallel. Writes `dx`, returns the gradients of gamma and beta.
pub fn layer_norm_backward(dx: &mut [f32], dout: &[f32], xhat: &[f32], rstd: &[f32], gamma: &[f32]) -> LayerNormGrads {
    let width = gamma.len();
    let per_segment = segments(rstd.len()).first().map_or(1, |r| r.len());
    let partial: Vec<LayerNormGrads> = dx
        .par_chunks_mut(per_segment * width)
        .zip(dout.par_chunks(per_segment * width))
        .zip(xhat.par_chunks(per_segment * width))
        .zip(rstd.par_chunks(per_segment))
        .map(|(((dx, dout), xhat), rstd)| {
            let mut sums = LayerNormGrads::new(width);
            sums.rows(dx, dout, xhat, rstd, gamma);
            sums
        })
        .collect();
    let mut sums = LayerNormGrads::new(width);
    partial.iter().for_each(|p| sums.add(p));
    sums
}
