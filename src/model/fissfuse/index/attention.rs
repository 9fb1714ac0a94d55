//! Cross-attention of prepared pairs: what follows the weighted sum of rows is folded into one product.
//!
//! Normalization divides a vector by its deviation, and what a layer makes of the vector may be divided as well:
//! W (γ x̂ + β) = (W γ (x - mean)) / σ + W β. So one product gives both the vector and what Eq. 7's hidden layer makes of it.

use std::sync::Arc;

use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::ops::AttentionWeights;
use crate::ops::linear::Dense;
use crate::ops::matmul::{Mat, matmul, matmul_by_rows};

/// What turns a sum of rows into an attended vector: value layer, output layer, residual, normalization.
#[derive(Debug)]
pub(super) struct Finish {
    /// The layers as they are.
    pub layers: Layers,
    /// Eq. 5: of sums of an entity's rows, from their heads' values on if there are several.
    pub mention: Direction,
    /// Eq. 6: of a mention's rows, head by head. Weights of one query sum to 1, so layers may be applied to the rows instead of to
    /// their sum.
    pub entity: Arc<Direction>,
    d: usize,
    eps: f32,
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

/// Value and output layer.
#[derive(Debug)]
pub(super) struct Layers {
    /// Those of each head as one matrix; the first head's adds the biases of all.
    pub folded: Vec<Dense>,
    /// The layers themselves, if there are several heads: folded, each head would cost as much as the output layer of all.
    pub apart: Option<Apart>,
}

/// Value layers of several heads, and the output layer.
#[derive(Debug)]
pub(super) struct Apart {
    pub values: Vec<Dense>,
    pub out: Dense,
}

/// Layers of one direction: from d values to a vector less its mean, and to what Eq. 7's hidden layer makes of that, scaled by
/// normalization's γ, behind it.
#[derive(Debug)]
pub(super) struct Direction {
    /// Of each head (d, width).
    pub weights: Vec<Buffer>,
    /// Of all heads (width).
    bias: Vec<f32>,
    /// Eq. 7's hidden layer scaled by γ, transposed (d, hidden), if that score is there.
    scaled: Option<Buffer>,
    d: usize,
}

impl Layers {
    fn new(attention: &AttentionWeights) -> Result<Layers> {
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
        Ok(Layers { folded, apart })
    }
}

impl Direction {
    /// From layers of one output each; `hidden` (hidden, d) is what Eq. 7 has for this modality, if that score is there.
    fn new<'a>(layers: impl Iterator<Item = &'a Dense>, gamma: &[f32], hidden: Option<Mat>) -> Result<Direction> {
        let d = gamma.len();
        let scaled = hidden.map(|hidden| {
            let outputs = hidden.size().0;
            let mut scaled = Buffer::zeros(d * outputs);
            for (i, (row, gamma)) in scaled.chunks_exact_mut(outputs).zip(gamma).enumerate() {
                row.iter_mut().enumerate().for_each(|(o, to)| *to = hidden.at(o, i) * gamma);
            }
            scaled
        });
        let mut direction = Direction { weights: Vec::new(), bias: Vec::new(), scaled, d };
        let width = direction.width();
        direction.bias = vec![0.0; width];
        for layer in layers {
            direction.weights.push(direction.extended(layer.transposed())?);
            let bias = direction.extended(layer.bias())?;
            vector::add(&mut direction.bias, &bias);
        }
        Ok(direction)
    }

    /// Values of a row: the vector's, and the hidden layer's.
    pub fn width(&self) -> usize {
        self.d + self.scaled.as_ref().map_or(0, |scaled| scaled.len() / self.d)
    }

    /// Rows (n, d) less the mean of each, and what the hidden layer makes of them behind (n, width); a row has the same bits
    /// whichever others there are.
    fn extended(&self, rows: &[f32]) -> Result<Buffer> {
        let (d, width, n) = (self.d, self.width(), rows.len() / self.d);
        let (mut centred, mut all) = (Buffer::scratch(n * d), Buffer::scratch(n * width));
        centred.copy_from_slice(rows);
        simd!({
            for (row, all) in centred.chunks_exact_mut(d).zip(all.chunks_exact_mut(width)) {
                let mean = vector::sum(row) / d as f32;
                row.iter_mut().for_each(|x| *x -= mean);
                all[..d].copy_from_slice(row);
            }
        });
        if let Some(scaled) = &self.scaled {
            let (centred, scaled) = (Mat::new(&centred, n, d), Mat::new(scaled, d, width - d));
            matmul_by_rows(&mut all[d..], width, 0.0, 1.0, centred, scaled)?;
        }
        Ok(all)
    }

    /// What is added to a product with the weights: of residuals (n, d), and of the biases (n, width).
    pub fn residuals(&self, queries: &[f32]) -> Result<Buffer> {
        let mut all = self.extended(queries)?;
        simd!(all.chunks_exact_mut(self.width()).for_each(|row| vector::add(row, &self.bias)));
        Ok(all)
    }

