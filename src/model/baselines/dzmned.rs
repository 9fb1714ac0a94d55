//! DZMNED (Moon et al. 2018): a mention's modalities, weighted by attention, against an entity's text.
//!
//! From the paper: modality attention, the two layers to the entities' space, the hinge loss. Assumed: the mean of the text's
//! tokens stands for the recurrent networks over words and characters; the entity's text vector for its embedding in a graph.

use super::WITH_MARGIN;
use crate::autograd::Var;
use crate::error::Result;
use crate::model::batch::Batch;
use crate::model::config::ModelConfig;
use crate::model::layers::Layers;
use crate::model::network::{Loss, Network, Noise};
use crate::model::params::Plan;
use crate::ops::{Activation, Mix, Operand, Pooling};

/// See the module's documentation.
pub struct Dzmned;

impl Network for Dzmned {
    fn name(&self) -> &'static str {
        "dzmned"
    }

    fn settings(&self) -> &'static [&'static str] {
        WITH_MARGIN
    }

    fn scores(&self, _: &ModelConfig) -> Vec<&'static str> {
        vec!["cosine"]
    }

    fn parameters(&self, config: &ModelConfig, plan: &mut Plan) {
        let (d, widths) = (config.d, config.widths);
        plan.linear("context", widths.text_global, d);
        plan.linear("words", widths.text, d);
        plan.linear("image", widths.image_global, d);
        plan.linear("attention", 3 * d, 3);
        plan.linear("hidden", d, d);
        plan.linear("out", d, d);
        plan.linear("entity", widths.text_global, d);
    }

    fn loss(&self, config: &ModelConfig) -> Loss {
        Loss::Hinge { margin: config.margin }
    }

    fn forward(&self, layers: &Layers, batch: &Batch, noise: Option<Noise>) -> Result<Var> {
        let (m, e) = (&batch.mention, &batch.entity);
        let tanh = Some(Activation::Tanh);
        let context = layers.linear_of("context", &m.text.global, tanh, (noise, 0))?;
        let words = layers.pool(&m.text.sequences, Pooling::Mean, &layers.features(&m.text.tokens)?)?;
        let words = layers.dropout(layers.linear("words", &[&words], tanh)?, &m.text.global, noise, 1)?;
        let image = layers.linear_of("image", &m.image.global, tanh, (noise, 2))?;
        let weights = layers.linear("attention", &[&context, &words, &image], Some(Activation::Sigmoid))?;
        let fused = layers.tape.apply(Mix, &[&weights, &context, &words, &image])?;
        let mention = layers.linear("out", &[&layers.linear("hidden", &[&fused], Some(Activation::Relu))?], None)?;
        let entity = layers.linear_of("entity", &e.text.global, None, (noise, 3))?;
        layers.cosine(&batch.pairs, Operand::Item, &mention, &entity)
    }
}
