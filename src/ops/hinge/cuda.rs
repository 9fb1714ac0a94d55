//! `hinge` on CUDA devices (kernels/hinge.cu).

use bytemuck::{Pod, Zeroable};

use super::{Hinge, NAME};
use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr, Target};
use crate::error::Result;
use crate::ops::cross_entropy::row_means;
use crate::tensor::Tensor;

/// The argument of both kernels.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    scores: Ptr,
    first: Ptr,
    end: Ptr,
    gold: Ptr,
    grad: Ptr,
    out: Ptr,
    kinds: i32,
    pairs: i32,
    mentions: i32,
    margin: f32,
    adds: i32,
    padding: i32,
}

impl Hinge {
    fn args(&self, gpu: &Gpu, scores: &Tensor, grad: Ptr, out: Target) -> Result<Args> {
        let (kinds, pairs) = scores.matrix(NAME, "scores")?;
        let [gold, first, end] = self.gold.arrays();
        Ok(Args {
            scores: scores.ptr(),
            first: first.on(gpu)?,
            end: end.on(gpu)?,
            gold: gold.on(gpu)?,
            grad,
            out: out.at,
            kinds: kinds as i32,
            pairs: pairs as i32,
            mentions: self.gold.len() as i32,
            margin: self.margin,
            adds: out.adds as i32,
            padding: 0,
        })
    }

    pub(super) fn forward_on(&self, gpu: &Gpu, scores: &Tensor) -> Result<Tensor> {
        let (kinds, mentions) = (scores.shape()[0], self.gold.len());
        let by_mention = gpu.alloc::<f32>("losses", kinds * mentions)?;
        let args = self.args(gpu, scores, Ptr::NULL, Target { at: by_mention.ptr(), adds: false })?;
        gpu.launch("hinge_forward", Grid::warps(kinds * mentions), &args)?;
        row_means(gpu, &by_mention, kinds)
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, scores: &Tensor, grad: &Tensor, dscores: Target) -> Result<()> {
        if dscores.is_null() {
            return Ok(());
        }
        let args = self.args(gpu, scores, grad.ptr(), dscores)?;
        gpu.launch("hinge_backward", Grid::warps(scores.shape()[0] * self.gold.len()), &args)
    }
}
