//! `contrastive` on CUDA devices (kernels/contrastive.cu).

use bytemuck::{Pod, Zeroable};

use super::NAME;
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr};
use crate::error::Result;
use crate::ops::cross_entropy::row_means;
use crate::ops::matmul::{Operand, Product};
use crate::tensor::Tensor;

/// Dot products of texts and images (n, n), and logarithms of the sums of rows and of columns (2, n).
pub struct Products {
    dots: DeviceBuffer<f32>,
    sums: DeviceBuffer<f32>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    dots: Ptr,
    log_scale: Ptr,
    sums: Ptr,
    losses: Ptr,
    n: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Backward {
    dots: Ptr,
    log_scale: Ptr,
    sums: Ptr,
    grad: Ptr,
    parts: Ptr,
    n: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Scale {
    parts: Ptr,
    out: Ptr,
    n: i32,
    adds: i32,
}

pub(super) fn forward(gpu: &Gpu, [texts, images]: [&Tensor; 2], log_scale: &Tensor) -> Result<(Tensor, Products)> {
    let (n, d) = texts.matrix(NAME, "texts")?;
    let (dots, sums) = (gpu.alloc::<f32>("logits", n * n)?, gpu.alloc::<f32>("sums", 2 * n)?);
    let losses = gpu.alloc::<f32>("losses", 2 * n)?;
    let [texts, images] = [texts, images].map(|side| Operand::rows(side.ptr(), d));
    // In f32: the scale, up to 100, multiplies the error of cosines.
    Product::new(texts, images.t(), [n, n, d]).exact().write(gpu, Operand::rows(dots.ptr(), n))?;
    let args = Forward {
        dots: dots.ptr(),
        log_scale: log_scale.ptr(),
        sums: sums.ptr(),
        losses: losses.ptr(),
        n: n as i32,
        padding: 0,
    };
    gpu.launch("contrastive_forward", Grid::warps(2 * n), &args)?;
    Ok((row_means(gpu, &losses, 2)?, Products { dots, sums }))
}

pub(super) fn backward(
    gpu: &Gpu,
    (sides, log_scale): (&[Tensor; 2], &Tensor),
    Products { dots, sums }: Products,
    grad: &Tensor,
    grads: &mut InputGrads,
) -> Result<()> {
    let (n, d) = sides[0].matrix(NAME, "texts")?;
    let parts = gpu.alloc::<f32>("gradients of the scale", n)?;
    let args = Backward {
        dots: dots.ptr(),
        log_scale: log_scale.ptr(),
        sums: sums.ptr(),
        grad: grad.ptr(),
        parts: parts.ptr(),
        n: n as i32,
        padding: 0,
    };
    // In place: from here on the products are their gradients.
    gpu.launch("contrastive_backward", Grid::warps(n), &args)?;
    let dots = Operand::rows(dots.ptr(), n);
    for (i, dots) in [dots, dots.t()].into_iter().enumerate() {
        let (to, other) = (grads.on_device(i)?, Operand::rows(sides[1 - i].ptr(), d));
        if !to.is_null() {
            Product::new(dots, other, [n, d, n]).accumulate(to.adds).write(gpu, Operand::rows(to.at, d))?;
        }
    }
    let scale = grads.on_device(2)?;
    if scale.is_null() {
        return Ok(());
    }
    let args = Scale { parts: parts.ptr(), out: scale.at, n: n as i32, adds: scale.adds as i32 };
    gpu.launch("contrastive_scale", Grid::line(1, 128), &args)
}
