//! `attention` with gradients on the CPU: a task per pair forward, per sequence backward, so that every sum has one
//! order.

use std::ops::Range;

use rayon::prelude::*;

use super::Attention;
use crate::autograd::InputGrads;
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::ops::matmul::{Mat, matmul};
use crate::ops::multi_pool::split_by;
use crate::tensor::Tensor;

/// Rows of a matrix of d columns, of which a head has `width`.
#[derive(Clone, Copy)]
struct HeadRows<'a> {
    values: &'a [f32],
    d: usize,
    width: usize,
}

impl<'a> HeadRows<'a> {
    fn of(tensor: &'a Tensor, heads: usize) -> HeadRows<'a> {
        let d = tensor.shape()[1];
        HeadRows { values: tensor.data(), d, width: d / heads }
    }

    /// A head's columns of some rows.
    fn head(&self, rows: &Range<usize>, head: usize) -> Mat<'a> {
        let (first, count) = (rows.start, rows.len());
        let all = Mat::new(self.values, self.values.len() / self.d, self.d);
        all.rows(first, count).columns(head * self.width, self.width)
    }
}

/// What both halves of backward read.
struct Backward<'a> {
    op: &'a Attention,
    q: HeadRows<'a>,
    k: HeadRows<'a>,
    v: HeadRows<'a>,
    dout: HeadRows<'a>,
    /// Logarithms of the sums, and `dout · out`, of each output row and head.
    sums: &'a [f32],
    delta: &'a [f32],
}

/// Weights and gradients of the logits of one pair and head (queries, keys).
#[derive(Default)]
struct Weights {
    weights: Vec<f32>,
    dlogits: Vec<f32>,
}

impl Attention {
    /// Rows of pair `p` among the queries, the keys and the output.
    fn rows(&self, p: usize) -> [Range<usize>; 3] {
        let (a, b) = (self.pairs.left()[p] as usize, self.pairs.right()[p] as usize);
        [self.queries.range(a), self.keys.range(b), self.output.range(p)]
    }

    /// Whether pair p is of query sequence p and key sequence p, for all of both: self-attention.
    fn each_is_in_one_pair(&self) -> bool {
        let pairs = self.pairs.len();
        let in_turn = |numbers: &[u32]| numbers.iter().enumerate().all(|(p, &number)| p == number as usize);
        let [left, right] = [self.pairs.left(), self.pairs.right()];
        pairs == self.queries.len() && pairs == self.keys.len() && in_turn(left) && in_turn(right)
    }

    /// The output, and the logarithm of the sum of each of its rows and heads.
    pub(super) fn forward_on_host(&self, inputs: [&Tensor; 3]) -> Result<(Buffer, Buffer)> {
        let (heads, d, rows) = (self.heads, inputs[0].shape()[1], self.output.rows());
        let [q, k, v] = inputs.map(|input| HeadRows::of(input, heads));
        let (mut out, mut sums) = (Buffer::scratch(rows * d), Buffer::scratch(rows * heads));
        let pairs = split_by(&mut out, &self.output, d).into_par_iter();
        let pairs = pairs.zip(split_by(&mut sums, &self.output, heads)).enumerate();
        pairs.try_for_each_init(Vec::new, |logits: &mut Vec<f32>, (p, (out, sums))| {
            let [queries, keys, _] = self.rows(p);
            logits.resize(queries.len() * keys.len(), 0.0);
            for head in 0..heads {
                matmul(logits, keys.len(), 0.0, self.scale, q.head(&queries, head), k.head(&keys, head).t())?;
                simd!({
                    let rows = logits.chunks_exact_mut(keys.len()).zip(sums.chunks_exact_mut(heads));
                    for (i, (row, sums)) in rows.enumerate() {
                        let (seen, hidden) = row.split_at_mut(self.seen(i, keys.len()));
                        hidden.fill(0.0);
                        let max = vector::max(seen);
                        let sum = vector::exp_sum(seen, max);
                        vector::scale(seen, 1.0 / sum);
                        sums[head] = max + sum.ln();
                    }
                });
                let weights = Mat::new(logits, queries.len(), keys.len());
                matmul(&mut out[head * q.width..], d, 0.0, 1.0, weights, v.head(&keys, head))?;
            }
            Ok(())
        })?;
        Ok((out, sums))
    }

