//! `score` on CUDA devices (kernels/score.cu).

use bytemuck::{Pod, Zeroable};

use super::{NAME, Operand, Score};
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::{Grid, Ptr};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The most scores that one launch computes.
const SCORES: usize = 6;

/// Warps of a block of backward, each of which has a row.
const WARPS: usize = 4;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    left: [Ptr; SCORES],
    right: [Ptr; SCORES],
    left_item: Ptr,
    right_item: Ptr,
    scores: Ptr,
    kinds: i32,
    pairs: i32,
    d: i32,
    by_item: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Backward {
    other: Ptr,
    grad: Ptr,
    offsets: Ptr,
    members: Ptr,
    other_item: Ptr,
    dto: Ptr,
    rows: i32,
    d: i32,
    by_item: i32,
    adds: i32,
}

impl Score {
    pub(super) fn forward_on(&self, gpu: &Gpu, inputs: &[&Tensor]) -> Result<Tensor> {
        let (kinds, pairs, d) = (self.operands.len(), self.pairs.len(), inputs[0].shape()[1]);
        if kinds > SCORES {
            return Err(Error::shape(NAME, format!("{kinds} scores, the kernel takes {SCORES}")));
        }
        let (mut left, mut right) = ([Ptr::NULL; SCORES], [Ptr::NULL; SCORES]);
        for (k, sides) in inputs.chunks_exact(2).enumerate() {
            (left[k], right[k]) = (sides[0].ptr(), sides[1].ptr());
        }
        let items = self.operands.iter().enumerate().filter(|(_, o)| **o == Operand::Item);
        let scores = gpu.alloc("scores", kinds * pairs)?;
        let args = Forward {
            left,
            right,
            left_item: self.pairs.left().on(gpu)?,
            right_item: self.pairs.right().on(gpu)?,
            scores: scores.ptr(),
            kinds: kinds as i32,
            pairs: pairs as i32,
            d: d as i32,
            by_item: items.map(|(k, _)| 1 << k).sum(),
        };
        gpu.launch("score_forward", Grid::warps(kinds * pairs), &args)?;
        Tensor::on_device([kinds, pairs], scores)
    }

    pub(super) fn backward_on(&self, gpu: &Gpu, saved: &[Tensor], grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let groups = [self.pairs.by_left(), self.pairs.by_right()];
        let items = [self.pairs.left(), self.pairs.right()];
        let mut launches = gpu.launches("score_backward", 2 * SCORES, 128);
        for (i, to) in saved.iter().enumerate() {
            let (k, side) = (i / 2, i % 2);
            let dto = grads.on_device(i)?;
            if dto.is_null() {
                continue;
            }
            let rows = to.shape()[0];
            let args = Backward {
                other: saved[2 * k + 1 - side].ptr(),
                grad: grad.ptr().offset::<f32>(k * self.pairs.len()),
                offsets: groups[side].offsets().on(gpu)?,
                members: groups[side].members().on(gpu)?,
                other_item: items[1 - side].on(gpu)?,
                dto: dto.at,
                rows: rows as i32,
                d: to.shape()[1] as i32,
                by_item: (self.operands[k] == Operand::Item) as i32,
                adds: dto.adds as i32,
            };
            launches.push(rows.div_ceil(WARPS), args, &[dto.at])?;
        }
        launches.run()
    }
}
