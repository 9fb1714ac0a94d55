//! Matrices as they lie in memory or in a mapped file, in any precision: weights, and features that were encoded once.

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use super::blocks::BlockType;
use super::quantized::{Bits, dequantize, quantize};
use super::safetensors::{Float, first_unbounded};
use super::{DType, Precision, SharedSlice};
use crate::device::cpu::{simd, vector};
use crate::error::{Error, Result};

/// A matrix (rows, columns), row-major.
#[derive(Clone, Debug)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    values: Values,
}

/// Numbers of a matrix. Cloning shares them.
#[derive(Clone, Debug)]
pub enum Values {
    F32(SharedSlice<f32>),
    F16(SharedSlice<f16>),
    Bf16(SharedSlice<bf16>),
    /// Integers with a scale per group; `quantized.rs` describes the layout.
    Quantized {
        bits: Bits,
        codes: SharedSlice<u8>,
        scales: SharedSlice<bf16>,
    },
    /// As a GGUF file has them; `blocks.rs` describes the layout.
    Blocks {
        kind: BlockType,
        blocks: SharedSlice<u8>,
    },
}

impl Matrix {
    /// Fails if the number of values is not that of the shape.
    pub fn new(rows: usize, columns: usize, values: Values) -> Result<Matrix> {
        let fits = match &values {
            Values::F32(v) => v.len() == rows * columns,
            Values::F16(v) => v.len() == rows * columns,
            Values::Bf16(v) => v.len() == rows * columns,
            Values::Quantized { bits, codes, scales } => {
                let groups = scales.len().checked_div(rows).unwrap_or(0);
                let whole = groups > 0 && scales.len() == rows * groups && columns.is_multiple_of(groups);
                whole && matches!(columns / groups, 64 | 128) && codes.len() == rows * bits.bytes(columns)
            }
            Values::Blocks { kind, blocks } => {
                columns.is_multiple_of(kind.weights()) && blocks.len() == rows * kind.bytes(columns)
            }
        };
        match fits {
            true => Ok(Matrix { rows, columns, values }),
            false => Err(Error::shape("matrix", format!("values of another shape than {rows} x {columns}"))),
        }
    }

    /// Rows: outputs of a layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: inputs of a layer.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Its numbers.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Bytes of its numbers and scales.
    pub fn bytes(&self) -> usize {
        match &self.values {
            Values::F32(v) => 4 * v.len(),
            Values::F16(v) => 2 * v.len(),
            Values::Bf16(v) => 2 * v.len(),
            Values::Quantized { codes, scales, .. } => codes.len() + 2 * scales.len(),
            Values::Blocks { blocks, .. } => blocks.len(),
        }
    }

    /// What its numbers are.
    pub fn precision(&self) -> Precision {
        match &self.values {
            Values::F32(_) => Precision::F32,
            Values::F16(_) => Precision::F16,
            Values::Bf16(_) => Precision::Bf16,
            Values::Quantized { bits: Bits::Eight, .. } => Precision::Int8,
            Values::Quantized { bits: Bits::Four, .. } => Precision::Int4,
            Values::Blocks { kind, .. } => Precision::Blocks(*kind),
        }
    }

    /// Some rows as f32 (rows.len(), columns).
    pub fn read(&self, rows: Range<usize>, out: &mut [f32]) {
        let at = rows.start * self.columns..rows.end * self.columns;
        match &self.values {
            Values::F32(v) => out.copy_from_slice(&v[at]),
            Values::F16(v) => simd!(vector::widen(out, &v[at])),
            Values::Bf16(v) => simd!(vector::widen_bf16(out, &v[at])),
            _ => rows.zip(out.chunks_exact_mut(self.columns)).for_each(|(row, out)| self.row(row, out)),
        }
    }

    /// One row as f32 (columns).
    pub fn row(&self, row: usize, out: &mut [f32]) {
        match &self.values {
            Values::Quantized { bits, codes, scales } => {
                let (bytes, groups) = (bits.bytes(self.columns), scales.len() / self.rows);
                dequantize(*bits, &codes[row * bytes..][..bytes], &scales[row * groups..][..groups], out);
            }
            Values::Blocks { kind, blocks } => {
                let bytes = kind.bytes(self.columns);
                kind.dequantize(&blocks[row * bytes..][..bytes], out);
            }
            Values::F32(_) | Values::F16(_) | Values::Bf16(_) => self.read(row..row + 1, out),
        }
    }

