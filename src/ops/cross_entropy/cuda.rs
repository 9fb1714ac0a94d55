//! `cross_entropy` on CUDA devices (kernels/cross_entropy.cu).

use bytemuck::{Pod, Zeroable};

use super::CrossEntropy;
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr};
use crate::error::Result;
use crate::tensor::Tensor;

/// What backward needs: softmax of each score (k, pairs).
pub struct Saved {
    softmax: DeviceBuffer<f32>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    scores: Ptr,
    first: Ptr,
    end: Ptr,
    gold: Ptr,
    softmax: Ptr,
    losses: Ptr,
    kinds: i32,
    pairs: i32,
    mentions: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RowMeans {
    x: Ptr,
    out: Ptr,
    n: i32,
    padding: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Backward {
    softmax: Ptr,
    grad: Ptr,
    mention_of: Ptr,
    gold: Ptr,
    dscores: Ptr,
    kinds: i32,
    pairs: i32,
    mentions: i32,
    adds: i32,
}

/// The mean loss over the mentions of each kind, of losses (kinds, mentions).
pub fn row_means(gpu: &Gpu, losses: &DeviceBuffer<f32>, kinds: usize) -> Result<Tensor> {
    let (out, mentions) = (gpu.alloc("losses", kinds)?, losses.len() / kinds.max(1));
    let args = RowMeans { x: losses.ptr(), out: out.ptr(), n: mentions as i32, padding: 0 };
    gpu.launch("row_means", Grid::line(kinds, 128), &args)?;
    Tensor::on_device([kinds], out)
}

impl CrossEntropy {
    pub(super) fn forward_on(&self, gpu: &Gpu, scores: &Tensor) -> Result<(Tensor, Saved)> {
        let (kinds, pairs, mentions) = (scores.shape()[0], scores.shape()[1], self.gold.len());
        let softmax = gpu.alloc("softmax", kinds * pairs)?;
        let by_mention = gpu.alloc::<f32>("losses", kinds * mentions)?;
        let args = Forward {
            scores: scores.ptr(),
            first: self.gold.first.on(gpu)?,
            end: self.gold.end.on(gpu)?,
            gold: self.gold.pairs.on(gpu)?,
            softmax: softmax.ptr(),
            losses: by_mention.ptr(),
            kinds: kinds as i32,
            pairs: pairs as i32,
            mentions: mentions as i32,
            padding: 0,
        };
        gpu.launch("cross_entropy_forward", Grid::warps(kinds * mentions), &args)?;
        Ok((row_means(gpu, &by_mention, kinds)?, Saved { softmax }))
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let dscores = grads.on_device(0)?;
        if dscores.is_null() {
            return Ok(());
        }
        let args = Backward {
            softmax: saved.softmax.ptr(),
            grad: grad.ptr(),
            mention_of: self.pairs.left().on(gpu)?,
            gold: self.gold.pairs.on(gpu)?,
            dscores: dscores.at,
            kinds: grad.len() as i32,
            pairs: self.pairs.len() as i32,
            mentions: self.gold.len() as i32,
            adds: dscores.adds as i32,
        };
        gpu.launch("cross_entropy_backward", Grid::values(saved.softmax.len(), 256), &args)
    }
}
