//! The gradient of projected rows that are read as sequences (kernels/project_sequences.cu).

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::NAME;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Ptr};
use crate::error::{Error, Result};
use crate::ops::Pairing;
use crate::ops::lanes::{LANES, WARP_SUM};
use crate::ops::layer_norm::{LayerNorm, NORM_BACKWARD, NormalizedBackward};
use crate::ops::reduce::{self, Sums};
use crate::tensor::{Indices, Ragged, Tensor};

/// Rows of a sequence that a block has at a time.
const SEQUENCE_ROWS: usize = 32;

/// Blocks that fill a large device several times over: of more parts of sequences, a block takes some one after the other.
const BLOCKS: usize = 132 * 8;

/// The most instances of a launch.
const INSTANCES: usize = 8;

/// The most attentions that read a sequence.
const READERS: usize = 2;

/// Kernels and the largest d of each.
const KERNELS: [(&str, usize); 2] = [("project_sequences_128", 128), ("project_sequences_256", 256)];

/// Part of the gradient of sequences, as who read them leaves it.
pub enum Part {
    /// Of attention.
    Attended(Attended),
    /// Of maximum and mean: the gradient of what was pooled (sequences, 3 d) and each maximum's row (sequences, d).
    Pooled(Tensor, DeviceBuffer<u32>),
}

/// What attention leaves.
pub struct Attended {
    /// Left: query, right: sequence.
    pub pairs: Pairing,
    /// Where each pair's attention weights would begin if there were one head.
    pub starts: Indices,
    pub heads: usize,
    /// Logit vectors (queries, heads, d).
    pub u: Arc<DeviceBuffer<f32>>,
    /// Attention weights of each pair (heads, L), end to end, and the gradients of their logits.
    pub probabilities: Arc<DeviceBuffer<f32>>,
    pub dlogits: DeviceBuffer<f32>,
    /// Gradients of the contexts (pairs, heads, d).
    pub dcontext: DeviceBuffer<f32>,
}

/// [`Attended`] as kernels take it (kernels/sequence_rows.cuh).
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct AttendedRows {
    left: Ptr,
    starts: Ptr,
    group_offsets: Ptr,
    members: Ptr,
    u: Ptr,
    dcontext: Ptr,
    probabilities: Ptr,
    dlogits: Ptr,
    heads: i32,
    padding: i32,
}

impl Attended {
    /// Places on a device.
    pub fn on(&self, gpu: &Gpu) -> Result<AttendedRows> {
        let of_sequences = self.pairs.by_right();
        Ok(AttendedRows {
            left: self.pairs.left().on(gpu)?,
            starts: self.starts.on(gpu)?,
            group_offsets: of_sequences.offsets().on(gpu)?,
            members: of_sequences.members().on(gpu)?,
            u: self.u.ptr(),
            dcontext: self.dcontext.ptr(),
            probabilities: self.probabilities.ptr(),
            dlogits: self.dlogits.ptr(),
            heads: self.heads as i32,
            padding: 0,
        })
    }
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    attended: [AttendedRows; READERS],
    pooled: Ptr,
    argmax: Ptr,
    offsets: Ptr,
    xhat: Ptr,
    rstd: Ptr,
    gamma: Ptr,
    dx: Ptr,
    partial: Ptr,
    readers: i32,
    d: i32,
    stride: i32,
    sequences: i32,
    parts: i32,
    parts_of_block: i32,
}

/// Rows of sequences and what their readers left.
pub struct OfSequences<'a> {
    pub norm: LayerNorm,
    pub sequences: &'a Ragged,
    /// The projection's output, normalized.
    pub rows: &'a Tensor,
    /// Reciprocal standard deviations.
    pub rstd: &'a DeviceBuffer<f32>,
    pub parts: Vec<Part>,
    pub to: NormalizedBackward,
}

/// Parts of sequences: those of the longest, those that a block takes one after the other, and the blocks.
struct Split {
    parts: usize,
    of_block: usize,
    blocks: usize,
}

