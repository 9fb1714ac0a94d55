//! One query vector attends to a sequence, then output layer, residual and layer normalization (Eq. 5, 6, 9).
//!
//! query (nq, d), sequence rows (Σ lengths, d), pairs (query, sequence) -> (pairs, d). With head h of width c,
//! logits are `u_h·F_l` with `u_h = Wk_hᵀ(Wq q + bq)_h / √c`, up to a constant that leaves softmax, and the context
//! is `Wv_h (Σ a_l F_l) + bv_h`: keys and values are never formed, and the gradient of `bk` is exactly zero.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod cpu;
mod cuda;
mod together;
mod weights;
mod work;

use rayon::prelude::*;

pub use cpu::{Attended, attend, attend_backward};
pub use together::{Lanes, attend_lanes, attend_together, lanes_pay};
pub use weights::AttentionWeights;
use weights::Finished;

use super::multi_pool::split_by;
use super::{Pairing, arity, elsewhere};
use crate::autograd::{Cost, InputGrads, InstanceGrads, KernelWork, Op, Reached};
use crate::device::Gpu;
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::ops::layer_norm::{NORM_BACKWARD, NORM_FORWARD, backward_work as norm_backward, layer_norm_backward};
use crate::ops::linear::{ROW_CHUNK, add_column_sums, linear_backward_input, linear_backward_weight};
use crate::ops::matmul::{Mat, matmul};
use crate::tensor::{Indices, Ragged, Tensor};

const NAME: &str = "cross_attention";

/// Places of the inputs.
const QUERIES: usize = 0;
const SEQUENCE: usize = 1;
const QUERY: usize = 2;
const QUERY_BIAS: usize = 3;
const KEY: usize = 4;
const KEY_BIAS: usize = 5;
const VALUE: usize = 6;
const VALUE_BIAS: usize = 7;
const OUT: usize = 8;
const OUT_BIAS: usize = 9;
const GAMMA: usize = 10;
const BETA: usize = 11;

/// Weights begin with the query layer's.
const WEIGHTS: usize = QUERY;

const INPUTS: [&str; 12] = [
    "query",
    "sequence",
    "query weight",
    "query bias",
    "key weight",
    "key bias",
    "value weight",
    "value bias",
    "output weight",
    "output bias",
    "gamma",
    "beta",
];

/// See the module's documentation.
pub struct CrossAttention {
    /// Number of heads; must divide d.
    pub heads: usize,
    /// Epsilon of the layer normalization.
    pub eps: f32,
    /// Which rows form which sequence.
    pub sequences: Ragged,
    /// Left: query, right: sequence.
    pub pairs: Pairing,
    /// [`Pairing::starts`] of them.
    pub starts: Indices,
    /// Pairs a textbook implementation would compute.
    pub textbook_pairs: usize,
}

/// What backward needs.
pub enum Saved {
    Host(Box<HostSaved>),
    Device(Box<cuda::DeviceSaved>),
}

/// What backward on the host needs.
pub struct HostSaved {
    attention: AttentionWeights,
    queries: Tensor,
    sequence: Tensor,
    projected: Buffer,
    u: Buffer,
    /// Attention weights of each pair (heads, L), end to end.
    probabilities: Buffer,
    context: Buffer,
    values: Buffer,
    xhat: Buffer,
    rstd: Buffer,
}

/// An instance with inputs that fit.
struct Checked<'a> {
    op: &'a CrossAttention,
    attention: AttentionWeights,
    queries: &'a Tensor,
    sequence: &'a Tensor,
}

