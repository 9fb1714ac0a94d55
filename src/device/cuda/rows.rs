//! Rows by number (kernels/rows.cu).

use bytemuck::{Pod, Zeroable};

use super::{DeviceBuffer, Grid, Ptr};
use crate::error::{Error, Result};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Select {
    x: Ptr,
    numbers: Ptr,
    out: Ptr,
    chunks: i32,
    padding: i32,
}

impl DeviceBuffer<u8> {
    /// Of rows of `row` bytes, a multiple of 16, those of these numbers; `label` names their memory.
    pub fn select_rows(&self, label: &'static str, row: usize, numbers: &[u32]) -> Result<DeviceBuffer<u8>> {
        let rows = self.len().checked_div(row).unwrap_or(0);
        if !row.is_multiple_of(16) || numbers.iter().any(|&number| number as usize >= rows) {
            let reason = format!("a number beyond {rows} rows, or rows of {row} bytes, which must be a multiple of 16");
            return Err(Error::shape("rows_select", reason));
        }
        let (gpu, chunks) = (self.gpu(), (row / 16) as i32);
        let (out, count) = (gpu.alloc(label, numbers.len() * row)?, numbers.len());
        let numbers = gpu.upload("row numbers", numbers)?;
        let args = Select { x: self.ptr(), numbers: numbers.ptr(), out: out.ptr(), chunks, padding: 0 };
        gpu.launch("rows_select", Grid::line(count, 128), &args)?;
        Ok(out)
    }
}
