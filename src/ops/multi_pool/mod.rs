//! Maximum and mean over each sequence, beside its global vector (Eq. 3 and the concatenation of Eq. 4).
//!
//! sequence rows (Σ lengths, d), global (n, d) -> (n, 3 d) as [max || mean || global].

mod cuda;

use rayon::prelude::*;

use super::{arity, elsewhere};
use crate::autograd::{Cost, InputGrads, InstanceGrads, KernelWork, Op, Reached};
use crate::device::Gpu;
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::ops::lanes::LANES;
use crate::ops::project::{filled, lanes};
use crate::tensor::{Ragged, Tensor};

const NAME: &str = "multi_pool";

/// See the module's documentation.
pub struct MultiPool {
    /// Which rows form which sequence.
    pub sequences: Ragged,
}

/// Row, among all, that holds the maximum of each sequence and column (n, d); the first where several do.
pub enum Saved {
    Host(Vec<u32>),
    Device(cuda::DeviceSaved),
}

/// Maximum with its row and sum of each column, over the rows of one sequence.
#[inline(always)]
fn pool(sequence: &[f32], first_row: u32, max: &mut [f32], sum: &mut [f32], argmax: &mut [u32]) {
    max.fill(f32::NEG_INFINITY);
    sum.fill(0.0);
    argmax.fill(first_row);
    for (i, row) in sequence.chunks_exact(max.len()).enumerate() {
        for (((x, max), sum), argmax) in row.iter().zip(&mut *max).zip(&mut *sum).zip(&mut *argmax) {
            let higher = *x > *max;
            *max = if higher { *x } else { *max };
            *argmax = if higher { first_row + i as u32 } else { *argmax };
            *sum += x;
        }
    }
}

impl MultiPool {
    /// Sequence and global vectors, if they fit.
    fn checked<'a>(&self, inputs: &[&'a Tensor]) -> Result<[&'a Tensor; 2]> {
        let &[sequence, global] = arity(NAME, inputs)?;
        let (rows, d) = sequence.matrix(NAME, "sequence")?;
        if rows != self.sequences.rows() {
            return Err(Error::shape(NAME, format!("{rows} rows, sequences have {}", self.sequences.rows())));
        }
        global.expect(NAME, "global", &[self.sequences.len(), d])?;
        Ok([sequence, global])
    }
}

