//! Cross-attention of prepared pairs: the context is at hand, what follows it is folded where that saves work.

use crate::device::cpu::{Buffer, vector};
use crate::error::Result;
use crate::ops::AttentionWeights;
use crate::ops::layer_norm::layer_norm_forward;
use crate::ops::linear::Dense;
use crate::ops::matmul::{Mat, matmul};

/// From contexts to attended vectors: value layer, output layer, residual, normalization.
#[derive(Debug)]
pub(super) struct Finish {
    pub layers: Layers,
    d: usize,
    eps: f32,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

#[derive(Debug)]
pub(super) enum Layers {
    /// One head: output and value layer are one matrix.
    Folded(Dense),
    /// Several heads: folded, each would cost as much as the output layer of all.
    Apart { values: Vec<Dense>, out: Dense },
}

impl Finish {
    pub fn new(attention: &AttentionWeights) -> Result<Finish> {
        let d = attention.width();
        let (value, value_bias) = attention.value();
        let (out, out_bias) = attention.out();
        let heads = attention.heads();
        let layers = if heads == 1 {
            let (mut folded, mut bias) = (Buffer::zeros(d * d), out_bias.to_vec());
            matmul(&mut folded, d, 0.0, 1.0, out, value)?;
            matmul(&mut bias, 1, 1.0, 1.0, out, Mat::new(value_bias, d, 1))?;
            Layers::Folded(Dense::new(Mat::new(&folded, d, d), bias))
        } else {
            let c = d / heads;
            let head = |h: usize| Dense::new(value.rows(h * c, c), value_bias[h * c..][..c].to_vec());
            Layers::Apart { values: (0..heads).map(head).collect(), out: Dense::new(out, out_bias.to_vec()) }
        };
        let (gamma, beta) = attention.norm();
        Ok(Finish { layers, d, eps: attention.eps(), gamma: gamma.to_vec(), beta: beta.to_vec() })
    }

    /// contexts (n, heads * d) and residuals, which `residual` gives row by row -> (n, d)
    pub fn run<'a>(&self, contexts: &[f32], n: usize, residual: impl Fn(usize) -> &'a [f32]) -> Result<Buffer> {
        let d = self.d;
        let mut x = Buffer::scratch(n * d);
        match &self.layers {
            Layers::Folded(dense) => dense.forward_into(&mut x, contexts)?,
            Layers::Apart { values, out } => {
                let (heads, c) = (values.len(), d / values.len());
                let (mut all, mut rows) = (Buffer::scratch(n * d), Buffer::scratch(n * d));
                let mut one = Buffer::scratch(n * c);
                for (h, value) in values.iter().enumerate() {
                    for (row, context) in rows.chunks_exact_mut(d).zip(contexts.chunks_exact(heads * d)) {
                        row.copy_from_slice(&context[h * d..][..d]);
                    }
                    value.forward_into(&mut one, &rows)?;
                    for (to, from) in all.chunks_exact_mut(d).zip(one.chunks_exact(c)) {
                        to[h * c..][..c].copy_from_slice(from);
                    }
                }
                out.forward_into(&mut x, &all)?;
            }
        }
        x.chunks_exact_mut(d).enumerate().for_each(|(i, row)| vector::add(row, residual(i)));
        let (mut out, mut rstd) = (Buffer::scratch(n * d), vec![0.0; n]);
        layer_norm_forward(&mut x, &mut out, &mut rstd, &self.gamma, &self.beta, self.eps);
        Ok(out)
    }
}
