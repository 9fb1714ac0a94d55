//! `gather` on CUDA devices (kernels/gather.cu, reduce.cu).

use bytemuck::{Pod, Zeroable};

use super::{Gather, NAME};
use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr, Target};
use crate::error::{Error, Result};
use crate::tensor::{Element, Indices, Tensor};

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

/// The rows of a table of f16 or f32 whose numbers are given, as one f32 matrix; `label` names its memory.
pub fn gather_rows(label: &'static str, table: &Tensor, rows: &Indices) -> Result<Tensor> {
    let (gpu, width) = (table.device(label)?, table.width());
    let is_f16 = match table.element() {
        Element::F32 => 0,
        Element::F16 => 1,
        Element::Bf16 => return Err(Error::shape(label, "rows of a table of bf16")),
    };
    let out = Tensor::alloc(gpu, label, Element::F32, [rows.len(), width])?;
    let args = Args {
        table: table.address(),
        rows: rows.on(gpu)?,
        out: out.ptr(),
        length: out.len() as i64,
        width: width as i32,
        is_f16,
    };
    gpu.launch("gather_rows", Grid::values(out.len(), 256), &args)?;
    Ok(out)
}

impl Gather {
    pub(super) fn forward_on(&self, x: &Tensor) -> Result<Tensor> {
        gather_rows(NAME, x, self.pairs.left())
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
