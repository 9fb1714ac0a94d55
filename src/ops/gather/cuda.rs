//! `gather` on CUDA devices (kernels/gather.cu, reduce.cu).

use bytemuck::{Pod, Zeroable};

use super::{Gather, NAME};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr, Target};
use crate::error::Result;
use crate::tensor::Tensor;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    table: Ptr,
    rows: Ptr,
    out: Ptr,
    length: i64,
    width: i32,
    is_f16: i32,
}

/// Rows by number of a table of f16 or f32, as one f32 matrix (n, width); `label` names its memory.
pub fn gather_rows(
    gpu: &Gpu,
    label: &'static str,
    (table, is_f16): (Ptr, bool),
    rows: Ptr,
    (n, width): (usize, usize),
) -> Result<DeviceBuffer<f32>> {
    let out = gpu.alloc(label, n * width)?;
    let (length, at) = (out.len() as i64, out.ptr());
    let args = Args { table, rows, out: at, length, width: width as i32, is_f16: is_f16 as i32 };
    gpu.launch("gather_rows", Grid::values(out.len(), 256), &args)?;
    Ok(out)
}

impl Gather {
    pub(super) fn forward_on(&self, gpu: &Gpu, x: &Tensor) -> Result<Tensor> {
        let size = (self.pairs.len(), x.shape()[1]);
        let out = gather_rows(gpu, NAME, (x.ptr(), false), self.pairs.left().on(gpu)?, size)?;
        Tensor::on_device([size.0, size.1], out)
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, grad: &Tensor, dx: Target) -> Result<()> {
        if dx.is_null() {
            return Ok(());
        }
        let groups = self.pairs.by_left();
        let pairs_of = (groups.offsets().on(gpu)?, groups.members().on(gpu)?);
        let mut sums = gpu.group_sums();
        sums.add(grad.ptr(), grad.shape()[1], pairs_of, groups.len(), dx)?;
        sums.run()
    }
}
