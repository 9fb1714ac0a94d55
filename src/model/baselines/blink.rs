//! BLINK's bi-encoder (Wu et al. 2020): texts alone, an encoder for each side, their dot product.
//!
//! From the paper: separate encoders, no scaling. Assumed: a trained linear layer stands for the fine-tuning of each; negatives
//! are the list's, not the batch's; the cross-encoder that re-ranks is left out.

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
pub struct Blink;

impl Network for Blink {
    fn name(&self) -> &'static str {
        "blink"
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
        plan.linear("mention", config.widths.text_global, config.d);
        plan.linear("entity", config.widths.text_global, config.d);
    }

    fn forward(&self, layers: &Layers, batch: &Batch, noise: Option<Noise>) -> Result<Var> {
        let mention = layers.linear_of("mention", &batch.mention.text.global, None, (noise, 0))?;
        let entity = layers.linear_of("entity", &batch.entity.text.global, None, (noise, 1))?;
        layers.dot(&batch.pairs, Operand::Item, &mention, &entity)
    }
}
