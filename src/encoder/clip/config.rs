//! `config.json` of a CLIP model. Defaults are those of transformers' CLIPConfig, since files leave them out.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::encoder::layers::{Activation, Sizes};
use crate::error::{Error, Result};
use crate::files;

/// Both towers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipConfig {
    /// Always "clip".
    pub model_type: String,
    /// The text tower.
    pub text_config: TextConfig,
    /// The vision tower.
    pub vision_config: VisionConfig,
    /// Width of the global vectors.
    pub projection_dim: usize,
}

/// The text tower.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct TextConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f32,
    pub eos_token_id: u32,
}

impl Default for TextConfig {
    fn default() -> TextConfig {
        TextConfig {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }
}

/// The vision tower.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f32,
}

impl Default for VisionConfig {
    fn default() -> VisionConfig {
        VisionConfig {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
        }
    }
}

fn sizes(width: usize, inner: usize, heads: usize, eps: f32, activation: &str) -> Result<Sizes> {
    let activation = match activation {
        "quick_gelu" => Activation::QuickGelu,
        "gelu" => Activation::Gelu,
        other => return Err(Error::invalid(format!("config.json: hidden_act `{other}` is not supported"))),
    };
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(Error::invalid(format!("config.json: {heads} attention heads do not divide {width}")));
    }
    Ok(Sizes { width, inner, heads, eps, activation })
}

impl TextConfig {
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let (heads, eps) = (self.num_attention_heads, self.layer_norm_eps);
        sizes(self.hidden_size, self.intermediate_size, heads, eps, &self.hidden_act)
    }
}

impl VisionConfig {
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let (heads, eps) = (self.num_attention_heads, self.layer_norm_eps);
        sizes(self.hidden_size, self.intermediate_size, heads, eps, &self.hidden_act)
    }

    /// States of an image: its patches and the class token.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }

    /// Patches of an image (3, size, size), row by row, each flattened as the embedding's weight is.
    pub(super) fn cut_patches(&self, pixels: &[f32]) -> Vec<f32> {
        let (size, patch) = (self.image_size, self.patch_size);
        let side = size / patch;
        let mut out = Vec::with_capacity(side * side * 3 * patch * patch);
        for (row, column) in (0..side * side).map(|i| (i / side * patch, i % side * patch)) {
            for line in (0..3 * patch).map(|i| (i / patch) * size + row + i % patch) {
                out.extend_from_slice(&pixels[line * size + column..][..patch]);
            }
        }
        out
    }
}

/// FLOPs of a transformer's blocks on one sequence of `length` rows: projections, attention, two layers of the MLP.
fn block_flops(layers: usize, width: usize, inner: usize, length: usize) -> u64 {
    (layers * (length * (8 * width * width + 4 * width * inner) + 4 * length * length * width)) as u64
}

impl ClipConfig {
    /// FLOPs of encoding a text of `tokens` tokens.
    pub fn text_flops(&self, tokens: usize) -> u64 {
        let TextConfig { hidden_size: width, intermediate_size: inner, num_hidden_layers: layers, .. } =
            self.text_config;
        block_flops(layers, width, inner, tokens) + (2 * width * self.projection_dim) as u64
    }

    /// FLOPs of encoding an image.
    pub fn image_flops(&self) -> u64 {
        let config = &self.vision_config;
        let VisionConfig { hidden_size: width, intermediate_size: inner, num_hidden_layers: layers, .. } = *config;
        let embedding = 2 * width * config.num_channels * config.patch_size.pow(2) * (config.patches() - 1);
        block_flops(layers, width, inner, config.patches()) + (embedding + 2 * width * self.projection_dim) as u64
    }

    /// Reads and checks the `config.json` of a Hugging Face directory.
    pub fn read(folder: &Path) -> Result<ClipConfig> {
        let path = folder.join("config.json");
        let mut config: ClipConfig = serde_json::from_str(&files::read_text(&path)?)
            .map_err(|e| Error::file(&path, format!("is no configuration of CLIP: {e}")))?;
        if config.projection_dim == 0 {
            config.projection_dim = 512;
        }
        let (text, vision) = (&config.text_config, &config.vision_config);
        let sizes = [text.hidden_size, text.max_position_embeddings, vision.hidden_size, vision.patch_size];
        if sizes.contains(&0) || vision.num_channels != 3 || vision.patch_size > vision.image_size {
            return Err(Error::file(&path, "has a size that makes no sense"));
        }
        Ok(config)
    }
}
