//! The weights of a cross-attention and what is computed with them.

use rayon::prelude::*;

use super::cuda::logit_vectors;
use super::{BETA, GAMMA, INPUTS, KEY, NAME, OUT, OUT_BIAS, QUERY, QUERY_BIAS, VALUE, VALUE_BIAS, WEIGHTS};
use crate::device::cpu::{Buffer, vector};
use crate::error::{Error, Result};
use crate::ops::arity;
use crate::ops::layer_norm::layer_norm_forward;
use crate::ops::linear::{ROW_CHUNK, Start, linear};
use crate::ops::matmul::{Mat, matmul_by_rows};
use crate::tensor::Tensor;

/// Weights of one cross-attention, and its three steps; what the op and the prepared index share.
#[derive(Clone)]
pub struct AttentionWeights {
    pub(super) heads: usize,
    pub(super) eps: f32,
    pub(super) d: usize,
    /// The inputs from [`WEIGHTS`] on.
    weights: [Tensor; 10],
}

/// Result of [`AttentionWeights::finish`] with what its backward needs.
pub(super) struct Finished {
    pub out: Buffer,
    /// Values after the value layer (pairs, d).
    pub values: Buffer,
    pub xhat: Buffer,
    pub rstd: Buffer,
}

impl AttentionWeights {
    /// Checks the shapes of the weights: (query, key, value, output) weight and bias in turn, gamma, beta.
    pub fn new(heads: usize, eps: f32, weights: &[&Tensor]) -> Result<AttentionWeights> {
        let &weights = arity::<10>(NAME, weights)?;
        let (d, _) = weights[0].matrix(NAME, INPUTS[QUERY])?;
        if heads == 0 || d % heads != 0 {
            return Err(Error::shape(NAME, format!("{heads} heads do not divide the width {d}")));
        }
        for (i, tensor) in weights.iter().enumerate() {
            let axes = if i < 8 && i % 2 == 0 { 2 } else { 1 };
            tensor.expect(NAME, INPUTS[WEIGHTS + i], &[d; 2][..axes])?;
        }
        Ok(AttentionWeights { heads, eps, d, weights: weights.map(Tensor::clone) })
    }

    /// The weight that is this input.
    pub(super) fn weight(&self, input: usize) -> &Tensor {
        &self.weights[input - WEIGHTS]
    }

    pub(super) fn matrix(&self, input: usize) -> Mat<'_> {
        Mat::new(self.weight(input).data(), self.d, self.d)
    }

    pub(super) fn vector(&self, input: usize) -> &[f32] {
        self.weight(input).data()
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
        (self.matrix(VALUE), self.vector(VALUE_BIAS))
    }

    /// Weight (d, d) and bias of the output layer.
    pub fn out(&self) -> (Mat<'_>, &[f32]) {
        (self.matrix(OUT), self.vector(OUT_BIAS))
    }

    /// Gamma and beta of the layer normalization.
    pub fn norm(&self) -> (&[f32], &[f32]) {
        (self.vector(GAMMA), self.vector(BETA))
    }

    /// Width of one head.
    pub(super) fn head(&self) -> usize {
        self.d / self.heads
    }

    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.head() as f32).sqrt()
    }

    /// Logit vectors u (n, heads * d) of queries (n, d) of several attentions, all where the first queries lie.
    pub fn logit_vectors(of: &[(&AttentionWeights, &Tensor)]) -> Result<Vec<Tensor>> {
        let shapes = of.iter().map(|(weights, queries)| {
            let (n, _) = queries.matrix(NAME, "queries")?;
            Ok([n, weights.heads * weights.d])
        });
        let shapes = shapes.collect::<Result<Vec<_>>>()?;
        match of.first().and_then(|(_, queries)| queries.gpu()) {
            Some(gpu) => {
                let vectors = logit_vectors(gpu, of)?.into_iter();
                shapes.into_iter().zip(vectors).map(|(shape, (u, _))| Tensor::on_device(shape, u)).collect()
            }
            None => {
                let each = of.iter().zip(shapes);
                each.map(|((weights, queries), shape)| Tensor::new(shape, weights.logit_vectors_of(queries.data())?.0))
                    .collect()
            }
        }
    }

    /// The same on the host; beside them the projected queries (n, d).
    pub(super) fn logit_vectors_of(&self, queries: &[f32]) -> Result<(Buffer, Buffer)> {
        let (d, c, n) = (self.d, self.head(), queries.len() / self.d);
        let mut projected = Buffer::scratch(n * d);
        linear(&mut projected, Mat::new(queries, n, d), self.matrix(QUERY), Start::Bias(self.vector(QUERY_BIAS)))?;
        let mut u = Buffer::scratch(n * self.heads * d);
        let width = self.heads * d;
        u.par_chunks_mut(ROW_CHUNK * width).enumerate().try_for_each(|(chunk, u)| {
            let t = Mat::new(&projected, n, d).rows(chunk * ROW_CHUNK, u.len() / width);
            (0..self.heads).try_for_each(|h| {
                let keys = self.matrix(KEY).rows(h * c, c);
                matmul_by_rows(&mut u[h * d..], width, 0.0, self.scale(), t.columns(h * c, c), keys)
            })
        })?;
        Ok((u, projected))
    }

    /// Value and output layer, residual and normalization of contexts (pairs, heads * d); `query_of` names the
    /// row of `queries` that each pair's residual comes from.
    pub(super) fn finish(&self, context: &[f32], queries: &[f32], query_of: &[u32]) -> Result<Finished> {
        let (d, n) = (self.d, query_of.len());
        let [mut out, mut values, mut xhat] = [0; 3].map(|_| Buffer::scratch(n * d));
        let mut rstd = Buffer::scratch(n);
        let chunks = out.par_chunks_mut(ROW_CHUNK * d).zip(values.par_chunks_mut(ROW_CHUNK * d));
        let chunks = chunks.zip(xhat.par_chunks_mut(ROW_CHUNK * d)).zip(rstd.par_chunks_mut(ROW_CHUNK));
        chunks.enumerate().try_for_each(|(chunk, (((out, values), x), rstd))| {
            let rows = chunk * ROW_CHUNK..chunk * ROW_CHUNK + rstd.len();
            values.chunks_exact_mut(d).for_each(|row| row.copy_from_slice(self.vector(VALUE_BIAS)));
            self.each_head(|h, c| {
                let context = Mat::new(context, n, self.heads * d).rows(rows.start, rows.len()).columns(h * d, d);
                matmul_by_rows(&mut values[h * c..], d, 1.0, 1.0, context, self.matrix(VALUE).rows(h * c, c).t())
            })?;
            for (x, &q) in x.chunks_exact_mut(d).zip(&query_of[rows.clone()]) {
                x.copy_from_slice(self.vector(OUT_BIAS));
                vector::add(x, &queries[q as usize * d..][..d]);
            }
            matmul_by_rows(x, d, 1.0, 1.0, Mat::new(values, rows.len(), d), self.matrix(OUT).t())?;
            layer_norm_forward(x, out, rstd, self.vector(GAMMA), self.vector(BETA), self.eps);
            Ok(())
        })?;
        Ok(Finished { out, values, xhat, rstd })
    }

    pub(super) fn each_head(&self, mut f: impl FnMut(usize, usize) -> Result<()>) -> Result<()> {
        (0..self.heads).try_for_each(|h| f(h, self.head()))
    }
}