impl CrossAttention {
    fn checked<'a>(&'a self, inputs: &[&'a Tensor]) -> Result<Checked<'a>> {
        let &[queries, sequence, ref weights @ ..] = arity::<12>(NAME, inputs)?;
        let attention = AttentionWeights::new(self.heads, self.eps, weights)?;
        queries.expect(NAME, INPUTS[QUERIES], &[self.pairs.by_left().len(), attention.d])?;
        sequence.expect(NAME, INPUTS[SEQUENCE], &[self.sequences.rows(), attention.d])?;
        if self.pairs.by_right().len() != self.sequences.len() {
            return Err(Error::shape(NAME, "pairs and sequences differ in number"));
        }
        Ok(Checked { op: self, attention, queries, sequence })
    }

    /// Values of `probabilities` of each pair.
    fn lengths(&self) -> Vec<usize> {
        self.pairs.right().iter().map(|&s| self.heads * self.sequences.range(s as usize).len()).collect()
    }

    fn sequence<'a>(&self, rows: &'a Tensor, s: u32, d: usize) -> &'a [f32] {
        let range = self.sequences.range(s as usize);
        &rows.data()[range.start * d..range.end * d]
    }

    /// Attention weights and contexts of all pairs.
    fn attend_all(&self, u: &[f32], sequence: &Tensor, d: usize) -> (Buffer, Buffer) {
        let (lengths, width) = (self.lengths(), self.heads * d);
        let mut probabilities = Buffer::scratch(lengths.iter().sum());
        let mut context = Buffer::scratch(self.pairs.len() * width);
        let split = split_lengths(&mut probabilities, &lengths);
        let work = split.into_par_iter().zip(context.par_chunks_mut(width)).enumerate().with_min_len(16);
        work.for_each(|(p, (probabilities, context))| {
            let u = &u[self.pairs.left()[p] as usize * width..][..width];
            let sequence = self.sequence(sequence, self.pairs.right()[p], d);
            simd!(attend(u, sequence, d, probabilities, context));
        });
        (probabilities, context)
    }
}

fn split_lengths<'a>(mut values: &'a mut [f32], lengths: &[usize]) -> Vec<&'a mut [f32]> {
    let cut = |&length: &usize| {
        let (head, tail) = std::mem::take(&mut values).split_at_mut(length);
        values = tail;
        head
    };
    lengths.iter().map(cut).collect()
}

