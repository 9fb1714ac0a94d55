//! One query vector attends to a sequence, then output layer, residual and layer normalization (Eq. 5, 6, 9).
//!
//! query (nq, d), sequence rows (Σ lengths, d), pairs (query, sequence) -> (pairs, d). With head h of width c,
//! logits are `u_h·F_l` with `u_h = Wk_hᵀ(Wq q + bq)_h / √c`, up to a constant that leaves softmax, and the context
//! is `Wv_h (Σ a_l F_l) + bv_h`: keys and values are never formed, and the gradient of `bk` is exactly zero.

mod cpu;
mod cuda;

use rayon::prelude::*;

use super::multi_pool::split_by;
use super::{Pairing, arity, elsewhere};
use crate::autograd::{Cost, InputGrads, Op};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::ops::layer_norm::{layer_norm_backward, layer_norm_forward};
use crate::ops::linear::{ROW_CHUNK, Start, add_column_sums, linear, linear_backward_input, linear_backward_weight};
use crate::ops::matmul::{Mat, matmul, tile_flops};
use crate::tensor::{Indices, Ragged, Tensor};
pub use cpu::{Attended, attend, attend_backward};

const NAME: &str = "cross_attention";

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

/// Weights of one cross-attention, and its three steps; what the op and the prepared index share.
#[derive(Clone)]
pub struct AttentionWeights {
    heads: usize,
    eps: f32,
    d: usize,
    /// Inputs 2 to 11 of [`INPUTS`].
    weights: [Tensor; 10],
}

/// Result of [`AttentionWeights::finish`] with what its backward needs.
struct Finished {
    out: Buffer,
    /// Values after the value layer (pairs, d).
    values: Buffer,
    xhat: Buffer,
    rstd: Buffer,
}

impl AttentionWeights {
    /// Checks the shapes of the weights: (query, key, value, output) weight and bias in turn, gamma, beta.
    pub fn new(heads: usize, eps: f32, weights: &[&Tensor]) -> Result<AttentionWeights> {
        let &weights = arity::<10>(NAME, weights)?;
        let (d, _) = weights[0].matrix(NAME, INPUTS[2])?;
        if heads == 0 || d % heads != 0 {
            return Err(Error::shape(NAME, format!("{heads} heads do not divide the width {d}")));
        }
        for (i, tensor) in weights.iter().enumerate() {
            let axes = if i < 8 && i % 2 == 0 { 2 } else { 1 };
            tensor.expect(NAME, INPUTS[2 + i], &[d; 2][..axes])?;
        }
        Ok(AttentionWeights { heads, eps, d, weights: weights.map(Tensor::clone) })
    }