impl Op for MultiPool {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, i: usize) -> &'static str {
        ["sequence", "global"][i]
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let (rows, d, n) = (self.sequences.rows(), inputs[0][1], self.sequences.len());
        let textbook = self.sequences.textbook();
        // Forward adds up each value; four warps of a sequence put theirs together, and divide by the length. (Comparisons are
        // no FLOPs.) Backward adds to each value a share of the mean's gradient and perhaps the maximum's.
        let forward = |rows: usize, n: usize| (rows * d + 5 * n * d) as u64;
        let backward = |rows: usize, n: usize| (2 * rows * d + 3 * n * d) as u64;
        // Warps have 128 columns; backward, each of the four computes the shares anew.
        let (chunks, lanes) = (d.div_ceil(128), d.next_multiple_of(128));
        let shares = n * (4 * 2 * lanes + 2 * lanes + 128 * chunks);
        Cost {
            forward: forward(rows, n),
            backward: backward(rows, n),
            textbook_forward: forward(textbook.rows(), textbook.sequences),
            textbook_backward: backward(textbook.rows(), textbook.sequences),
            kernels_forward: KernelWork::vector((rows * lanes + 5 * n * d) as u64),
            kernels_backward: KernelWork::vector((2 * rows * lanes + shares) as u64),
            forward_bytes: (4 * d * (rows + n + 3 * n + n)) as u64,
            backward_bytes: (4 * d * (2 * rows + 2 * n + 3 * n + n)) as u64,
        }
    }

    fn cost_of_normalized(&self, inputs: &[&[usize]], _: usize) -> Cost {
        let (rows, d, n) = (self.sequences.rows(), inputs[0][1], self.sequences.len());
        let (lanes, cost) = (d.next_multiple_of(128), self.cost(inputs));
        // Scale and shift of each value (fma), of half the bytes. Backward copies the global vectors' gradient alone: added to what is
        // there (fma), once a sequence; and leaves the rest, whose share of a length is computed by each thread.
        Cost {
            forward: cost.forward + (2 * rows * d) as u64,
            kernels_forward: cost.kernels_forward + KernelWork::vector((2 * rows * lanes) as u64),
            forward_bytes: cost.forward_bytes - (2 * rows * d) as u64,
            backward: (2 * n * d) as u64,
            kernels_backward: KernelWork::vector((2 * n * lanes) as u64),
            backward_bytes: (4 * 3 * n * d) as u64,
            ..cost
        }
    }

    fn cost_of_part(&self, inputs: &[&[usize]], _: usize) -> Cost {
        let (rows, d) = (self.sequences.rows(), inputs[0][1]);
        let of_rows = self.sequences.ranges().map(|range| filled(range.len()));
        let (all, lanes): (usize, usize) = (of_rows.sum(), lanes(d));
        // Of a row, the mean's share and perhaps the maximum's. Of the rows that a block has at a time, in each of its four warps: the
        // share (fma) of a length (a division).
        let blocks = all / filled(1);
        let kernels = 2 * all * lanes + blocks * 4 * (2 * lanes + LANES);
        Cost {
            backward: (2 * rows * d + self.sequences.len() * d) as u64,
            kernels_backward: KernelWork::vector(kernels as u64),
            ..Cost::default()
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [sequence, global] = self.checked(inputs)?;
        let (n, d) = (self.sequences.len(), sequence.shape()[1]);
        let (mut out, mut argmax) = (Buffer::scratch(n * 3 * d), vec![0; n * d]);
        out.par_chunks_mut(3 * d).zip(argmax.par_chunks_mut(d)).enumerate().with_min_len(8).for_each(
            |(i, (out, argmax))| {
                let range = self.sequences.range(i);
                let (max, rest) = out.split_at_mut(d);
                let (mean, copy) = rest.split_at_mut(d);
                simd!({
                    pool(&sequence.data()[range.start * d..range.end * d], range.start as u32, max, mean, argmax);
                    vector::scale(mean, 1.0 / range.len() as f32);
                });
                copy.copy_from_slice(&global.data()[i * d..(i + 1) * d]);
            },
        );
        Ok((Tensor::new([n, 3 * d], out)?, Saved::Host(argmax)))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let argmax = match (saved, grad.gpu()) {
            (Saved::Host(argmax), None) => argmax,
            _ => return Err(elsewhere(NAME)),
        };
        let (_, width) = grad.matrix(NAME, "gradient")?;
        let d = width / 3;
        if let Some(dglobal) = grads.get(1) {
            for (to, from) in dglobal.chunks_exact_mut(d).zip(grad.data().chunks_exact(width)) {
                vector::add(to, &from[2 * d..]);
            }
        }
        if let Some(dsequence) = grads.get(0) {
            let sequences = split_by(dsequence, &self.sequences, d);
            sequences.into_par_iter().enumerate().with_min_len(8).for_each(|(i, rows)| {
                let grad = &grad.data()[i * width..(i + 1) * width];
                let range = self.sequences.range(i);
                let share = 1.0 / range.len() as f32;
                simd!(rows.chunks_exact_mut(d).for_each(|row| vector::add_scaled(row, share, &grad[d..2 * d])));
                for (column, &row) in argmax[i * d..(i + 1) * d].iter().enumerate() {
                    rows[(row as usize - range.start) * d + column] += grad[column];
                }
            });
        }
        Ok(())
    }

    fn forward_together(gpu: &Gpu, ops: &[MultiPool], inputs: &[Vec<&Tensor>]) -> Result<Vec<(Tensor, Saved)>> {
        let checked = ops.iter().zip(inputs).map(|(op, inputs)| Ok((op, op.checked(inputs)?)));
        cuda::forward(gpu, &checked.collect::<Result<Vec<_>>>()?)
    }

    fn backward_together(gpu: &Gpu, reached: Vec<Reached<MultiPool>>, grads: &mut InstanceGrads) -> Result<()> {
        cuda::backward(gpu, reached, grads)
    }
}

/// Cuts a matrix of `width` columns into its sequences.
pub(super) fn split_by<'a>(mut rows: &'a mut [f32], sequences: &Ragged, width: usize) -> Vec<&'a mut [f32]> {
    let cut = |range: std::ops::Range<usize>| {
        let (head, tail) = std::mem::take(&mut rows).split_at_mut(range.len() * width);
        rows = tail;
        head
    };
    sequences.ranges().map(cut).collect()
}
