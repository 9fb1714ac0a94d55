//! `multiply` on CUDA devices (kernels/multiply.cu).

use bytemuck::{Pod, Zeroable};

use super::{NAME, Saved};
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr, Target};
use crate::error::Result;
use crate::tensor::Tensor;

/// The argument of both kernels.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    a: Ptr,
    b: Ptr,
    out: Ptr,
    /// Values of out.
    length: i64,
    width: i32,
    adds: i32,
}

/// out (length) = a ⊙ b, where a value of b belongs to `width` of a.
fn products(gpu: &Gpu, [a, b]: [&Tensor; 2], width: usize, out: Target) -> Result<()> {
    if out.is_null() {
        return Ok(());
    }
    let (width, adds) = (width as i32, out.adds as i32);
    let args = Args { a: a.ptr(), b: b.ptr(), out: out.at, length: a.len() as i64, width, adds };
    gpu.launch("multiply", Grid::values(a.len(), 256), &args)
}

pub(super) fn forward(gpu: &Gpu, Saved { x, y, width }: &Saved) -> Result<Tensor> {
    let out = gpu.alloc(NAME, x.len())?;
    products(gpu, [x, y], *width, Target { at: out.ptr(), adds: false })?;
    Tensor::on_device(x.shape(), out)
}

pub(super) fn backward(gpu: &Gpu, Saved { x, y, width }: &Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
    products(gpu, [grad, y], *width, grads.on_device(0)?)?;
    let dy = grads.on_device(1)?;
    if *width == 1 || dy.is_null() {
        return products(gpu, [grad, x], 1, dy);
    }
    let (length, width, adds) = (y.len() as i64, *width as i32, dy.adds as i32);
    let args = Args { a: grad.ptr(), b: x.ptr(), out: dy.at, length, width, adds };
    gpu.launch("multiply_rows", Grid::warps(y.len()), &args)
}
