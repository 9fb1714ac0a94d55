//! The parameters of both towers, in the order in which they are drawn.

use super::config::ClipConfig;
use crate::encoder::trained::{List, Parameter, Role, Tower};
use crate::encoder::transformer::Layout;

/// All but the scale of the contrastive loss.
pub fn parameters(config: &ClipConfig) -> Vec<Parameter> {
    let (text, vision) = (&config.text_config, &config.vision_config);
    let (t, v, p) = (text.hidden_size, vision.hidden_size, vision.patch_size);
    let mut list = List::of(Tower::Text);
    list.add("text_model.embeddings.token_embedding.weight", &[text.vocab_size, t], Role::Tokens);
    let places = [text.max_position_embeddings, t];
    list.add("text_model.embeddings.position_embedding.weight", &places, Role::Positions);
    list.blocks("text_model.encoder.layers", &Layout::CLIP, text.num_hidden_layers, (t, text.intermediate_size));
    list.norm("text_model.final_layer_norm", t);
    list.add("text_projection.weight", &[config.projection_dim, t], Role::Projection);
    let mut list = List { parameters: list.parameters, ..List::of(Tower::Vision) };
    list.add("vision_model.embeddings.class_embedding", &[v], Role::Class);
    list.add("vision_model.embeddings.patch_embedding.weight", &[v, 3, p, p], Role::Filters);
    list.add("vision_model.embeddings.position_embedding.weight", &[vision.patches(), v], Role::Positions);
    list.norm("vision_model.pre_layrnorm", v);
    list.blocks("vision_model.encoder.layers", &Layout::CLIP, vision.num_hidden_layers, (v, vision.intermediate_size));
    list.norm("vision_model.post_layernorm", v);
    list.add("visual_projection.weight", &[config.projection_dim, v], Role::Projection);
    list.parameters
}
