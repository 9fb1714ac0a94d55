//! Frozen feature rows: what an encoder wrote once, in one or several memory-mapped files.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use half::f16;
use rayon::prelude::*;

use super::{Element, Indices, Matrix, Precision, SharedSlice, Tensor, Values};
use crate::device::Gpu;
use crate::error::{Error, Result};

/// Rows of one width, numbered through all shards.
#[derive(Clone, Debug)]
pub struct RowTable {
    width: usize,
    shards: Vec<Matrix>,
    /// First row of each shard, then the number of rows.
    starts: Vec<usize>,
    on_device: Arc<OnceLock<Tensor>>,
}

impl RowTable {
    /// An empty table of rows of `width` values.
    pub fn new(width: usize) -> RowTable {
        RowTable { width, shards: Vec::new(), starts: vec![0], on_device: Arc::default() }
    }

    /// A table of one shard of f32 rows.
    pub fn from_f32(width: usize, values: Vec<f32>) -> Result<RowTable> {
        let mut table = RowTable::new(width);
        table.push_f32(values.into())?;
        Ok(table)
    }

    /// Appends f32 rows; returns the number of the first.
    pub fn push_f32(&mut self, values: SharedSlice<f32>) -> Result<usize> {
        self.push(values.len(), Values::F32(values))
    }

    /// Appends f16 rows; returns the number of the first.
    pub fn push_f16(&mut self, values: SharedSlice<f16>) -> Result<usize> {
        self.push(values.len(), Values::F16(values))
    }

    fn push(&mut self, len: usize, values: Values) -> Result<usize> {
        if self.width == 0 || !len.is_multiple_of(self.width) {
            return Err(Error::shape("row table", format!("{len} values in rows of {}", self.width)));
        }
        let shard = Matrix::new(len / self.width, self.width, values)?;
        // A copy on a device is of the rows as they were.
        self.on_device = Arc::default();
        let first = self.rows();
        self.starts.push(first + shard.rows());
        self.shards.push(shard);
        Ok(first)
    }

