//! Rows by number (kernels/rows.cu).

use bytemuck::{Pod, Zeroable};

use super::{DeviceBuffer, Gpu, Grid, Ptr};
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

/// Runs of consecutive numbers, laid end to end: run i begins with `firsts[i]` and stands at `offsets[i]..offsets[i + 1]` of
/// `total` places.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    /// First numbers (count).
    pub firsts: Ptr,
    /// Places (count + 1).
    pub offsets: Ptr,
    /// Runs.
    pub count: usize,
    /// Numbers.
    pub total: usize,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Expand {
    firsts: Ptr,
    offsets: Ptr,
    out: Ptr,
    count: i32,
    padding: i32,
}

/// Arrays of a launch, and runs of a block.
const ARRAYS: usize = 8;
const RUNS: usize = 8;

impl Gpu {
    /// The numbers of each of these; `label` names their memory. One launch writes up to eight arrays.
    pub fn expand_runs(&self, label: &'static str, arrays: &[Runs]) -> Result<Vec<DeviceBuffer<u32>>> {
        let mut launches = self.launches("rows_expand", ARRAYS, 32 * RUNS as u32);
        let mut expanded = Vec::with_capacity(arrays.len());
        for &Runs { firsts, offsets, count, total } in arrays {
            let out = self.alloc(label, total)?;
            let args = Expand { firsts, offsets, out: out.ptr(), count: count as i32, padding: 0 };
            launches.push(count.div_ceil(RUNS), args, &[])?;
            expanded.push(out);
        }
        launches.run()?;
        Ok(expanded)
    }
}
