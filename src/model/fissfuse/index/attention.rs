//! Cross-attention of prepared pairs: what follows the weighted sum of rows is folded where that saves work.

use crate::device::cpu::{Buffer, vector};
use crate::error::Result;
use crate::ops::AttentionWeights;
use crate::ops::layer_norm::layer_norm_forward;
use crate::ops::linear::Dense;
use crate::ops::matmul::{Mat, matmul};

/// What turns a sum of rows into an attended vector: value layer, output layer, residual, normalization.
#[derive(Debug)]
pub(super) struct Finish {
    /// Output and value layer of each head as one matrix; the first head's adds the biases of all. Weights of one query sum to
    /// 1, so these may be applied to the rows instead of to their sum.
    pub folded: Vec<Dense>,
    /// The layers themselves, if there are several heads: folded, each head would cost as much as the output layer of all.
    pub apart: Option<Apart>,
    d: usize,
    eps: f32,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

/// Value layers of several heads, and the output layer.
#[derive(Debug)]
pub(super) struct Apart {
    pub values: Vec<Dense>,
    pub out: Dense,
}

impl Finish {
    pub fn new(attention: &AttentionWeights) -> Result<Finish> {
        let (d, heads) = (attention.width(), attention.heads());
        let (value, value_bias) = attention.value();
        let (out, out_bias) = attention.out();
        let c = d / heads;
        let mut folded = Vec::with_capacity(heads);
        for h in 0..heads {
            let (mut weight, mut bias) = (Buffer::zeros(d * d), vec![0.0; d]);
            matmul(&mut weight, d, 0.0, 1.0, out.columns(h * c, c), value.rows(h * c, c))?;
            if h == 0 {
                bias.copy_from_slice(out_bias);
                matmul(&mut bias, 1, 1.0, 1.0, out, Mat::new(value_bias, d, 1))?;
            }
            folded.push(Dense::new(Mat::new(&weight, d, d), bias));
        }
        let head = |h: usize| Dense::new(value.rows(h * c, c), value_bias[h * c..][..c].to_vec());
        let apart = (heads > 1)
            .then(|| Apart { values: (0..heads).map(head).collect(), out: Dense::new(out, out_bias.to_vec()) });
        let (gamma, beta) = attention.norm();
        Ok(Finish { folded, apart, d, eps: attention.eps(), gamma: gamma.to_vec(), beta: beta.to_vec() })
    }

    /// Value and output layer of sums of rows: contexts (n, heads * d) -> (n, d).
    pub fn layers(&self, contexts: &[f32], n: usize) -> Result<Buffer> {
        let d = self.d;
        let mut x = Buffer::scratch(n * d);
        let Some(Apart { values, out }) = &self.apart else {
            self.folded[0].forward_into(&mut x, contexts)?;
            return Ok(x);
        };
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
        Ok(x)
    }

    /// Residual, which `residual` gives row by row, and normalization of x (n, d), which is overwritten.
    pub fn normalize<'a>(&self, mut x: Buffer, residual: impl Fn(usize) -> &'a [f32]) -> Buffer {
        let n = x.len() / self.d;
        x.chunks_exact_mut(self.d).enumerate().for_each(|(i, row)| vector::add(row, residual(i)));
        let (mut out, mut rstd) = (Buffer::scratch(n * self.d), vec![0.0; n]);
        layer_norm_forward(&mut x, &mut out, &mut rstd, &self.gamma, &self.beta, self.eps);
        out
    }
}
