//! Products of activations with weight matrices of any precision, which stay where and as they are: row-major, in
//! memory or in a mapped file, read in place by one token's product and packed on the fly, tile by tile, by many tokens'.

mod columns;
mod portable;
mod quantized;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

pub use quantized::{Bits, dequantize, quantize};

use self::columns::Columns;
use super::vector;
use crate::error::Result;

/// A weight matrix (rows, columns), row-major.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// Its numbers.
    pub values: Values<'a>,
}

/// Numbers of a weight matrix.
#[derive(Clone, Copy)]
pub enum Values<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    /// Integers with a scale per group.
    Quantized {
        bits: Bits,
        codes: &'a [u8],
        scales: &'a [bf16],
    },
}

impl Matrix<'_> {
    /// One row as f32 (columns).
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let at = row * self.columns..(row + 1) * self.columns;
        match self.values {
            Values::F32(v) => out.copy_from_slice(&v[at]),
            Values::F16(v) => simd!(vector::widen(out, &v[at])),
            Values::Bf16(v) => v[at].convert_to_f32_slice(out),
            Values::Quantized { bits, codes, scales } => {
                let (bytes, groups) = (bits.bytes(self.columns), scales.len() / self.rows);
                dequantize(bits, &codes[row * bytes..][..bytes], &scales[row * groups..][..groups], out);
            }
        }
    }
}

/// Rows of weights that one task multiplies.
const TILE: usize = 64;

/// `y = x Wᵀ` or, with `add`, `y += x Wᵀ`, in parallel over the weights' rows. x (n, columns), y (n, all rows): the
/// matrices are stacked by rows.
pub fn project(y: &mut [f32], x: &[f32], stacked: &[Matrix], add: bool) -> Result<()> {
    let outputs: usize = stacked.iter().map(|w| w.rows).sum();
    let (mut ranges, mut tiles, mut start) = (Vec::new(), Vec::new(), 0);
    for weights in stacked {
        for first in (0..weights.rows).step_by(TILE) {
            ranges.push(start + first..start + (first + TILE).min(weights.rows));
            tiles.push((weights, first));
        }
        start += weights.rows;
    }
    let parts = Columns::split(y, outputs, &ranges);
    parts.into_par_iter().zip(tiles).try_for_each_init(Vec::new, |scratch, (mut y, (weights, first))| {
        portable::product(&mut y, x, weights, first, add, scratch)
    })
}
