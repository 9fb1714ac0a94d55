//! CLIPs as OpenCLIP saves them: `open_clip_config.json`, and the same layers under other names.

use std::path::Path;

use serde_json::json;

use super::config::{ClipConfig, TextConfig, VisionConfig};
use crate::encoder::loader::{Alias, Part};
use crate::error::Result;
use crate::fields::Fields;

/// Its weights.
pub const WEIGHTS: &str = "open_clip_model.safetensors";

/// What says that a directory is OpenCLIP's, where it has no `config.json`.
pub const CONFIG: &str = "open_clip_config.json";

/// Where its file says what the towers and their vectors are.
const MODEL: &str = "model_cfg";

/// Whether a directory is OpenCLIP's alone.
pub fn is_in(folder: &Path) -> bool {
    !folder.join("config.json").exists() && folder.join(CONFIG).exists()
}

/// Reads and checks the sizes of both towers. A key that is none of these asks for another architecture, and is refused.
pub fn config(folder: &Path) -> Result<ClipConfig> {
    let fields = Fields::read(&folder.join(CONFIG))?;
    let model = section(&fields, MODEL)?;
    expect_known(&model, &["embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"])?;
    model.only("custom_text", &[json!(false)])?;
    let act = if model.flag("quick_gelu")?.unwrap_or(false) { "quick_gelu" } else { "gelu" };
    Ok(ClipConfig {
        model_type: "clip".into(),
        text_config: text(&section(&model, "text_cfg")?, act)?,
        vision_config: vision(&section(&model, "vision_cfg")?, act)?,
        projection_dim: needed(&model, "embed_dim")?,
    })
}

fn text(fields: &Fields, act: &str) -> Result<TextConfig> {
    expect_known(fields, &["context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"])?;
    let default = TextConfig::default();
    let width = fields.positive("width", default.hidden_size)?;
    Ok(TextConfig {
        vocab_size: fields.positive("vocab_size", default.vocab_size)?,
        hidden_size: width,
        intermediate_size: inner(fields, width)?,
        num_hidden_layers: fields.or(fields.size("layers"), default.num_hidden_layers)?,
        num_attention_heads: fields.positive("heads", default.num_attention_heads)?,
        max_position_embeddings: fields.positive("context_length", default.max_position_embeddings)?,
        hidden_act: act.into(),
        layer_norm_eps: default.layer_norm_eps,
        // A text's vector is its highest token's, as this number says of older configurations of transformers, too.
        eos_token_id: 2,
    })
}

fn vision(fields: &Fields, act: &str) -> Result<VisionConfig> {
    expect_known(fields, &["image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"])?;
    let default = VisionConfig::default();
    let width = fields.positive("width", default.hidden_size)?;
    let head = fields.positive("head_width", 64)?;
    if !width.is_multiple_of(head) {
        return Err(fields.error(format!("`{}` {head} does not divide the width {width}", fields.name("head_width"))));
    }
    let config = VisionConfig {
        hidden_size: width,
        intermediate_size: inner(fields, width)?,
        // A list of them is a ResNet's.
        num_hidden_layers: fields.or(fields.size("layers"), default.num_hidden_layers)?,
        num_attention_heads: width / head,
        num_channels: default.num_channels,
        image_size: fields.positive("image_size", default.image_size)?,
        patch_size: fields.positive("patch_size", 16)?,
        hidden_act: act.into(),
        layer_norm_eps: default.layer_norm_eps,
    };
    config.expect_patches(fields)?;
    Ok(config)
}

/// Width of the MLPs.
fn inner(fields: &Fields, width: usize) -> Result<usize> {
    Ok((width as f32 * fields.or(fields.above_zero("mlp_ratio"), 4.0)?) as usize)
}

/// Settings that must be there.
fn section(fields: &Fields, key: &str) -> Result<Fields> {
    fields.under(key)?.ok_or_else(|| fields.error(format!("has no `{}`", fields.name(key))))
}

fn needed(fields: &Fields, key: &str) -> Result<usize> {
    match fields.get(key) {
        Some(_) => fields.positive(key, 1),
        None => Err(fields.error(format!("has no `{}`", fields.name(key)))),
    }
}

fn expect_known(fields: &Fields, known: &[&str]) -> Result<()> {
    fields.keys().filter(|key| !known.contains(key)).try_for_each(|key| fields.only(key, &[]))
}

/// Where OpenCLIP keeps what transformers calls so.
pub fn alias(name: &str) -> Alias {
    let (tower, rest) = match (name.strip_prefix("vision_model."), name.strip_prefix("text_model.")) {
        (Some(rest), _) => ("visual.", rest),
        (_, Some(rest)) => ("", rest),
        _ => ("", name),
    };
    match rest {
        "visual_projection.weight" => return Alias::new("visual.proj", Part::Transposed),
        "text_projection.weight" => return Alias::new("text_projection", Part::Transposed),
        _ => {}
    }
    let Some((number, layer)) = rest.strip_prefix("encoder.layers.").and_then(|rest| rest.split_once('.')) else {
        let same = [
            ("embeddings.patch_embedding", "conv1"),
            ("embeddings.class_embedding", "class_embedding"),
            ("embeddings.token_embedding", "token_embedding"),
            ("embeddings.position_embedding.weight", "positional_embedding"),
            ("pre_layrnorm", "ln_pre"),
            ("post_layernorm", "ln_post"),
            ("final_layer_norm", "ln_final"),
        ];
        let found = same.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", rest.strip_prefix(theirs)?)));
        return Alias::new(format!("{tower}{}", found.unwrap_or_else(|| rest.into())), Part::Whole);
    };
    let block = format!("{tower}transformer.resblocks.{number}");
    for (third, projection) in ["self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."].iter().enumerate() {
        if let Some(kind) = layer.strip_prefix(projection) {
            return Alias::new(format!("{block}.attn.in_proj_{kind}"), Part::Third(third));
        }
    }
    let layers = [
        ("layer_norm1", "ln_1"),
        ("layer_norm2", "ln_2"),
        ("self_attn.out_proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
    ];
    let found = layers.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", layer.strip_prefix(theirs)?)));
    Alias::new(format!("{block}.{}", found.unwrap_or_else(|| layer.into())), Part::Whole)
}
