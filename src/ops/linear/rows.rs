//! Linear layers over many rows, in parallel: `y = x Wᵀ + b` and its three gradients.

use std::ops::Range;

use rayon::prelude::*;

use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::ops::matmul::{Mat, matmul, matmul_by_rows};

/// Rows one task handles: enough to make packing the weights cheap, few enough to stay in the second-level cache.
pub const ROW_CHUNK: usize = 128;

/// Sums over rows are split into at most this many partial sums, whatever the number of threads.
const SEGMENTS: usize = 16;

/// Splits `rows` into at most 16 ranges of whole chunks, by the number of rows alone.
pub fn segments(rows: usize) -> Vec<Range<usize>> {
    let chunks = rows.div_ceil(ROW_CHUNK);
    let per_segment = chunks.div_ceil(SEGMENTS).max(1) * ROW_CHUNK;
    (0..rows).step_by(per_segment).map(|start| start..(start + per_segment).min(rows)).collect()
}

/// What `linear` starts from before it adds the product.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// y = x Wᵀ + b
    Bias(&'a [f32]),
    /// y = x Wᵀ
    Nothing,
    /// y += x Wᵀ
    Add,
}

/// `y = x weightᵀ + start`. x (n, in), weight (out, in), y (n, out) row-major.
pub fn linear(y: &mut [f32], x: Mat, weight: Mat, start: Start) -> Result<()> {
    let (out, width) = weight.size();
    if y.len() <= ROW_CHUNK * out {
        return linear_chunk(y, x, weight.t(), start);
    }
    let transposed = transposed(weight);
    let weight = Mat::new(&transposed, width, out);
    y.par_chunks_mut(ROW_CHUNK * out)
        .enumerate()
        .try_for_each(|(chunk, y)| linear_chunk(y, x.rows(chunk * ROW_CHUNK, y.len() / out), weight, start))
}

/// One chunk of [`linear`], with the transposed weight (in, out).
pub fn linear_chunk(y: &mut [f32], x: Mat, transposed: Mat, start: Start) -> Result<()> {
    let (_, out) = transposed.size();
    if let Start::Bias(bias) = start {
        y.chunks_exact_mut(out).for_each(|row| row.copy_from_slice(bias));
    }
    let keep = if let Start::Nothing = start { 0.0 } else { 1.0 };
    matmul_by_rows(y, out, keep, 1.0, x, transposed)
}

/// A row-major copy of the transpose. The product packs a row-major right operand at copying speed, for every
/// chunk of rows anew; transposing while packing would cost a quarter of the product.
pub fn transposed(weight: Mat) -> Buffer {
    const TILE: usize = 16;
    let (out, width) = weight.size();
    let mut t = Buffer::scratch(out * width);
    for rows in (0..out).step_by(TILE) {
        for column in 0..width {
            for row in rows..(rows + TILE).min(out) {
                t[column * out + row] = weight.at(row, column);
            }
        }
    }
    t
}

/// `dx += dy weight`. dy (n, out), weight (out, in), dx (n, in) row-major.
pub fn linear_backward_input(dx: &mut [f32], dy: Mat, weight: Mat) -> Result<()> {
    let (_, width) = weight.size();
    dx.par_chunks_mut(ROW_CHUNK * width)
        .enumerate()
        .try_for_each(|(chunk, dx)| matmul(dx, width, 1.0, 1.0, dy.rows(chunk * ROW_CHUNK, dx.len() / width), weight))
}

/// `dweight += dyᵀ x`. dy (n, out), x (n, in), dweight (out, in) with `stride` floats a row.
pub fn linear_backward_weight(dweight: &mut [f32], stride: usize, dy: Mat, x: Mat) -> Result<()> {
    let ((rows, out), (_, width)) = (dy.size(), x.size());
    let ranges = segments(rows);
    if ranges.len() <= 1 {
        return matmul(dweight, stride, 1.0, 1.0, dy.t(), x);
    }
    let partial: Vec<Buffer> = ranges
        .into_par_iter()
        .map(|r| {
            let mut sum = Buffer::scratch(out * width);
            matmul(&mut sum, width, 0.0, 1.0, dy.rows(r.start, r.len()).t(), x.rows(r.start, r.len()))?;
            Ok(sum)
        })
        .collect::<Result<_>>()?;
    // A row of all of them after the other, in the order of the segments.
    dweight.par_chunks_mut(stride).enumerate().take(out).for_each(|(row, to)| {
        let rows = partial.iter().map(|sum| &sum[row * width..][..width]);
        simd!(rows.for_each(|from| vector::add(&mut to[..width], from)));
    });
    Ok(())
}

/// `sums += Σ rows of x`. x (n, sums.len()) row-major.
pub fn add_column_sums(sums: &mut [f32], x: &[f32]) {
    let width = sums.len();
    let partial: Vec<Vec<f32>> = segments(x.len() / width)
        .into_par_iter()
        .map(|r| {
            let mut sum = vec![0.0; width];
            simd!(x[r.start * width..r.end * width].chunks_exact(width).for_each(|row| vector::add(&mut sum, row)));
            sum
        })
        .collect();
    partial.iter().for_each(|sum| vector::add(sums, sum));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_all_rows_once() {
        for rows in [0, 1, 127, 128, 129, 5000, 70_400] {
            let ranges = segments(rows);
            assert!(ranges.len() <= SEGMENTS);
            assert_eq!(ranges.iter().map(|r| r.len()).sum::<usize>(), rows);
            assert!(ranges.windows(2).all(|w| w[0].end == w[1].start));
        }
    }
}