    /// Values in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.starts[self.shards.len()]
    }

    /// Mean bytes of one stored value, for byte counts.
    pub fn value_bytes(&self) -> usize {
        if self.shards.iter().all(|shard| shard.precision() == Precision::F16) { 2 } else { 4 }
    }

    /// Fails if a row number is out of range.
    pub fn check(&self, rows: &Indices) -> Result<()> {
        match rows.largest().filter(|&row| row as usize >= self.rows()) {
            Some(row) => Err(Error::shape("row table", format!("row {row} of {}", self.rows()))),
            None => Ok(()),
        }
    }

    /// The rows of a range that lies in one shard: f32 rows where they are, f16 rows widened into `scratch`.
    pub fn range<'a>(&'a self, rows: Range<u32>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        let (shard, start) = self.place(rows.start as usize);
        let at = start..start + rows.len();
        if let Values::F32(values) = self.shards[shard].values() {
            return &values[at.start * self.width..at.end * self.width];
        }
        scratch.resize(at.len() * self.width, 0.0);
        self.shards[shard].read(at, scratch);
        scratch
    }

    /// Copies the rows of a range that lies in one shard, widened, into `out` (rows.len(), width).
    pub fn read(&self, rows: Range<u32>, out: &mut [f32]) {
        let (shard, start) = self.place(rows.start as usize);
        self.shards[shard].read(start..start + rows.len(), out);
    }

    /// Whether no value of a range of rows that lies in one shard is NaN or infinite.
    pub fn all_finite(&self, rows: Range<u32>) -> bool {
        let (shard, start) = self.place(rows.start as usize);
        self.shards[shard].all_finite(start..start + rows.len())
    }

    /// A row's shard and its number there.
    fn place(&self, row: usize) -> (usize, usize) {
        let shard = self.starts.partition_point(|&start| start <= row) - 1;
        (shard, row - self.starts[shard])
    }

    /// What a device's copy is in: f16 if all is, else f32.
    pub(super) fn element(&self) -> Element {
        if self.value_bytes() == 2 { Element::F16 } else { Element::F32 }
    }

    /// The whole table in a device's memory, where it is put when first asked for. `None` if it would take more than
    /// [`Gpu::resident_percent`] of what is free there.
    pub fn resident(&self, gpu: &Gpu) -> Result<Option<Tensor>> {
        if let Some(rows) = self.on_device.get() {
            return match rows.device("row table")?.is(gpu) {
                true => Ok(Some(rows.clone())),
                false => Err(Error::shape(
                    "row table",
                    format!("lies on {:?}, needed on {gpu:?} or by another stream", rows.device("row table")?),
                )),
            };
        }
        let bytes = self.rows() * self.width * self.value_bytes();
        if bytes > gpu.available()? / 100 * gpu.resident_percent() {
            return Ok(None);
        }
        let rows = self.upload(gpu)?;
        Ok(Some(self.on_device.get_or_init(|| rows).clone()))
    }

    fn upload(&self, gpu: &Gpu) -> Result<Tensor> {
        let (element, mut at) = (self.element(), 0);
        let mut bytes = gpu.alloc("features", self.rows() * self.width * element.size())?;
        let mut write = |values: &[u8]| {
            bytes.write(at, values)?;
            at += values.len();
            Ok(())
        };
        for shard in &self.shards {
            match shard.values() {
                Values::F16(values) if element == Element::F16 => write(bytemuck::cast_slice(values))?,
                Values::F32(values) => write(bytemuck::cast_slice(values))?,
                _ => {
                    let mut wide = vec![0.0; shard.rows() * self.width];
                    shard.read(0..shard.rows(), &mut wide);
                    write(bytemuck::cast_slice(&wide))?;
                }
            }
        }
        Tensor::of_bytes([self.rows(), self.width], bytes, element)
    }

    /// The rows of these numbers, one after the other in a device's memory, for tables that do not fit: copied while other
    /// work goes on, see [`Tensor::arrive`].
    pub fn gathered(&self, gpu: &Gpu, rows: &[u32]) -> Result<Tensor> {
        let bytes = rows.len() * self.row_bytes();
        let staged = gpu.stage("features of a batch", bytes, |out: &mut [u8]| self.put(rows, out))?;
        Tensor::of_bytes([rows.len(), self.width], staged, self.element())
    }

    /// Bytes of a row as a device has it.
    pub fn row_bytes(&self) -> usize {
        self.width * self.element().size()
    }

    /// Puts the rows of these numbers as a device has them into `out` (rows.len(), [`RowTable::row_bytes`]), which lies as f32 do.
    pub fn put(&self, rows: &[u32], out: &mut [u8]) {
        let (bytes, element) = (self.row_bytes(), self.element());
        let all = out.par_chunks_exact_mut(bytes).with_min_len(64).zip(rows);
        all.for_each(|(out, &row)| {
            let (shard, row) = self.place(row as usize);
            match (self.shards[shard].values(), element) {
                (Values::F16(values), Element::F16) => {
                    out.copy_from_slice(bytemuck::cast_slice(&values[row * self.width..(row + 1) * self.width]));
                }
                _ => self.shards[shard].read(row..row + 1, bytemuck::cast_slice_mut(out)),
            }
        });
    }

    /// Copies the rows of these numbers into `out` (rows.len(), width).
    pub fn gather(&self, rows: &[u32], out: &mut [f32]) {
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(self.width)) {
            let (shard, row) = self.place(row as usize);
            self.shards[shard].read(row..row + 1, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_numbered_through_shards_of_both_types() {
        let mut table = RowTable::from_f32(2, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let first = table.push_f16(vec![f16::from_f32(5.0), f16::from_f32(6.0)].into()).unwrap();
        assert_eq!((first, table.rows()), (2, 3));
        let mut out = [0.0; 6];
        table.gather(&[2, 0, 1], &mut out);
        assert_eq!(out, [5.0, 6.0, 1.0, 2.0, 3.0, 4.0]);
        let mut scratch = Vec::new();
        assert_eq!(table.range(1..2, &mut scratch), [3.0, 4.0]);
        assert_eq!(table.range(2..3, &mut scratch), [5.0, 6.0]);
        table.read(0..2, &mut out[..4]);
        assert_eq!(out, [1.0, 2.0, 3.0, 4.0, 3.0, 4.0]);
        assert!(table.check(&vec![3].into()).is_err());
        assert!(table.push_f32(vec![0.0; 3].into()).is_err());
    }
}