impl Op for CrossAttention {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, i: usize) -> &'static str {
        INPUTS[i]
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let (queries, d, pairs) = (inputs[0][0], inputs[0][1], self.pairs.len());
        let rows: usize = self.pairs.right().iter().map(|&s| self.sequences.range(s as usize).len()).sum();
        let (textbook, length) = (self.textbook_pairs, self.sequences.textbook().length);
        // The textbook projects the query, every key and value, and the output of each pair.
        let textbook_forward = textbook * (4 * d * d + 3 * d + 4 * length * d * d + 4 * length * d + NORM_FORWARD * d);
        let values = self.sequences.rows() * d + queries * d + pairs * d;
        let (forward, backward) = work::layers(self.heads, d, [queries, pairs]);
        let (attend, attend_backward) = work::attend(self, d, rows);
        let to_sequences = work::to_sequences(self, d);
        Cost {
            forward: forward.products + attend.executed + (pairs * d * (3 + NORM_FORWARD) + queries * d) as u64,
            backward: backward.products
                + attend_backward.executed
                + to_sequences.executed
                + (pairs * d * (2 + NORM_BACKWARD)) as u64,
            textbook_forward: textbook_forward as u64,
            textbook_backward: (2 * textbook_forward) as u64,
            kernels_forward: forward + KernelWork::vector(attend.all),
            kernels_backward: backward
                + KernelWork::vector(attend_backward.all + to_sequences.all + norm_backward(pairs, d)),
            forward_bytes: (4 * (values + 4 * d * d + 6 * d)) as u64,
            backward_bytes: (4 * (2 * values + 8 * d * d + 12 * d)) as u64,
        }
    }

    fn cost_of_normalized(&self, inputs: &[&[usize]], input: usize) -> Cost {
        let (d, cost) = (inputs[QUERIES][1], self.cost(inputs) - self.cost_of_part(inputs, input));
        let (forward, backward) = work::scaling(self, d);
        let rows = (2 * self.sequences.rows() * d) as u64;
        // Rows have half the bytes, forward and backward; their gradient is not written.
        Cost {
            forward: cost.forward + forward.executed,
            backward: cost.backward + backward.executed,
            kernels_forward: cost.kernels_forward + KernelWork::vector(forward.all),
            kernels_backward: cost.kernels_backward + KernelWork::vector(backward.all),
            forward_bytes: cost.forward_bytes - rows,
            backward_bytes: cost.backward_bytes - 3 * rows,
            ..cost
        }
    }

    fn cost_of_part(&self, inputs: &[&[usize]], _: usize) -> Cost {
        let work::Attend { executed, all } = work::to_sequences(self, inputs[QUERIES][1]);
        Cost { backward: executed, kernels_backward: KernelWork::vector(all), ..Cost::default() }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let Checked { attention, queries, sequence, .. } = self.checked(inputs)?;
        let d = attention.d;
        let (u, projected) = attention.logit_vectors_of(queries.data())?;
        let (probabilities, context) = self.attend_all(&u, sequence, d);
        let Finished { out, values, xhat, rstd } = attention.finish(&context, queries.data(), self.pairs.left())?;
        let (queries, sequence) = (queries.clone(), sequence.clone());
        let saved =
            HostSaved { attention, queries, sequence, projected, u, probabilities, context, values, xhat, rstd };
        Ok((Tensor::new([self.pairs.len(), d], out)?, Saved::Host(Box::new(saved))))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let saved = match (saved, grad.gpu()) {
            (Saved::Host(saved), None) => saved,
            _ => return Err(elsewhere(NAME)),
        };
        let a = &saved.attention;
        let (d, n, width) = (a.d, self.pairs.len(), self.heads * a.d);

        // Normalization, residual and output layer.
        let mut dx = Buffer::scratch(n * d);
        let norm = layer_norm_backward(&mut dx, grad.data(), &saved.xhat, &saved.rstd, a.vector(GAMMA));
        add_to(grads.get(GAMMA), &norm.gamma);
        add_to(grads.get(BETA), &norm.beta);
        if let Some(dqueries) = grads.get(QUERIES) {
            self.sum_by_query(dqueries, d, |p| &dx[p * d..][..d]);
        }
        if let Some(dbias) = grads.get(OUT_BIAS) {
            add_column_sums(dbias, &dx);
        }
        let dx_rows = Mat::new(&dx, n, d);
        if let Some(dweight) = grads.get(OUT) {
            linear_backward_weight(dweight, d, dx_rows, Mat::new(&saved.values, n, d))?;
        }
        let mut dvalues = Buffer::zeros(n * d);
        linear_backward_input(&mut dvalues, dx_rows, a.matrix(OUT))?;

        // Value layer.
        if let Some(dbias) = grads.get(VALUE_BIAS) {
            add_column_sums(dbias, &dvalues);
        }
        let (dvalues, context) = (Mat::new(&dvalues, n, d), Mat::new(&saved.context, n, width));
        if let Some(dweight) = grads.get(VALUE) {
            a.each_head(|h, c| {
                let dweight = &mut dweight[h * c * d..][..c * d];
                linear_backward_weight(dweight, d, dvalues.columns(h * c, c), context.columns(h * d, d))
            })?;
        }
        let mut dcontext = Buffer::scratch(n * width);
        dcontext.par_chunks_mut(ROW_CHUNK * width).enumerate().try_for_each(|(chunk, dcontext)| {
            let rows = dvalues.rows(chunk * ROW_CHUNK, dcontext.len() / width);
            a.each_head(|h, c| {
                matmul(&mut dcontext[h * d..], width, 0.0, 1.0, rows.columns(h * c, c), a.matrix(VALUE).rows(h * c, c))
            })
        })?;

        // AttentionWeights over the sequences, and from there to the queries.
        let du_pairs = self.attend_all_backward(&saved, &dcontext, grads, d)?;
        let by_sequence = self.pairs.by_right();
        let mut du = Buffer::zeros(saved.u.len());
        self.sum_by_query(&mut du, width, |p| &du_pairs[by_sequence.rank(p as u32) * width..][..width]);
        self.queries_backward(&saved, &du, grads)
    }

    fn forward_together(gpu: &Gpu, ops: &[CrossAttention], inputs: &[Vec<&Tensor>]) -> Result<Vec<(Tensor, Saved)>> {
        let checked = ops.iter().zip(inputs).map(|(op, inputs)| op.checked(inputs));
        cuda::forward(gpu, checked.collect::<Result<_>>()?)
    }

    fn backward_together(gpu: &Gpu, reached: Vec<Reached<CrossAttention>>, grads: &mut InstanceGrads) -> Result<()> {
        cuda::backward(gpu, reached, grads)
    }
}

fn add_to(to: Option<&mut [f32]>, from: &[f32]) {
    if let Some(to) = to {
        vector::add(to, from);
    }
}

