//! GHMFC (Wang et al. 2022) as DRIN's authors wrote it for frozen features: text and image of a mention attend to each other.
//!
//! From DRIN's code: the blocks, pooling by maximum, the gate, the mean of the hinge over all candidates. Assumed: text and
//! image are projected to the model's width first. The original's convolutions and contrastive loss are left out, as there.

use crate::autograd::Var;
use crate::error::Result;
use crate::model::batch::Batch;
use crate::model::config::ModelConfig;
use crate::model::layers::Layers;
use crate::model::network::{Loss, Network, Noise};
use crate::model::params::Plan;
use crate::ops::{Activation, Mix, Operand, Pairing, Pooling};
use crate::tensor::Ragged;

/// See the module's documentation.
pub struct Ghmfc;

impl Network for Ghmfc {
    fn name(&self) -> &'static str {
        "ghmfc"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["d", "dropout", "heads", "layer_norm_eps", "margin"]
    }

    fn scores(&self, _: &ModelConfig) -> Vec<&'static str> {
        vec!["cosine"]
    }

    fn parameters(&self, config: &ModelConfig, plan: &mut Plan) {
        let (d, widths) = (config.d, config.widths);
        plan.linear("text", widths.text, d);
        plan.linear("image", widths.image, d);
        for block in ["text_block", "image_block"] {
            for attention in ["attention", "attention2"] {
                ["query", "key", "value", "out"]
                    .iter()
                    .for_each(|layer| plan.linear(&format!("{block}.{attention}.{layer}"), d, d));
            }
            ["mid", "out"].iter().for_each(|layer| plan.linear(&format!("{block}.{layer}"), d, d));
            (1..=4).for_each(|i| plan.norm(&format!("{block}.norm{i}"), d));
        }
        plan.linear("text_out", d, d);
        plan.linear("image_out", d, d);
        plan.linear("mix", 2 * d, 2);
        plan.linear("entity", widths.text, d);
    }

    fn loss(&self, config: &ModelConfig) -> Loss {
        Loss::Hinge { margin: config.margin }
    }

    fn forward(&self, layers: &Layers, batch: &Batch, noise: Option<Noise>) -> Result<Var> {
        let (m, e) = (&batch.mention, &batch.entity);
        let text = (&layers.linear_of("text", &m.text.tokens, None, (noise, 0))?, &m.text.sequences);
        let image = (&layers.linear_of("image", &m.image.tokens, None, (noise, 1))?, &m.image.sequences);
        let guided = |name: &str, a: (&Var, &Ragged), b: (&Var, &Ragged)| {
            let pooled = layers.pool(a.1, Pooling::Max, &block(layers, &format!("{name}_block"), a, b)?)?;
            layers.linear(&format!("{name}_out"), &[&pooled], Some(Activation::Gelu))
        };
        let (by_text, by_image) = (guided("text", text, image)?, guided("image", image, text)?);
        let weights = layers.linear("mix", &[&by_text, &by_image], None)?;
        let mention = layers.tape.apply(Mix, &[&weights, &by_text, &by_image])?;
        let words = layers.pool(&e.text.sequences, Pooling::Mean, &layers.features(&e.text.tokens)?)?;
        let entity = layers.dropout(layers.linear("entity", &[&words], None)?, &e.text.global, noise, 2)?;
        layers.cosine(&batch.pairs, Operand::Item, &mention, &entity)
    }
}

/// Rows of `a` after they attended to `b` and what came of it to `a`, with a residual linear layer after each.
fn block(layers: &Layers, name: &str, a: (&Var, &Ragged), b: (&Var, &Ragged)) -> Result<Var> {
    let part = |what: &str| format!("{name}.{what}");
    let y = layers.norm(&part("norm1"), &attention(layers, &part("attention"), a, b)?)?;
    let y = layers.residual(&part("mid"), &y, &part("norm2"))?;
    let z = layers.norm(&part("norm3"), &attention(layers, &part("attention2"), (&y, a.1), a)?)?;
    layers.residual(&part("out"), &z, &part("norm4"))
}

/// Multi-head attention of each item's rows of `a` to its rows of `b`, without a residual connection.
fn attention(layers: &Layers, name: &str, a: (&Var, &Ragged), b: (&Var, &Ragged)) -> Result<Var> {
    let layer = |what: &str, x: &Var| layers.linear(&format!("{name}.{what}"), &[x], None);
    let (query, key, value) = (layer("query", a.0)?, layer("key", b.0)?, layer("value", b.0)?);
    let ModelConfig { heads, d, .. } = *layers.config;
    let scale = 1.0 / ((d / heads) as f32).sqrt();
    let pairs = Pairing::identity(a.1.len());
    let (context, _) = layers.attention((heads, scale), (&query, a.1), (&key, &value, b.1), pairs)?;
    layer("out", &context)
}
