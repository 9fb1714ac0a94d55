//! JMEL (Adjali et al. 2020): each side's text and image through dense layers to one space.
//!
//! From the paper: concatenation, dense layers with tanh, a margin between cosines. Assumed: the frozen encoders' vectors stand
//! for its text and image features; margins are to all of the list's negatives, not to one that is drawn.

use super::WITH_MARGIN;
use crate::autograd::Var;
use crate::error::Result;
use crate::model::batch::{Batch, Side};
use crate::model::config::ModelConfig;
use crate::model::layers::Layers;
use crate::model::network::{Loss, Network, Noise};
use crate::model::params::Plan;
use crate::ops::{Activation, Operand};

/// See the module's documentation.
pub struct Jmel;

impl Network for Jmel {
    fn name(&self) -> &'static str {
        "jmel"
    }

    fn settings(&self) -> &'static [&'static str] {
        WITH_MARGIN
    }

    fn scores(&self, _: &ModelConfig) -> Vec<&'static str> {
        vec!["cosine"]
    }

    fn parameters(&self, config: &ModelConfig, plan: &mut Plan) {
        let (d, widths) = (config.d, config.widths);
        for side in ["mention", "entity"] {
            plan.linear(&format!("{side}.text"), widths.text_global, d);
            plan.linear(&format!("{side}.image"), widths.image_global, d);
            plan.linear(&format!("{side}.joint"), 2 * d, d);
        }
    }

    fn loss(&self, config: &ModelConfig) -> Loss {
        Loss::Hinge { margin: config.margin }
    }

    fn forward(&self, layers: &Layers, batch: &Batch, noise: Option<Noise>) -> Result<Var> {
        let joint = |name: &str, side: &Side, stream: u32| {
            let tanh = Some(Activation::Tanh);
            let text = layers.linear_of(&format!("{name}.text"), &side.text.global, tanh, (noise, stream))?;
            let image = layers.linear_of(&format!("{name}.image"), &side.image.global, tanh, (noise, stream + 1))?;
            layers.linear(&format!("{name}.joint"), &[&text, &image], tanh)
        };
        let (mention, entity) = (joint("mention", &batch.mention, 0)?, joint("entity", &batch.entity, 2)?);
        layers.cosine(&batch.pairs, Operand::Item, &mention, &entity)
    }
}
