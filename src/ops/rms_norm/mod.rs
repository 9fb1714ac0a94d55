//! Root mean square normalization (Zhang and Sennrich, 2019): gain · x / sqrt(mean(x²) + eps), row by row.

mod cuda;

use rayon::prelude::*;

use super::linear::ROW_CHUNK;
use crate::autograd::Cost;
use crate::device::cpu::{simd, vector};
use crate::tensor::Element;

/// What normalizing rows of f32 costs. Its few FLOPs are not counted, as is usual.
pub fn cost(rows: usize, width: usize, output: Element) -> Cost {
    Cost::inference(0, 4 * width + rows * (4 + output.size()) * width)
}

/// Rows x (n, width) normalized into `out`; gain (width).
pub fn rms_norm(out: &mut [f32], x: &[f32], gain: &[f32], eps: f32) {
    let chunk = ROW_CHUNK / 8 * gain.len();
    out.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(gain.len()).zip(x.chunks_exact(gain.len())) {
            simd!(vector::rms_norm(out, x, gain, eps));
        }
    });
}
