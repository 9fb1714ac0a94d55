//! `normalize` on CUDA devices (kernels/normalize.cu).

use bytemuck::{Pod, Zeroable};

use super::{LEAST, NAME};
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr, Target};
use crate::error::Result;
use crate::tensor::Tensor;

/// The length of each row (n).
pub type Norms = DeviceBuffer<f32>;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    x: Ptr,
    out: Ptr,
    norms: Ptr,
    n: i32,
    d: i32,
    least: f32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Backward {
    out: Ptr,
    norms: Ptr,
    grad: Ptr,
    dx: Ptr,
    n: i32,
    d: i32,
    least: f32,
    adds: i32,
}

pub(super) fn forward(gpu: &Gpu, x: &Tensor) -> Result<(Tensor, Norms)> {
    let (n, d) = x.matrix(NAME, "input")?;
    let (out, norms) = (gpu.alloc(NAME, n * d)?, gpu.alloc::<f32>("norms", n)?);
    let (at, least) = (out.ptr(), LEAST);
    let args = Forward { x: x.ptr(), out: at, norms: norms.ptr(), n: n as i32, d: d as i32, least, padding: 0 };
    gpu.launch("normalize_forward", Grid::warps(n), &args)?;
    Ok((Tensor::on_device([n, d], out)?, norms))
}

pub(super) fn backward(gpu: &Gpu, out: &Tensor, norms: &Norms, grad: &Tensor, dx: Target) -> Result<()> {
    if dx.is_null() {
        return Ok(());
    }
    let (n, d) = out.matrix(NAME, "output")?;
    let args = Backward {
        out: out.ptr(),
        norms: norms.ptr(),
        grad: grad.ptr(),
        dx: dx.at,
        n: n as i32,
        d: d as i32,
        least: LEAST,
        adds: dx.adds as i32,
    };
    gpu.launch("normalize_backward", Grid::warps(n), &args)
}
