//! BERT (Devlin et al. 2019): texts alone, both sides by one encoder.
//!
//! From the paper: a text's vector is that of its first token (with CLIP's features, of its last). Assumed: a trained linear
//! layer stands for the fine-tuning of the encoder, and the dot product is scaled as in attention.

use super::SETTINGS;
use crate::autograd::Var;
use crate::error::Result;
use crate::model::batch::Batch;
use crate::model::config::ModelConfig;
use crate::model::layers::Layers;
use crate::model::network::{Network, Noise, Reads};
use crate::model::params::Plan;
use crate::ops::Operand;

/// See the module's documentation.
pub struct Bert;

impl Network for Bert {
    fn name(&self) -> &'static str {
        "bert"
    }

    fn settings(&self) -> &'static [&'static str] {
        SETTINGS
    }

    fn reads(&self, _: &ModelConfig) -> Reads {
        Reads { text: true, image: false }
    }

    fn scores(&self, _: &ModelConfig) -> Vec<&'static str> {
        vec!["text"]
    }

    fn parameters(&self, config: &ModelConfig, plan: &mut Plan) {
        plan.linear("text", config.widths.text_global, config.d);
    }

    fn forward(&self, layers: &Layers, batch: &Batch, noise: Option<Noise>) -> Result<Var> {
        let mention = layers.linear_of("text", &batch.mention.text.global, None, (noise, 0))?;
        let entity = layers.linear_of("text", &batch.entity.text.global, None, (noise, 1))?;
        let dot = layers.dot(&batch.pairs, Operand::Item, &mention, &entity)?;
        layers.combine(&[&dot], vec![vec![1.0 / (layers.config.d as f32).sqrt()]])
    }
}
