//! CLIP (Radford et al. 2021): cosines of its text vectors and of its image vectors, as they are or projected.
//!
//! From the paper: the vectors and the cosine. Assumed: a mention is matched with an entity modality by modality, and the
//! two cosines are averaged; CLIP itself compares a text with an image. The projections and their training are ours.

use crate::autograd::Var;
use crate::error::Result;
use crate::model::batch::{Batch, Source};
use crate::model::config::ModelConfig;
use crate::model::layers::Layers;
use crate::model::network::{Network, Noise};
use crate::model::params::Plan;
use crate::ops::Operand;

/// As it is, without anything to train.
pub struct Clip;

/// Both vectors of both sides go through trained linear layers.
pub struct ClipProjected;

impl Network for Clip {
    fn name(&self) -> &'static str {
        "clip"
    }

    fn settings(&self) -> &'static [&'static str] {
        &[]
    }

    fn scores(&self, _: &ModelConfig) -> Vec<&'static str> {
        vec!["text", "image"]
    }

    fn parameters(&self, _: &ModelConfig, _: &mut Plan) {}

    fn forward(&self, layers: &Layers, batch: &Batch, _: Option<Noise>) -> Result<Var> {
        let (m, e, pairs) = (&batch.mention, &batch.entity, &batch.pairs);
        let cosine = |mention: &Source, entity: &Source| {
            let (mention, entity) = (layers.features(mention)?, layers.features(entity)?);
            layers.cosine(pairs, Operand::Item, &mention, &entity)
        };
        let (text, image) = (cosine(&m.text.global, &e.text.global)?, cosine(&m.image.global, &e.image.global)?);
        layers.stack(&[&text, &image])
    }
}

impl Network for ClipProjected {
    fn name(&self) -> &'static str {
        "clip-projected"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["d", "dropout", "temperature"]
    }

    fn scores(&self, _: &ModelConfig) -> Vec<&'static str> {
        vec!["text", "image"]
    }

    fn parameters(&self, config: &ModelConfig, plan: &mut Plan) {
        plan.linear("text", config.widths.text_global, config.d);
        plan.linear("image", config.widths.image_global, config.d);
    }

    fn forward(&self, layers: &Layers, batch: &Batch, noise: Option<Noise>) -> Result<Var> {
        let (m, e, pairs) = (&batch.mention, &batch.entity, &batch.pairs);
        let cosine = |name: &str, [mention, entity]: [&Source; 2], stream: u32| {
            let mention = layers.linear_of(name, mention, None, (noise, stream))?;
            let entity = layers.linear_of(name, entity, None, (noise, stream + 1))?;
            layers.cosine(pairs, Operand::Item, &mention, &entity)
        };
        let text = cosine("text", [&m.text.global, &e.text.global], 0)?;
        let image = cosine("image", [&m.image.global, &e.image.global], 2)?;
        let warmth = 1.0 / layers.config.temperature;
        layers.combine(&[&text, &image], vec![vec![warmth, 0.0], vec![0.0, warmth]])
    }
}