/// Parts of the longest sequence, of rows that a block has at a time.
pub fn parts_of_longest(sequences: &Ragged) -> usize {
    sequences.ranges().map(|range| range.len().div_ceil(SEQUENCE_ROWS)).max().unwrap_or(0)
}

impl Split {
    fn of(sequences: &Ragged) -> Split {
        let parts = parts_of_longest(sequences);
        let all = sequences.len() * parts;
        let of_block = all.div_ceil(BLOCKS).max(1);
        Split { parts, of_block, blocks: all.div_ceil(of_block) }
    }
}

/// Lanes' values of a row, whatever d up to there.
pub fn lanes(d: usize) -> usize {
    if d <= KERNELS[0].1 { KERNELS[0].1 } else { KERNELS[1].1 }
}

/// Rows of a sequence, filled up to those that blocks take at a time.
pub fn filled(rows: usize) -> usize {
    rows.next_multiple_of(SEQUENCE_ROWS)
}

/// FLOPs of the normalization's backward on sequences, as cusim counts them, without the parts that readers leave.
pub fn backward_work(sequences: &Ragged, d: usize) -> u64 {
    let blocks = Split::of(sequences).blocks;
    // As of rows that form none: see `layer_norm::backward_work`.
    let rows = sequences.rows() * (lanes(d) * NORM_BACKWARD + 2 * WARP_SUM + 2 * LANES) + blocks * 4 * 3 * d;
    rows as u64 + reduce::parts(blocks, 3 * d)
}

/// Gradients of the rows before their normalization, in bf16 rows of [`LayerNorm::stride`] values, all at once; adds to the sums
/// when `sums` runs.
pub fn backward(gpu: &Gpu, of: Vec<OfSequences>, sums: &mut Sums) -> Result<Vec<DeviceBuffer<u16>>> {
    let mut launches = KERNELS.map(|(kernel, _)| gpu.launches(kernel, INSTANCES, 128));
    let mut results = Vec::with_capacity(of.len());
    for OfSequences { norm, sequences, rows, rstd, parts, to } in &of {
        let Split { parts: longest, of_block, blocks } = Split::of(sequences);
        let dx = gpu.alloc::<u16>("gradients of normalized rows", rstd.len() * norm.stride())?;
        let partial = gpu.alloc::<f32>("partial sums", blocks * 3 * norm.d)?;
        let rows = rows.normalized().ok_or_else(|| Error::shape(NAME, "sequences of rows that are scaled already"))?;
        let mut args = Args {
            attended: [AttendedRows::zeroed(); READERS],
            pooled: Ptr::NULL,
            argmax: Ptr::NULL,
            offsets: sequences.offsets().on(gpu)?,
            xhat: rows.rows,
            rstd: rstd.ptr(),
            gamma: rows.gamma,
            dx: dx.ptr(),
            partial: partial.ptr(),
            readers: 0,
            d: norm.d as i32,
            stride: norm.stride() as i32,
            sequences: sequences.len() as i32,
            parts: longest as i32,
            parts_of_block: of_block as i32,
        };
        for part in parts {
            match part {
                Part::Attended(attended) => {
                    let place = args.attended.get_mut(args.readers as usize);
                    *place.ok_or_else(|| too_many("attentions", READERS))? = attended.on(gpu)?;
                    args.readers += 1;
                }
                Part::Pooled(..) if args.pooled != Ptr::NULL => return Err(too_many("poolings", 1)),
                Part::Pooled(grad, argmax) => (args.pooled, args.argmax) = (grad.ptr(), argmax.ptr()),
            }
        }
        let kernel = KERNELS.iter().position(|(_, widest)| norm.d <= *widest).unwrap_or(KERNELS.len() - 1);
        launches[kernel].push(blocks, args, &[])?;
        sums.add_three(partial, blocks, norm.d, [to.gamma, to.beta, to.bias]);
        results.push(dx);
    }
    launches.into_iter().try_for_each(|launches| launches.run())?;
    Ok(results)
}

fn too_many(what: &str, most: usize) -> Error {
    Error::shape(NAME, format!("more than {most} {what} read the same sequences"))
}