    /// Of each residual (n, d) what [`Self::residuals`] has behind the vector's values (n, width - d).
    pub fn hidden(&self, queries: &[f32]) -> Result<Buffer> {
        let (d, width) = (self.d, self.width());
        let all = self.residuals(queries)?;
        let mut hidden = Buffer::scratch(all.len() / width * (width - d));
        for (to, row) in hidden.chunks_exact_mut((width - d).max(1)).zip(all.chunks_exact(width)) {
            to.copy_from_slice(&row[d..]);
        }
        Ok(hidden)
    }

    /// [`Self::residuals`] from what [`Self::hidden`] gave of them.
    pub fn residuals_of(&self, queries: &[f32], hidden: &[f32]) -> Buffer {
        let (d, width) = (self.d, self.width());
        let mut all = Buffer::scratch(queries.len() / d * width);
        simd!({
            for (i, (row, query)) in all.chunks_exact_mut(width).zip(queries.chunks_exact(d)).enumerate() {
                let (x, more) = row.split_at_mut(d);
                let mean = vector::sum(query) / d as f32;
                for ((x, query), bias) in x.iter_mut().zip(query).zip(&self.bias) {
                    *x = (query - mean) + bias;
                }
                let outputs = more.len();
                more.copy_from_slice(&hidden[i * outputs..][..outputs]);
            }
        });
        all
    }
}

impl Finish {
    /// From a modality's attention, and what Eq. 7's hidden layers of mention and entity have for it (hidden, d).
    pub fn new(attention: &AttentionWeights, hidden: Option<[Mat; 2]>) -> Result<Finish> {
        let layers = Layers::new(attention)?;
        let (gamma, beta) = attention.norm();
        let [of_mention, of_entity] = hidden.map_or([None, None], |hidden| hidden.map(Some));
        let last = layers.apart.as_ref().map_or(&layers.folded[0], |apart| &apart.out);
        let mention = Direction::new([last].into_iter(), gamma, of_mention)?;
        let entity = Arc::new(Direction::new(layers.folded.iter(), gamma, of_entity)?);
        let (gamma, beta) = (gamma.to_vec(), beta.to_vec());
        Ok(Finish { layers, mention, entity, d: attention.width(), eps: attention.eps(), gamma, beta })
    }

    /// Eq. 5's layers of n sums of rows (n, heads * d) -> (n, width).
    pub fn mentions(&self, contexts: &[f32], n: usize) -> Result<Buffer> {
        let (d, width) = (self.d, self.mention.width());
        let mut rows = Buffer::scratch(n * width);
        let weight = Mat::new(&self.mention.weights[0], d, width);
        let Some(Apart { values, .. }) = &self.layers.apart else {
            matmul(&mut rows, width, 0.0, 1.0, Mat::new(contexts, n, d), weight)?;
            return Ok(rows);
        };
        let (heads, c) = (values.len(), d / values.len());
        let (mut all, mut of_head) = (Buffer::scratch(n * d), Buffer::scratch(n * d));
        let mut one = Buffer::scratch(n * c);
        for (h, value) in values.iter().enumerate() {
            for (row, context) in of_head.chunks_exact_mut(d).zip(contexts.chunks_exact(heads * d)) {
                row.copy_from_slice(&context[h * d..][..d]);
            }
            value.forward_into(&mut one, &of_head)?;
            for (to, from) in all.chunks_exact_mut(d).zip(one.chunks_exact(c)) {
                to[h * c..][..c].copy_from_slice(from);
            }
        }
        matmul(&mut rows, width, 0.0, 1.0, Mat::new(&all, n, d), weight)?;
        Ok(rows)
    }

    /// Adds residuals (mentions, width) and (candidates, width) to the rows of all pairs, normalizes the first d values of each,
    /// and gives the dot product of each pair. What the hidden layers made of them is added to `hidden`, divided alike.
    pub fn normalize(
        &self,
        rows: [&mut [f32]; 2],
        residuals: [&[f32]; 2],
        mut hidden: Option<[&mut [f32]; 2]>,
    ) -> Vec<f32> {
        let (d, width) = (self.d, self.mention.width());
        let (outputs, candidates) = (width - d, residuals[1].len() / width);
        let mut scores = Vec::with_capacity(rows[0].len() / width);
        simd!({
            let [ours, theirs] = rows.map(|rows| rows.chunks_exact_mut(width));
            for (pair, (ours, theirs)) in ours.zip(theirs).enumerate() {
                let of = [pair / candidates, pair % candidates];
                for (side, row) in [&mut *ours, &mut *theirs].into_iter().enumerate() {
                    vector::add(row, &residuals[side][of[side] * width..][..width]);
                    let (x, more) = row.split_at_mut(d);
                    let rstd = 1.0 / (vector::squares_about(x, 0.0) / d as f32 + self.eps).sqrt();
                    for ((x, gamma), beta) in x.iter_mut().zip(&self.gamma).zip(&self.beta) {
                        *x = (gamma * rstd).mul_add(*x, *beta);
                    }
                    if let Some(hidden) = &mut hidden {
                        vector::add_scaled(&mut hidden[side][pair * outputs..][..outputs], rstd, more);
                    }
                }
                scores.push(vector::dot(&ours[..d], &theirs[..d]));
            }
        });
        scores
    }
}
