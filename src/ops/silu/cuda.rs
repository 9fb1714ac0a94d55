//! `silu` on CUDA devices (kernels/silu.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr, Target};
use crate::error::Result;
use crate::tensor::Tensor;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    x: Ptr,
    grad: Ptr,
    out: Ptr,
    length: i64,
    adds: i64,
}

pub fn forward(gpu: &Gpu, x: &Tensor) -> Result<Tensor> {
    let out = gpu.alloc::<f32>("silu", x.len())?;
    let args = Args { x: x.ptr(), grad: Ptr::NULL, out: out.ptr(), length: x.len() as i64, adds: 0 };
    gpu.launch("silu_forward", Grid::values(x.len(), 256), &args)?;
    Tensor::on_device(x.shape(), out)
}

pub fn backward(gpu: &Gpu, x: &Tensor, grad: &Tensor, to: Target) -> Result<()> {
    if to.is_null() {
        return Ok(());
    }
    let args = Args { x: x.ptr(), grad: grad.ptr(), out: to.at, length: x.len() as i64, adds: to.adds as i64 };
    gpu.launch("silu_backward", Grid::values(x.len(), 256), &args)
}
