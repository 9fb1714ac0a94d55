//! The head of the vision tower: one learned query attends to all patches (multi-head attention pooling).

use rayon::prelude::*;

use crate::device::cpu::{simd, vector};
use crate::encoder::loader::Loader;
use crate::encoder::transformer::Sizes;
use crate::error::Result;
use crate::ops::layer_norm::Norm;
use crate::ops::linear::Linear;
use crate::tensor::{Compute, Sequences, Tensor};

/// Since the query is the same for all images, so is, per head, what a patch's state is multiplied by to be its logit: keys are
/// never formed, and values only of the patches' weighted sums.
pub struct PoolingHead {
    heads: usize,
    /// Logits of a patch (heads).
    logits: Linear,
    values: Linear,
    out: Linear,
    norm: Norm,
    up: Linear,
    down: Linear,
    compute: Compute,
}

impl PoolingHead {
    /// Reads the head.
    pub fn read(loader: &Loader, sizes: Sizes, compute: &Compute) -> Result<PoolingHead> {
        let Sizes { width, inner, heads, eps, activation } = sizes;
        let probe = loader.tensor("probe", &[1, 1, width])?;
        let weight = loader.tensor("attention.in_proj_weight", &[3 * width, width])?;
        let bias = loader.tensor("attention.in_proj_bias", &[3 * width])?;
        let [query_weight, key_weight, value_weight] =
            [0, 1, 2].map(|third| &weight.data()[third * width * width..][..width * width]);
        let scale = 1.0 / (heads.width as f32).sqrt();
        let query: Vec<f32> = (query_weight.chunks_exact(width).zip(bias.data()))
            .map(|(row, bias)| scale * (vector::dot(row, probe.data()) + bias))
            .collect();
        // A key's bias adds the same to the logits of all patches, which softmax does not see.
        let mut by_state = vec![0.0; heads.count * width];
        for (i, (query, row)) in query.iter().zip(key_weight.chunks_exact(width)).enumerate() {
            let sum = &mut by_state[i / heads.width * width..][..width];
            sum.iter_mut().zip(row).for_each(|(sum, key)| *sum += query * key);
        }
        Ok(PoolingHead {
            heads: heads.count,
            logits: Linear::new(&by_state, heads.count, None, compute)?.wide(),
            values: Linear::new(value_weight, width, Some(bias.data()[2 * width..].to_vec()), compute)?.wide(),
            out: loader.dense("attention.out_proj", width, width)?.wide(),
            norm: loader.norm("layernorm", width, eps)?,
            up: loader.dense("mlp.fc1", inner, width)?.with(activation),
            down: loader.dense("mlp.fc2", width, inner)?,
            compute: compute.clone(),
        })
    }

    /// The logits of patches (patches, heads).
    pub fn logits(&self, patches: &Tensor) -> Result<Vec<f32>> {
        Ok(self.logits.forward(patches)?.into_host()?.to_vec())
    }

    /// A vector for each image of patches' states on the host (patches, width) and their logits.
    pub fn forward(&self, patches: &[f32], logits: &[f32], images: &Sequences) -> Result<Tensor> {
        let (heads, width) = (self.heads, self.values.outputs());
        let ranges: Vec<_> = images.ranges().collect();
        let mut sums = vec![0.0; ranges.len() * heads * width];
        sums.par_chunks_exact_mut(width).enumerate().for_each(|(i, sum)| {
            let (range, head) = (ranges[i / heads].clone(), i % heads);
            let mut weights: Vec<f32> = range.clone().map(|patch| logits[patch * heads + head]).collect();
            simd!({
                vector::softmax(&mut weights);
                for (weight, patch) in weights.iter().zip(patches[range.start * width..].chunks_exact(width)) {
                    vector::add_scaled(sum, *weight, patch);
                }
            });
        });
        let values = self.values.forward(&Tensor::of_rows(sums, width)?.to(self.compute.gpu.as_ref())?)?.into_host()?;
        // Of each head the outputs that are its own.
        let own = width / heads;
        let attended = values.chunks_exact(width).enumerate().flat_map(|(i, row)| &row[i % heads * own..][..own]);
        let attended =
            Tensor::of_rows(attended.copied().collect::<Vec<f32>>(), width)?.to(self.compute.gpu.as_ref())?;
        let mut x = self.out.forward(&attended)?;
        let inner = self.up.forward(&self.norm.forward(&x)?)?;
        self.down.forward_onto(&inner, &mut x)?;
        Ok(x)
    }
}