impl CrossAttention {
    /// `sums[q] += Σ rows of the pairs of query q`, `width` floats each.
    fn sum_by_query<'a>(&self, sums: &mut [f32], width: usize, row_of: impl Fn(usize) -> &'a [f32] + Sync) {
        let queries = sums.par_chunks_mut(width).enumerate().with_min_len(16);
        queries.for_each(|(q, sum)| {
            let pairs = self.pairs.by_left().of(q);
            simd!(pairs.iter().for_each(|&p| vector::add(sum, row_of(p as usize))));
        });
    }

    /// Adds to the sequence's gradient; returns the gradients of u per pair, grouped by sequence.
    fn attend_all_backward(
        &self,
        saved: &HostSaved,
        dcontext: &[f32],
        grads: &mut InputGrads,
        d: usize,
    ) -> Result<Buffer> {
        let width = self.heads * d;
        let by_sequence = self.pairs.by_right();
        let starts: Vec<usize> = std::iter::once(0)
            .chain(self.lengths().into_iter().scan(0, |at, length| {
                *at += length;
                Some(*at)
            }))
            .collect();
        let mut du_pairs = Buffer::scratch(self.pairs.len() * width);
        let mut unwanted = Buffer::default();
        let dsequence = match grads.get(SEQUENCE) {
            Some(dsequence) => dsequence,
            None => {
                unwanted = Buffer::zeros(saved.sequence.len());
                &mut unwanted
            }
        };
        let counts: Vec<usize> = (0..by_sequence.len()).map(|s| by_sequence.of(s).len() * width).collect();
        let work = split_by(dsequence, &self.sequences, d).into_par_iter();
        let work = work.zip(split_lengths(&mut du_pairs, &counts)).enumerate().with_min_len(8);
        work.for_each_init(Vec::new, |scratch, (s, (dsequence, du_pairs))| {
            let sequence = self.sequence(&saved.sequence, s as u32, d);
            for (&p, du) in by_sequence.of(s).iter().zip(du_pairs.chunks_exact_mut(width)) {
                let (p, q) = (p as usize, self.pairs.left()[p as usize] as usize);
                let probabilities = &saved.probabilities[starts[p]..starts[p + 1]];
                let attended = Attended { u: &saved.u[q * width..][..width], sequence, probabilities, d };
                simd!(attend_backward(attended, &dcontext[p * width..][..width], du, dsequence, scratch));
            }
        });
        drop(unwanted);
        Ok(du_pairs)
    }

    /// From the gradient of u to the query's and key's weights and to the queries.
    fn queries_backward(&self, saved: &HostSaved, du: &[f32], grads: &mut InputGrads) -> Result<()> {
        let a = &saved.attention;
        let (d, n, width) = (a.d, saved.queries.shape()[0], self.heads * a.d);
        let mut dprojected = Buffer::scratch(n * d);
        let du_rows = Mat::new(du, n, width);
        dprojected.par_chunks_mut(ROW_CHUNK * d).enumerate().try_for_each(|(chunk, dt)| {
            let rows = du_rows.rows(chunk * ROW_CHUNK, dt.len() / d);
            a.each_head(|h, c| {
                let keys = a.matrix(KEY).rows(h * c, c);
                matmul(&mut dt[h * c..], d, 0.0, a.scale(), rows.columns(h * d, d), keys.t())
            })
        })?;
        if let Some(dkeys) = grads.get(KEY) {
            let projected = Mat::new(&saved.projected, n, d);
            let mut sum = Buffer::zeros(d * d);
            a.each_head(|h, c| {
                let sum = &mut sum[h * c * d..][..c * d];
                linear_backward_weight(sum, d, projected.columns(h * c, c), du_rows.columns(h * d, d))
            })?;
            vector::add_scaled(dkeys, a.scale(), &sum);
        }
        // The key bias adds the same to all logits of a query, and softmax ignores that.
        grads.get(KEY_BIAS);
        let queries = Mat::new(saved.queries.data(), n, d);
        let dprojected_rows = Mat::new(&dprojected, n, d);
        if let Some(dweight) = grads.get(QUERY) {
            linear_backward_weight(dweight, d, dprojected_rows, queries)?;
        }
        if let Some(dbias) = grads.get(QUERY_BIAS) {
            add_column_sums(dbias, &dprojected);
        }
        if let Some(dqueries) = grads.get(QUERIES) {
            linear_backward_input(dqueries, dprojected_rows, a.matrix(QUERY))?;
        }
        Ok(())
    }
}
