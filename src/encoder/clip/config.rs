//! `config.json` of a CLIP model. Defaults are those of transformers' CLIPConfig, since files leave them out.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::encoder::transformer::{Sizes, block_flops};
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

impl TextConfig {
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let (heads, eps) = (self.num_attention_heads, self.layer_norm_eps);
        Ok(Sizes::new(self.hidden_size, self.intermediate_size, heads, eps, &self.hidden_act)?.causal())
    }
}

impl VisionConfig {
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let (heads, eps) = (self.num_attention_heads, self.layer_norm_eps);
        Sizes::new(self.hidden_size, self.intermediate_size, heads, eps, &self.hidden_act)
    }

    /// States of an image: its patches and the class token.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }
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
        if config.model_type != "clip" {
            let reason = format!("has model_type `{}`; a CLIP's is `clip`", config.model_type);
            return Err(Error::file(&path, reason));
        }
        if config.projection_dim == 0 {
            config.projection_dim = 512;
        }
        let (text, vision) = (&config.text_config, &config.vision_config);
        let sizes = [text.hidden_size, text.max_position_embeddings, vision.hidden_size, vision.patch_size];
        if sizes.contains(&0) || vision.num_channels != 3 || vision.patch_size > vision.image_size {
            return Err(Error::file(&path, "has a size that makes no sense"));
        }
        text.sizes().and(vision.sizes()).map_err(|e| Error::file(&path, e.to_string()))?;
        Ok(config)
    }
}
