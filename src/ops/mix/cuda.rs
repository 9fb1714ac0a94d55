//! `mix` on CUDA devices (kernels/mix.cu).

use bytemuck::{Pod, Zeroable};

use super::{MODALITIES, NAME};
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr};
use crate::error::Result;
use crate::tensor::Tensor;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    x: [Ptr; MODALITIES],
    logits: Ptr,
    softmax: Ptr,
    out: Ptr,
    n: i32,
    d: i32,
    k: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Backward {
    x: [Ptr; MODALITIES],
    dx: [Ptr; MODALITIES],
    softmax: Ptr,
    grad: Ptr,
    dlogits: Ptr,
    n: i32,
    d: i32,
    k: i32,
    /// Bit j: dx[j] is added to; bit 8: dlogits.
    adds: i32,
}

/// The mixture, and the softmax of the logits.
pub(super) fn forward(gpu: &Gpu, logits: &Tensor, modalities: &[Tensor]) -> Result<(Tensor, Tensor)> {
    let ((n, d), k) = (modalities[0].matrix(NAME, "modality")?, modalities.len());
    let (out, softmax) = (gpu.alloc(NAME, n * d)?, gpu.alloc("softmax", n * k)?);
    let mut x = [Ptr::NULL; MODALITIES];
    x.iter_mut().zip(modalities).for_each(|(x, modality)| *x = modality.ptr());
    let (to, weights) = (out.ptr(), softmax.ptr());
    let (logits, sizes) = (logits.ptr(), [n, d, k].map(|size| size as i32));
    let args = Forward { x, logits, softmax: weights, out: to, n: sizes[0], d: sizes[1], k: sizes[2], padding: 0 };
    gpu.launch("mix_forward", Grid::warps(n), &args)?;
    Ok((Tensor::on_device([n, d], out)?, Tensor::on_device([n, k], softmax)?))
}

pub(super) fn backward(
    gpu: &Gpu,
    softmax: &Tensor,
    modalities: &[Tensor],
    grad: &Tensor,
    grads: &mut InputGrads,
) -> Result<()> {
    let ((n, d), k) = (grad.matrix(NAME, "gradient")?, modalities.len());
    let dlogits = grads.on_device(0)?;
    let (mut x, mut dx, mut adds) = ([Ptr::NULL; MODALITIES], [Ptr::NULL; MODALITIES], 0);
    for (j, modality) in modalities.iter().enumerate() {
        let to = grads.on_device(1 + j)?;
        (x[j], dx[j]) = (modality.ptr(), to.at);
        adds |= (to.adds as i32) << j;
    }
    let args = Backward {
        x,
        dx,
        softmax: softmax.ptr(),
        grad: grad.ptr(),
        dlogits: dlogits.at,
        n: n as i32,
        d: d as i32,
        k: k as i32,
        adds: adds | (dlogits.adds as i32) << MODALITIES,
    };
    gpu.launch("mix_backward", Grid::warps(n), &args)
}