    /// Whether no value of some rows is NaN or infinite.
    pub fn all_finite(&self, rows: Range<usize>) -> bool {
        let at = rows.start * self.columns..rows.end * self.columns;
        // Without a branch, so that it is as fast as the memory.
        match &self.values {
            Values::F32(v) => v[at].iter().fold(true, |all, x| all & x.is_finite()),
            Values::F16(v) => v[at].iter().fold(true, |all, x| all & x.is_finite()),
            Values::Bf16(v) => v[at].iter().fold(true, |all, x| all & x.is_finite()),
            _ => {
                let mut wide = vec![0.0; self.columns];
                let mut rows = rows;
                rows.all(|row| {
                    self.row(row, &mut wide);
                    wide.iter().all(|x| x.is_finite())
                })
            }
        }
    }

    /// The matrix in another precision; itself, shared, if it has that one already.
    ///
    /// Fails if a float is not finite or the columns cannot be quantized in groups.
    pub fn to(&self, precision: Precision) -> Result<Matrix> {
        self.calibrated(precision, None)
    }

    /// The same; blocks are made so that the error of products is small with inputs whose mean squares (columns) are
    /// `importance`.
    pub fn calibrated(&self, precision: Precision, importance: Option<&[f32]>) -> Result<Matrix> {
        if self.precision() == precision {
            return Ok(self.clone());
        }
        if importance.is_some_and(|importance| importance.len() != self.columns) {
            return Err(Error::shape("calibration", format!("mean squares of other columns than {}", self.columns)));
        }
        let values = match precision {
            Precision::F32 => Values::F32(self.converted(|x| x)?),
            Precision::F16 => Values::F16(within(self.converted(f16::from_f32)?, precision)?),
            Precision::Bf16 => Values::Bf16(within(self.converted(bf16::from_f32)?, precision)?),
            Precision::Int8 => self.quantized(Bits::Eight)?,
            Precision::Int4 => self.quantized(Bits::Four)?,
            Precision::Blocks(kind) => self.in_blocks(kind, importance)?,
        };
        Matrix::new(self.rows, self.columns, values)
    }

    /// The same rows in another order: row i is row `from(i)` of these, its numbers as they are.
    ///
    /// Fails if one is named that there is not.
    pub fn reordered(&self, from: impl Fn(usize) -> usize + Sync) -> Result<Matrix> {
        if let Some(row) = (0..self.rows).map(&from).find(|&row| row >= self.rows) {
            return Err(Error::shape("rows of weights", format!("row {row} of {}", self.rows)));
        }
        let values = match &self.values {
            Values::F32(v) => Values::F32(self.gathered(v, &from)?),
            Values::F16(v) => Values::F16(self.gathered(v, &from)?),
            Values::Bf16(v) => Values::Bf16(self.gathered(v, &from)?),
            Values::Quantized { bits, codes, scales } => Values::Quantized {
                bits: *bits,
                codes: self.gathered(codes, &from)?,
                scales: self.gathered(scales, &from)?,
            },
            Values::Blocks { kind, blocks } => Values::Blocks { kind: *kind, blocks: self.gathered(blocks, &from)? },
        };
        Matrix::new(self.rows, self.columns, values)
    }

    fn gathered<T: bytemuck::Pod + Send + Sync>(
        &self,
        values: &[T],
        from: impl Fn(usize) -> usize + Sync,
    ) -> Result<SharedSlice<T>> {
        let row = values.len().checked_div(self.rows).unwrap_or(0).max(1);
        let gather = |out: &mut [T]| {
            out.par_chunks_mut(row)
                .enumerate()
                .for_each(|(i, out)| out.copy_from_slice(&values[from(i) * row..][..row]));
        };
        Ok(SharedSlice::in_large_pages(values.len(), gather)?.0)
    }

    fn converted<T: bytemuck::Pod + Send>(&self, from: impl Fn(f32) -> T + Sync) -> Result<SharedSlice<T>> {
        let convert = |out: &mut [T]| {
            out.par_chunks_mut(self.columns.max(1)).enumerate().for_each_init(
                || vec![0.0; self.columns],
                |wide, (row, out)| {
                    self.row(row, wide);
                    out.iter_mut().zip(wide).for_each(|(out, x)| *out = from(*x));
                },
            );
        };
        Ok(SharedSlice::in_large_pages(self.rows * self.columns, convert)?.0)
    }