    pub(super) fn backward_on_host(
        &self,
        inputs: &[Tensor; 3],
        out: &Tensor,
        sums: &[f32],
        grad: &Tensor,
        grads: &mut InputGrads,
    ) -> Result<()> {
        let (heads, d) = (self.heads, grad.shape()[1]);
        let [q, k, v] = [&inputs[0], &inputs[1], &inputs[2]].map(|input| HeadRows::of(input, heads));
        let mut delta = Buffer::scratch(sums.len());
        let vectors = grad.data().par_chunks_exact(q.width).zip(out.data().par_chunks_exact(q.width));
        delta.par_iter_mut().zip(vectors).for_each(|(delta, (dout, out))| *delta = simd!(vector::dot(dout, out)));
        let backward = Backward { op: self, q, k, v, dout: HeadRows::of(grad, heads), sums, delta: &delta };
        // Keys and values may be one input, whose gradient then gets both in turn.
        let (mut dk, mut dv) = (Buffer::zeros(inputs[1].len()), Buffer::zeros(inputs[2].len()));
        let of_keys =
            split_by(&mut dk, &self.keys, d).into_par_iter().zip(split_by(&mut dv, &self.keys, d)).enumerate();
        // None where the queries need no gradient.
        let of_queries = grads.get(0).map(|dq| split_by(dq, &self.queries, d)).unwrap_or_default();
        let start = Weights::default;
        match of_queries.len() == self.queries.len() && self.each_is_in_one_pair() {
            // The weights of a pair serve all that they are needed for.
            true => of_keys
                .zip(of_queries)
                .try_for_each_init(start, |scratch, ((p, to), dq)| backward.pair(p, dq, to, scratch))?,
            false => {
                let of_queries = of_queries.into_par_iter().enumerate();
                of_queries.try_for_each_init(start, |scratch, (a, dq)| backward.queries(a, dq, scratch))?;
                of_keys.try_for_each_init(start, |scratch, (b, to)| backward.keys(b, to, scratch))?;
            }
        }
        for (i, from) in [(1, &dk), (2, &dv)] {
            if let Some(to) = grads.get(i) {
                to.par_chunks_mut(d).zip(from.par_chunks(d)).for_each(|(to, from)| simd!(vector::add(to, from)));
            }
        }
        Ok(())
    }
}

impl Backward<'_> {
    /// Computes a pair's weights again, and the gradients of its logits.
    fn weights(&self, p: usize, head: usize, scratch: &mut Weights) -> Result<()> {
        let ([queries, keys, rows], heads) = (self.op.rows(p), self.op.heads);
        let Weights { weights, dlogits } = scratch;
        weights.resize(queries.len() * keys.len(), 0.0);
        dlogits.resize(queries.len() * keys.len(), 0.0);
        let (q, k) = (self.q.head(&queries, head), self.k.head(&keys, head));
        matmul(weights, keys.len(), 0.0, self.op.scale, q, k.t())?;
        let (dout, v) = (self.dout.head(&rows, head), self.v.head(&keys, head));
        matmul(dlogits, keys.len(), 0.0, 1.0, dout, v.t())?;
        simd!({
            let matrices = weights.chunks_exact_mut(keys.len()).zip(dlogits.chunks_exact_mut(keys.len()));
            for (i, (row, (weights, dlogits))) in rows.zip(matrices).enumerate() {
                let (weights, hidden) = weights.split_at_mut(self.op.seen(i, keys.len()));
                let (dlogits, also_hidden) = dlogits.split_at_mut(weights.len());
                hidden.fill(0.0);
                also_hidden.fill(0.0);
                let (sum, delta) = (self.sums[row * heads + head], self.delta[row * heads + head]);
                for (weight, dlogit) in weights.iter_mut().zip(dlogits) {
                    *weight = vector::exp(*weight - sum);
                    *dlogit = *weight * (*dlogit - delta);
                }
            }
        });
        Ok(())
    }

    /// Adds to the gradients of the queries, the keys and the values of pair `p`, which are in no other.
    fn pair(&self, p: usize, dq: &mut [f32], to: (&mut [f32], &mut [f32]), scratch: &mut Weights) -> Result<()> {
        let (dk, dv) = to;
        for head in 0..self.op.heads {
            self.weights(p, head, scratch)?;
            self.add_queries(p, head, dq, scratch)?;
            self.add_keys(p, head, (dk, dv), scratch)?;
        }
        Ok(())
    }

    /// Adds to the gradients of query sequence `a`.
    fn queries(&self, a: usize, dq: &mut [f32], scratch: &mut Weights) -> Result<()> {
        for &p in self.op.pairs.by_left().of(a) {
            for head in 0..self.op.heads {
                self.weights(p as usize, head, scratch)?;
                self.add_queries(p as usize, head, dq, scratch)?;
            }
        }
        Ok(())
    }

    /// Adds to the gradients of the keys and the values of key sequence `b`.
    fn keys(&self, b: usize, (dk, dv): (&mut [f32], &mut [f32]), scratch: &mut Weights) -> Result<()> {
        for &p in self.op.pairs.by_right().of(b) {
            for head in 0..self.op.heads {
                self.weights(p as usize, head, scratch)?;
                self.add_keys(p as usize, head, (dk, dv), scratch)?;
            }
        }
        Ok(())
    }

    /// What a pair and head adds to the gradients of its queries.
    fn add_queries(&self, p: usize, head: usize, dq: &mut [f32], scratch: &Weights) -> Result<()> {
        let [queries, keys, _] = self.op.rows(p);
        let dlogits = Mat::new(&scratch.dlogits, queries.len(), keys.len());
        let to = &mut dq[head * self.q.width..];
        matmul(to, self.q.d, 1.0, self.op.scale, dlogits, self.k.head(&keys, head))
    }

    /// The same of its keys and values.
    fn add_keys(&self, p: usize, head: usize, (dk, dv): (&mut [f32], &mut [f32]), scratch: &Weights) -> Result<()> {
        let ([queries, keys, rows], first, d) = (self.op.rows(p), head * self.q.width, self.q.d);
        let dlogits = Mat::new(&scratch.dlogits, queries.len(), keys.len());
        matmul(&mut dk[first..], d, 1.0, self.op.scale, dlogits.t(), self.q.head(&queries, head))?;
        let weights = Mat::new(&scratch.weights, queries.len(), keys.len());
        matmul(&mut dv[first..], d, 1.0, 1.0, weights.t(), self.dout.head(&rows, head))
    }
}