    fn matrix(&self, i: usize) -> Mat<'_> {
        Mat::new(self.weights[i].data(), self.d, self.d)
    }

    fn vector(&self, i: usize) -> &[f32] {
        self.weights[i].data()
    }

    /// Number of heads.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Width d.
    pub fn width(&self) -> usize {
        self.d
    }

    /// Epsilon of the layer normalization.
    pub fn eps(&self) -> f32 {
        self.eps
    }

    /// Weight (d, d) and bias of the value layer.
    pub fn value(&self) -> (Mat<'_>, &[f32]) {
        (self.matrix(4), self.vector(5))
    }

    /// Weight (d, d) and bias of the output layer.
    pub fn out(&self) -> (Mat<'_>, &[f32]) {
        (self.matrix(6), self.vector(7))
    }

    /// Gamma and beta of the layer normalization.
    pub fn norm(&self) -> (&[f32], &[f32]) {
        (self.vector(8), self.vector(9))
    }

    /// Width of one head.
    fn head(&self) -> usize {
        self.d / self.heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head() as f32).sqrt()
    }

    /// Logit vectors u (n, heads * d) of queries (n, d), where the queries lie.
    pub fn logit_vectors(&self, queries: &Tensor) -> Result<Tensor> {
        let (n, _) = queries.matrix(NAME, "queries")?;
        let shape = [n, self.heads * self.d];
        match queries.gpu() {
            Some(gpu) => Tensor::on_device(shape, self.logit_vectors_on(gpu, queries)?.0),
            None => Tensor::new(shape, self.logit_vectors_of(queries.data())?.0),
        }
    }

    /// The same on the host; beside them the projected queries (n, d).
    fn logit_vectors_of(&self, queries: &[f32]) -> Result<(Buffer, Buffer)> {
        let (d, c, n) = (self.d, self.head(), queries.len() / self.d);
        let mut projected = Buffer::scratch(n * d);
        linear(&mut projected, Mat::new(queries, n, d), self.matrix(0), Start::Bias(self.vector(1)))?;
        let mut u = Buffer::scratch(n * self.heads * d);
        let width = self.heads * d;
        u.par_chunks_mut(ROW_CHUNK * width).enumerate().try_for_each(|(chunk, u)| {
            let t = Mat::new(&projected, n, d).rows(chunk * ROW_CHUNK, u.len() / width);
            (0..self.heads).try_for_each(|h| {
                let keys = self.matrix(2).rows(h * c, c);
                matmul(&mut u[h * d..], width, 0.0, self.scale(), t.columns(h * c, c), keys)
            })
        })?;
        Ok((u, projected))
    }

    /// Value and output layer, residual and normalization of contexts (pairs, heads * d); `query_of` names the
    /// row of `queries` that each pair's residual comes from.
    fn finish(&self, context: &[f32], queries: &[f32], query_of: &[u32]) -> Result<Finished> {
        let (d, n) = (self.d, query_of.len());
        let [mut out, mut values, mut xhat] = [0; 3].map(|_| Buffer::scratch(n * d));
        let mut rstd = Buffer::scratch(n);
        let chunks = out.par_chunks_mut(ROW_CHUNK * d).zip(values.par_chunks_mut(ROW_CHUNK * d));
        let chunks = chunks.zip(xhat.par_chunks_mut(ROW_CHUNK * d)).zip(rstd.par_chunks_mut(ROW_CHUNK));
        chunks.enumerate().try_for_each(|(chunk, (((out, values), x), rstd))| {
            let rows = chunk * ROW_CHUNK..chunk * ROW_CHUNK + rstd.len();
            values.chunks_exact_mut(d).for_each(|row| row.copy_from_slice(self.vector(5)));
            self.each_head(|h, c| {
                let context = Mat::new(context, n, self.heads * d).rows(rows.start, rows.len()).columns(h * d, d);
                matmul(&mut values[h * c..], d, 1.0, 1.0, context, self.matrix(4).rows(h * c, c).t())
            })?;
            for (x, &q) in x.chunks_exact_mut(d).zip(&query_of[rows.clone()]) {
                x.copy_from_slice(self.vector(7));
                vector::add(x, &queries[q as usize * d..][..d]);
            }
            matmul(x, d, 1.0, 1.0, Mat::new(values, rows.len(), d), self.matrix(6).t())?;
            layer_norm_forward(x, out, rstd, self.vector(8), self.vector(9), self.eps);
            Ok(())
        })?;
        Ok(Finished { out, values, xhat, rstd })
    }

    fn each_head(&self, mut f: impl FnMut(usize, usize) -> Result<()>) -> Result<()> {
        (0..self.heads).try_for_each(|h| f(h, self.head()))
    }
}

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
    Device(Box<cuda::Saved>),
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

impl CrossAttention {
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
        let attention = 4 * rows * self.heads * d;
        let vectors = pairs * (4 * d * d + 3 * d);
        // The textbook projects the query, every key and value, and the output of each pair.
        let textbook_forward = textbook * (4 * d * d + 3 * d + 4 * length * d * d + 4 * length * d + 8 * d);
        let values = self.sequences.rows() * d + queries * d + pairs * d;
        let (heads, c) = (self.heads, d / self.heads.max(1));
        let of_all = |n: usize| [[n, d, d], [d, d, n]].map(|size| tile_flops(1, size));
        let of_heads = |n: usize| [[n, d, c], [n, c, d], [c, d, n]].map(|size| tile_flops(heads, size));
        // Query layer and logit vectors; value and output layer.
        let ([one, one_weight], [up, down, weight]) = (of_all(queries), of_heads(queries));
        let ([out, out_weight], [spread, value, value_weight]) = (of_all(pairs), of_heads(pairs));
        Cost {
            tiles_forward: one + up + value + out,
            tiles_backward: one + one_weight + down + weight + out + out_weight + spread + value_weight,
            forward: (queries * (4 * d * d + d) + attention + vectors + 8 * pairs * d) as u64,
            backward: (2 * queries * (4 * d * d + d) + 2 * attention + 2 * vectors + 12 * pairs * d) as u64,
            textbook_forward: textbook_forward as u64,
            textbook_backward: (2 * textbook_forward) as u64,
            forward_bytes: (4 * (values + 4 * d * d + 6 * d)) as u64,
            backward_bytes: (4 * (2 * values + 8 * d * d + 12 * d)) as u64,
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let &[queries, sequence, ref weights @ ..] = arity::<12>(NAME, inputs)?;
        let attention = AttentionWeights::new(self.heads, self.eps, weights)?;
        let d = attention.d;
        queries.expect(NAME, INPUTS[0], &[self.pairs.by_left().len(), d])?;
        sequence.expect(NAME, INPUTS[1], &[self.sequences.rows(), d])?;
        if self.pairs.by_right().len() != self.sequences.len() {
            return Err(Error::shape(NAME, "pairs and sequences differ in number"));
        }
        if let Some(gpu) = queries.gpu() {
            let (out, saved) = self.forward_on(gpu, attention, queries, sequence)?;
            return Ok((out, Saved::Device(Box::new(saved))));
        }
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
            (Saved::Device(saved), Some(gpu)) => return self.backward_on(gpu, *saved, grad, grads),
            _ => return Err(elsewhere(NAME)),
        };
        let a = &saved.attention;
        let (d, n, width) = (a.d, self.pairs.len(), self.heads * a.d);

