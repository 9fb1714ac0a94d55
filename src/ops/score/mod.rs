//! Dot products of mention-side and entity-side vectors of each pair (Eq. 8, 10).
//!
//! k pairs of inputs (left_i, right_i) -> (k, pairs). Vectors come one per pair, or one per item of each side.

mod cuda;

use rayon::prelude::*;

use super::Pairing;
use super::lanes::WARP_SUM;
use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const NAME: &str = "score";

/// Pairs one task handles.
const CHUNK: usize = 256;

/// Values that a warp has of rows of d: as many columns at a time as all of its lanes' registers hold.
fn lanes(d: usize) -> usize {
    d.next_multiple_of(256)
}

/// What a pair's two vectors are indexed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The pair itself (Fission: features differ with each pair).
    Pair,
    /// The left and the right item (Fusion: features depend on one side only).
    Item,
}

/// See the module's documentation. Inputs: left and right of each score in turn.
pub struct Score {
    /// Left: mention, right: entity.
    pub pairs: Pairing,
    /// How each score's vectors are indexed.
    pub operands: Vec<Operand>,
}

impl Score {
    /// Rows of the left and right vector of pair `p` in score `k`.
    fn rows(&self, k: usize, p: usize) -> (usize, usize) {
        match self.operands[k] {
            Operand::Pair => (p, p),
            Operand::Item => (self.pairs.left()[p] as usize, self.pairs.right()[p] as usize),
        }
    }
}

impl Op for Score {
    type Saved = Vec<Tensor>;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, i: usize) -> &'static str {
        ["left", "right"][i % 2]
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let (d, scores, pairs) = (inputs[0][1], self.operands.len(), self.pairs.len());
        let flops = 2 * scores * pairs * d;
        let values: usize = inputs.iter().map(|shape| shape[0] * d).sum();
        // A warp per dot product; a warp per gradient's row, which sums over its pairs and adds what is there.
        let dots = scores * pairs * (2 * lanes(d) + WARP_SUM);
        let rows: usize = inputs.iter().map(|shape| shape[0]).sum();
        let backward = 2 * lanes(d) * (2 * scores * pairs + rows);
        Cost {
            forward: flops as u64,
            backward: (2 * flops + values) as u64,
            kernels_forward: KernelWork::vector(dots as u64),
            kernels_backward: KernelWork::vector(backward as u64),
            textbook_forward: flops as u64,
            textbook_backward: 2 * flops as u64,
            forward_bytes: 4 * (values + self.operands.len() * self.pairs.len()) as u64,
            backward_bytes: 4 * (2 * values + self.operands.len() * self.pairs.len()) as u64,
        }
    }

    fn cost_of_gradient(&self, inputs: &[&[usize]], input: usize) -> Cost {
        let (rows, d, pairs) = (inputs[input][0], inputs[input][1], self.pairs.len());
        Cost {
            backward: (2 * pairs * d + rows * d) as u64,
            kernels_backward: KernelWork::vector((2 * lanes(d) * (pairs + rows)) as u64),
            textbook_backward: (2 * pairs * d) as u64,
            backward_bytes: 4 * (rows * d) as u64,
            ..Cost::default()
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        let (k, n) = (self.operands.len(), self.pairs.len());
        if inputs.len() != 2 * k || k == 0 {
            return Err(Error::shape(NAME, format!("{} inputs for {k} scores", inputs.len())));
        }
        let (_, d) = inputs[0].matrix(NAME, "left")?;
        for (operand, sides) in self.operands.iter().zip(inputs.chunks_exact(2)) {
            let (left, right) = match operand {
                Operand::Pair => (n, n),
                Operand::Item => (self.pairs.by_left().len(), self.pairs.by_right().len()),
            };
            sides[0].expect(NAME, "left", &[left, d])?;
            sides[1].expect(NAME, "right", &[right, d])?;
        }
        let saved = inputs.iter().map(|&t| t.clone()).collect();
        if let Some(gpu) = inputs[0].gpu() {
            return Ok((self.forward_on(gpu, inputs)?, saved));
        }
        let mut scores = Buffer::scratch(k * n);
        for (i, (scores, sides)) in scores.chunks_exact_mut(n).zip(inputs.chunks_exact(2)).enumerate() {
            scores.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, scores)| {
                simd!({
                    for (offset, score) in scores.iter_mut().enumerate() {
                        let (l, r) = self.rows(i, chunk * CHUNK + offset);
                        *score = vector::dot(&sides[0].data()[l * d..][..d], &sides[1].data()[r * d..][..d]);
                    }
                });
            });
        }
        Ok((Tensor::new([k, n], scores)?, saved))
    }

    fn backward(&self, saved: Vec<Tensor>, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        if let Some(gpu) = grad.gpu() {
            return self.backward_on(gpu, &saved, grad, grads);
        }
        let n = self.pairs.len();
        for (k, grad) in grad.data().chunks_exact(n).enumerate() {
            for side in 0..2 {
                let other = &saved[2 * k + 1 - side];
                let d = other.shape()[1];
                let Some(to) = grads.get(2 * k + side) else { continue };
                let other_row = |p: usize| {
                    let (l, r) = self.rows(k, p);
                    &other.data()[[r, l][side] * d..][..d]
                };
                let groups = [self.pairs.by_left(), self.pairs.by_right()][side];
                to.par_chunks_mut(d).enumerate().with_min_len(32).for_each(|(row, to)| match self.operands[k] {
                    Operand::Pair => simd!(vector::add_scaled(to, grad[row], other_row(row))),
                    Operand::Item => simd!({
                        for &p in groups.of(row) {
                            vector::add_scaled(to, grad[p as usize], other_row(p as usize));
                        }
                    }),
                });
            }
        }
        Ok(())
    }
}