    fn in_blocks(&self, kind: BlockType, importance: Option<&[f32]>) -> Result<Values> {
        if !self.columns.is_multiple_of(kind.weights()) {
            let (columns, block) = (self.columns, kind.weights());
            return Err(Error::invalid(format!("rows of {columns} weights are no whole blocks of {block}")));
        }
        let bytes = kind.bytes(self.columns);
        let (blocks, ()) = SharedSlice::in_large_pages(self.rows * bytes, |blocks| {
            blocks.par_chunks_mut(bytes).enumerate().for_each_init(
                || vec![0.0; self.columns],
                |wide, (row, blocks)| {
                    self.row(row, wide);
                    kind.quantize(wide, importance, blocks);
                },
            )
        })?;
        match kind.first_unbounded(&blocks) {
            None => Ok(Values::Blocks { kind, blocks }),
            Some(_) => Err(beyond(Precision::Blocks(kind))),
        }
    }

    fn quantized(&self, bits: Bits) -> Result<Values> {
        let group = bits.group(self.columns).ok_or_else(|| {
            Error::invalid(format!(
                "rows of {} weights cannot be quantized in groups of 64; use bf16, f16 or f32",
                self.columns
            ))
        })?;
        let (bytes, groups) = (bits.bytes(self.columns), self.columns / group);
        let mut scales = vec![bf16::ZERO; self.rows * groups];
        let (codes, finite) = SharedSlice::in_large_pages(self.rows * bytes, |codes| {
            let rows = codes.par_chunks_mut(bytes).zip(scales.par_chunks_mut(groups)).enumerate();
            rows.map_init(
                || vec![0.0; self.columns],
                |wide, (row, (codes, scales))| {
                    self.row(row, wide);
                    quantize(bits, wide, codes, scales);
                    wide.iter().all(|x| x.is_finite())
                },
            )
            .reduce(|| true, |a, b| a & b)
        })?;
        match finite {
            true => Ok(Values::Quantized { bits, codes, scales: scales.into() }),
            false => Err(Error::invalid("holds a weight that is infinite or no number")),
        }
    }
}

/// Values that were rounded, if all are finite.
fn within<T: Float + bytemuck::Pod>(values: SharedSlice<T>, precision: Precision) -> Result<SharedSlice<T>> {
    if first_unbounded(&values).is_none() { Ok(values) } else { Err(beyond(precision)) }
}

fn beyond(precision: Precision) -> Error {
    let instead = if precision == Precision::Bf16 { "f32" } else { "bf16 or f32" };
    Error::invalid(format!("holds a weight that is beyond what {precision} can hold; {instead} can"))
}

/// The precision of floats of this type, if they can be weights.
pub(crate) fn float_precision(dtype: DType) -> Option<Precision> {
    match dtype {
        DType::F32 => Some(Precision::F32),
        DType::F16 => Some(Precision::F16),
        DType::BF16 => Some(Precision::Bf16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_beyond_a_precision_are_refused() {
        let large = Matrix::new(1, 2, Values::F32(vec![1e6, 1.0].into())).unwrap();
        let refused = large.to(Precision::F16).unwrap_err().to_string();
        assert!(refused.contains("is beyond what f16 can hold; bf16 or f32 can"), "{refused}");
        assert!(large.to(Precision::Bf16).is_ok());
    }

    #[test]
    fn rows_are_read_together_as_alone() {
        let wide: Vec<f32> = (0..3 * 64).map(|i| (i as f32 - 90.0) / 16.0).collect();
        let matrix = Matrix::new(3, 64, Values::F32(wide.into())).unwrap();
        let blocks = Precision::Blocks(BlockType::Q8_0);
        for precision in [Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8, Precision::Int4, blocks] {
            let matrix = matrix.to(precision).unwrap();
            let (mut together, mut alone) = ([0.0; 2 * 64], [0.0; 2 * 64]);
            matrix.read(1..3, &mut together);
            alone.chunks_exact_mut(64).enumerate().for_each(|(row, out)| matrix.row(row + 1, out));
            assert!(together == alone && together[5] != 0.0, "{precision}");
            assert!(matrix.all_finite(0..3), "{precision}");
        }
        let unbounded = Matrix::new(3, 1, Values::F32(vec![1.0, f32::INFINITY, 1.0].into())).unwrap();
        assert_eq!([0..1, 1..2, 2..3].map(|rows| unbounded.all_finite(rows)), [true, false, true]);
    }
}
