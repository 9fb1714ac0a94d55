//! `attention` with gradients on CUDA devices (kernels/attention_pairs.cu).

use bytemuck::{Pod, Zeroable};

use super::{Attention, NAME};
use crate::autograd::InputGrads;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr, Target};
use crate::error::{Error, Result};
use crate::ops::Groups;
use crate::tensor::{Ragged, Tensor};

/// The widest heads that the kernels take: eight values per lane of a warp.
const WIDEST: usize = 256;

/// Rows of a block, one to a warp.
const BLOCK_ROWS: usize = 4;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Pairs {
    left: Ptr,
    right: Ptr,
    query_offsets: Ptr,
    key_offsets: Ptr,
    out_offsets: Ptr,
    heads: i32,
    head: i32,
    scale: f32,
    causal: i32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Forward {
    pairs: Pairs,
    q: Ptr,
    k: Ptr,
    v: Ptr,
    out: Ptr,
    lse: Ptr,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Backward {
    pairs: Pairs,
    group_offsets: Ptr,
    members: Ptr,
    q: Ptr,
    k: Ptr,
    v: Ptr,
    out: Ptr,
    dout: Ptr,
    lse: Ptr,
    delta: Ptr,
    dto: Ptr,
    dv: Ptr,
    adds: i32,
    dv_adds: i32,
}

impl Backward {
    /// The half that adds to `to` (and `dv`) of items with these pairs.
    fn half(self, gpu: &Gpu, groups: &Groups, to: Target, dv: Target) -> Result<Backward> {
        let (group_offsets, members) = (groups.offsets().on(gpu)?, groups.members().on(gpu)?);
        let (adds, dv_adds) = (to.adds as i32, dv.adds as i32);
        Ok(Backward { group_offsets, members, dto: to.at, dv: dv.at, adds, dv_adds, ..self })
    }
}

/// A warp for each row of the longest of these sequences, for each of them and each head.
fn grid(sequences: &Ragged, heads: usize) -> Grid {
    let longest = sequences.ranges().map(|range| range.len()).max().unwrap_or(0);
    Grid { blocks: [sequences.len(), longest.div_ceil(BLOCK_ROWS), heads], threads: 32 * BLOCK_ROWS as u32, shared: 0 }
}

impl Attention {
    fn pairs_on(&self, gpu: &Gpu, d: usize) -> Result<Pairs> {
        let head = d / self.heads;
        if head > WIDEST {
            let reason = format!("heads of {head} values, the CUDA kernels take at most {WIDEST}; use --device cpu");
            return Err(Error::shape(NAME, reason));
        }
        Ok(Pairs {
            left: self.pairs.left().on(gpu)?,
            right: self.pairs.right().on(gpu)?,
            query_offsets: self.queries.offsets().on(gpu)?,
            key_offsets: self.keys.offsets().on(gpu)?,
            out_offsets: self.output.offsets().on(gpu)?,
            heads: self.heads as i32,
            head: head as i32,
            scale: self.scale,
            causal: self.causal as i32,
        })
    }

    /// The output, and the logarithm of the sum of each of its rows and heads.
    pub(super) fn forward_on(
        &self,
        gpu: &Gpu,
        [q, k, v]: [&Tensor; 3],
    ) -> Result<(DeviceBuffer<f32>, DeviceBuffer<f32>)> {
        let (d, rows) = (q.shape()[1], self.output.rows());
        let pairs = self.pairs_on(gpu, d)?;
        let (out, lse) = (gpu.alloc::<f32>(NAME, rows * d)?, gpu.alloc::<f32>(NAME, rows * self.heads)?);
        let args = Forward { pairs, q: q.ptr(), k: k.ptr(), v: v.ptr(), out: out.ptr(), lse: lse.ptr() };
        gpu.launch("attention_pairs_forward", grid(&self.output, self.heads), &args)?;
        Ok((out, lse))
    }

    pub(super) fn backward_on(
        &self,
        gpu: &Gpu,
        ([q, k, v], out, lse): (&[Tensor; 3], &Tensor, &DeviceBuffer<f32>),
        grad: &Tensor,
        grads: &mut InputGrads,
    ) -> Result<()> {
        let delta = gpu.alloc::<f32>("gradients of attention", lse.len())?;
        let both = Backward {
            pairs: self.pairs_on(gpu, grad.shape()[1])?,
            group_offsets: Ptr::NULL,
            members: Ptr::NULL,
            q: q.ptr(),
            k: k.ptr(),
            v: v.ptr(),
            out: out.ptr(),
            dout: grad.ptr(),
            lse: lse.ptr(),
            delta: delta.ptr(),
            dto: Ptr::NULL,
            dv: Ptr::NULL,
            adds: 0,
            dv_adds: 0,
        };
        gpu.launch("attention_pairs_delta", grid(&self.output, self.heads), &both)?;
        let dq = grads.on_device(0)?;
        if !dq.is_null() {
            let args = both.half(gpu, self.pairs.by_left(), dq, Target::NULL)?;
            gpu.launch("attention_pairs_queries", grid(&self.queries, self.heads), &args)?;
        }
        let (dk, dv) = (grads.on_device(1)?, grads.on_device(2)?);
        if !(dk.is_null() && dv.is_null()) {
            let args = both.half(gpu, self.pairs.by_right(), dk, dv)?;
            gpu.launch("attention_pairs_keys", grid(&self.keys, self.heads), &args)?;
        }
        Ok(())
    }
}
