//! MEL-HI (Zhang et al. 2021): attention from a text to its tokens and from these to the image, whose share is gated.
//!
//! From the paper: attention within and between modalities, and that an image which does not fit its text is held back.
//! Assumed: a gate of each value in place of its two stages of filtering; one set of weights for both sides.

use crate::autograd::Var;
use crate::error::Result;
use crate::model::batch::{Batch, Side};
use crate::model::config::ModelConfig;
use crate::model::layers::Layers;
use crate::model::network::{Network, Noise};
use crate::model::params::Plan;
use crate::ops::{Activation, Operand};

/// See the module's documentation.
pub struct MelHi;

impl Network for MelHi {
    fn name(&self) -> &'static str {
        "mel-hi"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["d", "dropout", "heads", "layer_norm_eps"]
    }

    fn scores(&self, _: &ModelConfig) -> Vec<&'static str> {
        vec!["dot"]
    }

    fn parameters(&self, config: &ModelConfig, plan: &mut Plan) {
        let (d, widths) = (config.d, config.widths);
        plan.linear("text", widths.text, d);
        plan.linear("image", widths.image, d);
        plan.linear("text_global", widths.text_global, d);
        plan.attention("text_attention", d);
        plan.attention("image_attention", d);
        plan.linear("gate", 2 * d, d);
    }

    fn forward(&self, layers: &Layers, batch: &Batch, noise: Option<Noise>) -> Result<Var> {
        let fused = |side: &Side, stream: u32| {
            let tokens = layers.linear_of("text", &side.text.tokens, None, (noise, stream))?;
            let patches = layers.linear_of("image", &side.image.tokens, None, (noise, stream + 1))?;
            let query = layers.linear_of("text_global", &side.text.global, None, (noise, stream + 2))?;
            let text = layers.own_attention("text_attention", &query, (&tokens, &side.text.sequences))?;
            let image = layers.own_attention("image_attention", &text, (&patches, &side.image.sequences))?;
            let gate = layers.linear("gate", &[&text, &image], Some(Activation::Sigmoid))?;
            layers.sum(&[(1.0, &text), (1.0, &layers.multiply(&image, &gate)?)])
        };
        let (mention, entity) = (fused(&batch.mention, 0)?, fused(&batch.entity, 3)?);
        layers.dot(&batch.pairs, Operand::Item, &mention, &entity)
    }
}
