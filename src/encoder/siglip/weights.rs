//! The towers' weights as they are trained, and how files hold them.

use super::config::SiglipConfig;
use crate::autograd::Parameters;
use crate::encoder::loader::{Alias, Part};
use crate::encoder::trained::weights::{self, ordered};
use crate::encoder::trained::{Depth, List, Parameter, Role, Tower};
use crate::encoder::transformer::Layout;
use crate::error::Result;
use crate::tensor::{Shards, Tensor};

/// What makes logits of cosines in SigLIP's loss, and where it starts: the logarithm of 10, and -10.
const OF_THE_LOSS: [(&str, f32); 2] = [("logit_scale", std::f32::consts::LN_10), ("logit_bias", -10.0)];

/// The pooling head's attention, whose three layers a file keeps as one.
pub const POOLING: &str = "vision_model.head.attention.";

/// All parameters, those that decay first and those of the loss last.
pub fn all(config: &SiglipConfig) -> Vec<Parameter> {
    let mut all = ordered(parameters(config));
    let of_the_loss = |(name, _): (&str, f32)| Parameter {
        name: name.into(),
        shape: vec![1],
        role: Role::LogScale,
        tower: Tower::Vision,
        depth: Depth::Output,
        read: true,
    };
    all.extend(OF_THE_LOSS.map(of_the_loss));
    all
}

fn parameters(config: &SiglipConfig) -> Vec<Parameter> {
    let (text, vision) = (&config.text, &config.vision);
    let (t, v, p) = (text.tower.hidden_size, vision.tower.hidden_size, vision.patch_size);
    let mut list = List::of(Tower::Text);
    list.add("text_model.embeddings.token_embedding.weight", &[text.vocab_size, t], Role::Tokens);
    let places = [text.max_position_embeddings, t];
    list.add("text_model.embeddings.position_embedding.weight", &places, Role::Positions);
    let inner = text.tower.sizes.inner;
    list.blocks("text_model.encoder.layers", &Layout::CLIP, text.tower.num_hidden_layers, (t, inner));
    list.norm("text_model.final_layer_norm", t);
    list.linear("text_model.head", text.projection_size, t, Role::Projection);
    let mut list = List { parameters: list.parameters, ..List::of(Tower::Vision) };
    list.add("vision_model.embeddings.patch_embedding.weight", &[v, 3, p, p], Role::Filters);
    list.add("vision_model.embeddings.patch_embedding.bias", &[v], Role::Bias);
    list.add("vision_model.embeddings.position_embedding.weight", &[vision.patches(), v], Role::Positions);
    let inner = vision.tower.sizes.inner;
    list.blocks("vision_model.encoder.layers", &Layout::CLIP, vision.tower.num_hidden_layers, (v, inner));
    list.norm("vision_model.post_layernorm", v);
    list.add("vision_model.head.probe", &[1, 1, v], Role::Class);
    for (layer, role) in [("q_proj", Role::Query), ("k_proj", Role::Key), ("v_proj", Role::Value)] {
        list.linear(&format!("{POOLING}{layer}"), v, v, role);
    }
    list.linear(&format!("{POOLING}out_proj"), v, v, Role::AttentionOut);
    list.norm("vision_model.head.layernorm", v);
    list.linear("vision_model.head.mlp.fc1", inner, v, Role::Up);
    list.linear("vision_model.head.mlp.fc2", v, inner, Role::Down);
    list.parameters
}

/// Where a file keeps what is called so here.
pub fn alias(name: &str) -> Alias {
    let layer = name.strip_prefix(POOLING).unwrap_or_default();
    for (third, projection) in ["q_proj.", "k_proj.", "v_proj."].iter().enumerate() {
        if let Some(kind) = layer.strip_prefix(projection) {
            return Alias::new(format!("{POOLING}in_proj_{kind}"), Part::Third(third));
        }
    }
    Alias::same(name)
}

/// Reads the parameters of a model's files.
pub fn read(shards: &Shards, config: &SiglipConfig) -> Result<Parameters> {
    weights::read(all(config), |parameter| {
        let start = OF_THE_LOSS.iter().find(|(name, _)| parameter.name == *name && !shards.contains(name));
        match start {
            Some((_, start)) => Tensor::new([1], vec![*start]),
            None => alias(&parameter.name).read(shards, &parameter.shape),
        }
    })
}