        // Normalization, residual and output layer.
        let mut dx = Buffer::scratch(n * d);
        let norm = layer_norm_backward(&mut dx, grad.data(), &saved.xhat, &saved.rstd, a.vector(8));
        add_to(grads.get(10), &norm.gamma);
        add_to(grads.get(11), &norm.beta);
        if let Some(dqueries) = grads.get(0) {
            self.sum_by_query(dqueries, d, |p| &dx[p * d..][..d]);
        }
        if let Some(dbias) = grads.get(9) {
            add_column_sums(dbias, &dx);
        }
        let dx_rows = Mat::new(&dx, n, d);
        if let Some(dweight) = grads.get(8) {
            linear_backward_weight(dweight, d, dx_rows, Mat::new(&saved.values, n, d))?;
        }
        let mut dvalues = Buffer::zeros(n * d);
        linear_backward_input(&mut dvalues, dx_rows, a.matrix(6))?;

        // Value layer.
        if let Some(dbias) = grads.get(7) {
            add_column_sums(dbias, &dvalues);
        }
        let (dvalues, context) = (Mat::new(&dvalues, n, d), Mat::new(&saved.context, n, width));
        if let Some(dweight) = grads.get(6) {
            a.each_head(|h, c| {
                let dweight = &mut dweight[h * c * d..][..c * d];
                linear_backward_weight(dweight, d, dvalues.columns(h * c, c), context.columns(h * d, d))
            })?;
        }
        let mut dcontext = Buffer::scratch(n * width);
        dcontext.par_chunks_mut(ROW_CHUNK * width).enumerate().try_for_each(|(chunk, dcontext)| {
            let rows = dvalues.rows(chunk * ROW_CHUNK, dcontext.len() / width);
            a.each_head(|h, c| {
                matmul(&mut dcontext[h * d..], width, 0.0, 1.0, rows.columns(h * c, c), a.matrix(4).rows(h * c, c))
            })
        })?;

        // AttentionWeights over the sequences, and from there to the queries.
        let du_pairs = self.attend_all_backward(&saved, &dcontext, grads, d)?;
        let by_sequence = self.pairs.by_right();
        let mut du = Buffer::zeros(saved.u.len());
        self.sum_by_query(&mut du, width, |p| &du_pairs[by_sequence.rank(p as u32) * width..][..width]);
        self.queries_backward(&saved, &du, grads)
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
        let dsequence = match grads.get(1) {
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
                let keys = a.matrix(2).rows(h * c, c);
                matmul(&mut dt[h * c..], d, 0.0, a.scale(), rows.columns(h * d, d), keys.t())
            })
        })?;
        if let Some(dkeys) = grads.get(4) {
            let projected = Mat::new(&saved.projected, n, d);
            let mut sum = Buffer::zeros(d * d);
            a.each_head(|h, c| {
                let sum = &mut sum[h * c * d..][..c * d];
                linear_backward_weight(sum, d, projected.columns(h * c, c), du_rows.columns(h * d, d))
            })?;
            vector::add_scaled(dkeys, a.scale(), &sum);
        }
        // The key bias adds the same to all logits of a query, and softmax ignores that.
        grads.get(5);
        let queries = Mat::new(saved.queries.data(), n, d);
        let dprojected_rows = Mat::new(&dprojected, n, d);
        if let Some(dweight) = grads.get(2) {
            linear_backward_weight(dweight, d, dprojected_rows, queries)?;
        }
        if let Some(dbias) = grads.get(3) {
            add_column_sums(dbias, &dprojected);
        }
        if let Some(dqueries) = grads.get(0) {
            linear_backward_input(dqueries, dprojected_rows, a.matrix(0))?;
        }
        Ok(())
    }
}
