//! `activation` on CUDA devices (kernels/activation.cu).

use bytemuck::{Pod, Zeroable};

use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr, Target};
use crate::error::Result;
use crate::ops::linear::Activation;
use crate::ops::linear::tiled::Finish;
use crate::tensor::Tensor;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    x: Ptr,
    out: Ptr,
    length: i64,
    function: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Backward {
    grad: Ptr,
    kept: Ptr,
    dx: Ptr,
    length: i64,
    function: i32,
    adds: i32,
}

fn number(activation: Activation) -> i32 {
    Finish::from(Some(activation)) as i32
}

/// `out = activation(x)` of so many values; `out` may be `x`.
pub fn apply(gpu: &Gpu, activation: Activation, x: Ptr, out: Ptr, values: usize) -> Result<()> {
    let args = Forward { x, out, length: values as i64, function: number(activation), padding: 0 };
    gpu.launch("activation_forward", Grid::values(values, 256), &args)
}

/// `dx = grad ⊙ the derivative`, from what [`Activation::keeps_input`] says.
pub fn backward(gpu: &Gpu, activation: Activation, kept: &Tensor, grad: &Tensor, dx: Target) -> Result<()> {
    if dx.is_null() {
        return Ok(());
    }
    let args = Backward {
        grad: grad.ptr(),
        kept: kept.ptr(),
        dx: dx.at,
        length: grad.len() as i64,
        function: number(activation),
        adds: dx.adds as i32,
    };
    gpu.launch("activation_backward", Grid::values(grad.len(), 256), &args)
}
