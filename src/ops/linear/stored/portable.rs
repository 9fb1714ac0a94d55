//! Products with weights that are widened to f32, a tile of rows at a time: for f32 and f16 weights, and for all where
//! the processor has no dot product of their type.

use super::FEW;
use super::columns::Columns;
use crate::device::cpu::{simd, vector};
use crate::error::Result;
use crate::ops::matmul::{Mat, matmul};
use crate::tensor::{Matrix, Values};

/// `y = x Wᵀ` or, with `add`, `y += x Wᵀ`, for the rows `first..first + y's columns` of the weights.
pub fn product(
    y: &mut Columns,
    x: &[f32],
    weights: &Matrix,
    first: usize,
    add: bool,
    scratch: &mut Vec<f32>,
) -> Result<()> {
    let ((n, outputs), width) = (y.size(), weights.columns());
    let dots = |y: &mut Columns, output: usize, weight: &[f32]| {
        for (i, x) in x.chunks_exact(width).enumerate() {
            let dot = simd!(vector::dot(x, weight));
            let y = &mut y.row(i)[output];
            *y = if add { *y + dot } else { dot };
        }
    };
    if n < FEW {
        scratch.resize(width, 0.0);
        for output in 0..outputs {
            match weights.values() {
                Values::F32(v) => dots(y, output, &v[(first + output) * width..][..width]),
                _ => {
                    weights.row(first + output, scratch);
                    dots(y, output, scratch);
                }
            }
        }
        return Ok(());
    }
    scratch.resize((width + n) * outputs, 0.0);
    let (wide, sums) = scratch.split_at_mut(width * outputs);
    let tile = match weights.values() {
        Values::F32(v) => &v[first * width..][..width * outputs],
        _ => {
            wide.chunks_exact_mut(width).enumerate().for_each(|(i, wide)| weights.row(first + i, wide));
            &*wide
        }
    };
    matmul(sums, outputs, 0.0, 1.0, Mat::new(x, n, width), Mat::new(tile, outputs, width).t())?;
    for (i, sums) in sums.chunks_exact(outputs).enumerate() {
        match add {
            true => simd!(vector::add(y.row(i), sums)),
            false => y.row(i).copy_from_slice(sums),
        }
    }
    Ok(())
}
