//! Softmax cross-entropy of each score over each mention's candidates (Eq. 12).
//!
//! scores (k, pairs) -> (k): the mean over mentions of -log softmax at the gold candidate. Their sum is the loss,
//! so backward starts from ones.

mod cuda;

pub(super) use cuda::row_means;

use std::ops::{Deref, Range};

use super::lanes::{EXP, WARP_SUM};
use super::{Pairing, arity, elementwise, elsewhere};
use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::{Buffer, vector};
use crate::error::{Error, Result};
use crate::tensor::{Indices, Tensor};

const NAME: &str = "cross_entropy";

/// FLOPs of a loss from its sum: a logarithm (25, as nvcc expands it), two additions, one of the mean.
const LOSS: usize = 28;

/// Pair that holds each mention's gold candidate, and between which pairs the mention's candidates lie. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Gold {
    pairs: Indices,
    first: Indices,
    end: Indices,
}

impl Gold {
    /// Gold pairs among pairs whose left items are mentions. Losses say if they are none.
    pub fn new(pairs: &Pairing, gold: Vec<u32>) -> Gold {
        let by_mention = pairs.by_left();
        let candidates = || (0..by_mention.len()).map(|mention| by_mention.of(mention));
        Gold {
            pairs: gold.into(),
            first: candidates().map(|pairs| pairs.first().map_or(0, |&first| first)).collect(),
            end: candidates().map(|pairs| pairs.last().map_or(0, |&last| last + 1)).collect(),
        }
    }

    /// Pairs of each mention's candidates. Fails unless there are `scores` pairs, the candidates of each mention stand
    /// next to each other, and its gold pair is one of theirs; `op` names who asks.
    pub(super) fn candidates(&self, op: &'static str, pairs: &Pairing, scores: usize) -> Result<Vec<Range<usize>>> {
        let (by_mention, golds) = (pairs.by_left(), self.len());
        let mentions = by_mention.len();
        if scores != pairs.len() || mentions != golds || mentions == 0 {
            return Err(Error::shape(op, format!("{scores} scores, {mentions} mentions, {golds} golds")));
        }
        let candidates = |mention: usize| {
            let pairs = by_mention.of(mention);
            let range = match (pairs.first(), pairs.last()) {
                (Some(&first), Some(&last)) if (last - first) as usize + 1 == pairs.len() => {
                    first as usize..last as usize + 1
                }
                _ => {
                    let wrong = format!("the candidates of mention {mention} are none or not adjacent");
                    return Err(Error::shape(op, wrong));
                }
            };
            let gold = self.pairs[mention];
            match range.contains(&(gold as usize)) {
                true => Ok(range),
                false => Err(Error::shape(op, format!("gold pair {gold} is none of mention {mention}'s"))),
            }
        };
        (0..mentions).map(candidates).collect()
    }

    /// All arrays that a device may ask for.
    pub fn arrays(&self) -> [&Indices; 3] {
        [&self.pairs, &self.first, &self.end]
    }
}

impl Deref for Gold {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.pairs
    }
}

/// See the module's documentation.
pub struct CrossEntropy {
    /// Left: mention, right: entity.
    pub pairs: Pairing,
    /// Their gold pairs.
    pub gold: Gold,
}

/// Softmax of each score (k, pairs).
pub enum Saved {
    Host(Buffer),
    Device(cuda::Saved),
}

impl Op for CrossEntropy {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "scores"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let (kinds, values) = (inputs[0][0], inputs[0][0] * inputs[0][1]);
        let losses = kinds * self.gold.len();
        // e to a distance from the maximum twice, a sum, a division; backward less 1, scaled twice. Each loss is a logarithm of
        // a warp's sum and two additions, and part of a mean.
        let [forward, backward] = [(2 * (1 + EXP) + 2) * values + LOSS * losses, 3 * values];
        let warps = losses * (WARP_SUM + LOSS) + kinds * 4 * (WARP_SUM + 1);
        Cost {
            forward_bytes: 8 * values as u64,
            backward_bytes: 8 * values as u64,
            kernels_forward: KernelWork::vector(((2 * (1 + EXP) + 2) * values + warps) as u64),
            ..elementwise::cost([forward, backward], [0; 2])
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let &[scores] = arity(NAME, inputs)?;
        let ((k, n), mentions) = (scores.matrix(NAME, "scores")?, self.pairs.by_left().len());
        let ranges = self.gold.candidates(NAME, &self.pairs, n)?;
        if let Some(gpu) = scores.gpu() {
            let (losses, saved) = self.forward_on(gpu, scores)?;
            return Ok((losses, Saved::Device(saved)));
        }
        let mut softmax = Buffer::scratch(k * n);
        softmax.copy_from_slice(scores.data());
        let mut losses = vec![0.0; k];
        for (range, &gold) in ranges.iter().zip(self.gold.iter()) {
            let gold = gold as usize;
            for ((loss, softmax), scores) in
                losses.iter_mut().zip(softmax.chunks_exact_mut(n)).zip(scores.data().chunks_exact(n))
            {
                let candidates = &scores[range.clone()];
                let max = candidates.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f32 = candidates.iter().map(|s| (s - max).exp()).sum();
                // From the scores, not from the softmax, which underflows for a gold far behind.
                *loss += (max + sum.ln() - scores[gold]) / mentions as f32;
                vector::softmax(&mut softmax[range.clone()]);
            }
        }
        Ok((Tensor::new([k], losses)?, Saved::Host(softmax)))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let mut gradient = match (saved, grad.gpu()) {
            (Saved::Host(softmax), None) => softmax,
            (Saved::Device(saved), Some(gpu)) => return self.backward_on(gpu, saved, grad, grads),
            _ => return Err(elsewhere(NAME)),
        };
        let (n, mentions) = (self.pairs.len(), self.gold.len() as f32);
        for (gradient, grad) in gradient.chunks_exact_mut(n).zip(grad.data()) {
            self.gold.iter().for_each(|&gold| gradient[gold as usize] -= 1.0);
            vector::scale(gradient, grad / mentions);
        }
        if let Some(to) = grads.get(0) {
            vector::add(to, &gradient);
        }
        Ok(())
    }
}
