//! `config.json` of a SigLIP. Defaults are those of transformers' SiglipConfig, since files leave them out.

use std::path::Path;

use serde_json::json;

use crate::encoder::trained::{Blocks, LARGEST, MOST_LAYERS, Shapes};
use crate::encoder::transformer::Sizes;
use crate::error::Result;
use crate::fields::Fields;

/// Both towers.
#[derive(Clone, Debug)]
pub struct SiglipConfig {
    pub text: TextConfig,
    pub vision: VisionConfig,
}

/// The text tower.
#[derive(Clone, Debug)]
pub struct TextConfig {
    pub tower: TowerConfig,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    /// What fills a text up, where the tokenizer does not say it.
    pub pad_token_id: u32,
    /// Width of the global vector.
    pub projection_size: usize,
}

/// The vision tower.
#[derive(Clone, Debug)]
pub struct VisionConfig {
    pub tower: TowerConfig,
    pub image_size: usize,
    pub patch_size: usize,
}

/// What both have.
#[derive(Clone, Debug)]
pub struct TowerConfig {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub sizes: Sizes,
}

impl SiglipConfig {
    /// Reads and checks both towers' settings.
    pub fn read(folder: &Path) -> Result<SiglipConfig> {
        Ok(SiglipConfig { text: TextConfig::read(folder)?, vision: VisionConfig::read(folder)? })
    }

    /// Sizes of the towers' blocks; the pooling head is no more than one of them.
    pub fn shapes(&self) -> Shapes {
        let blocks = |tower: &TowerConfig| Blocks {
            layers: tower.num_hidden_layers,
            width: tower.hidden_size,
            inner: tower.sizes.inner,
        };
        let (text, vision) = (blocks(&self.text.tower), blocks(&self.vision.tower));
        Shapes { text, vision, patches: self.vision.patches(), maps: Vec::new() }
    }

    /// A size, by its name, that no encoder has which is trained.
    pub(super) fn absurd(&self) -> Option<(&'static str, usize)> {
        let (text, vision) = (&self.text, &self.vision);
        let towers = [&text.tower, &vision.tower];
        let widths = towers.map(|tower| ("hidden_size", tower.hidden_size));
        let inner = towers.map(|tower| ("intermediate_size", tower.sizes.inner));
        let layers = towers.map(|tower| ("num_hidden_layers", tower.num_hidden_layers));
        let others = [
            ("max_position_embeddings", text.max_position_embeddings),
            ("projection_size", text.projection_size),
            ("image_size", vision.image_size),
        ];
        let sizes = widths.into_iter().chain(inner).chain(others).find(|(_, size)| *size > LARGEST);
        sizes.or(layers.into_iter().find(|(_, count)| *count > MOST_LAYERS))
    }
}

impl TowerConfig {
    fn of(fields: &Fields) -> Result<TowerConfig> {
        let hidden_size = fields.positive("hidden_size", 768)?;
        let (inner, heads) = (fields.positive("intermediate_size", 3072)?, fields.positive("num_attention_heads", 12)?);
        let act = fields.or(fields.text("hidden_act"), "gelu_pytorch_tanh")?;
        let eps = fields.or(fields.above_zero("layer_norm_eps"), 1e-6)?;
        let sizes = Sizes::new(hidden_size, inner, heads, eps, act).map_err(|e| {
            let defaults = "hidden_act is `gelu_pytorch_tanh`, num_attention_heads 12 and hidden_size 768";
            fields.error(format!("{e}; left out, {defaults}"))
        })?;
        Ok(TowerConfig { hidden_size, num_hidden_layers: fields.or(fields.size("num_hidden_layers"), 12)?, sizes })
    }
}

impl TextConfig {
    /// Reads and checks the text tower's settings.
    pub fn read(folder: &Path) -> Result<TextConfig> {
        let fields = section(folder, "text_config")?;
        let tower = TowerConfig::of(&fields)?;
        let pad = fields.or(fields.whole("pad_token_id"), 1)?;
        Ok(TextConfig {
            vocab_size: fields.positive("vocab_size", 32_000)?,
            max_position_embeddings: fields.positive("max_position_embeddings", 64)?,
            pad_token_id: u32::try_from(pad).map_err(|_| fields.wrong("pad_token_id", "the number of a token"))?,
            projection_size: fields.positive("projection_size", tower.hidden_size)?,
            tower,
        })
    }
}

impl VisionConfig {
    /// Reads and checks the vision tower's settings.
    pub fn read(folder: &Path) -> Result<VisionConfig> {
        let fields = section(folder, "vision_config")?;
        fields.only("num_channels", &[json!(3)])?;
        fields.only("vision_use_head", &[json!(true)])?;
        let tower = TowerConfig::of(&fields)?;
        let (image_size, patch_size) = (fields.positive("image_size", 224)?, fields.positive("patch_size", 16)?);
        if patch_size > image_size {
            let (patch, image) = (fields.name("patch_size"), fields.name("image_size"));
            let reason =
                format!("`{patch}` {patch_size} is above `{image}` {image_size}; left out, they are 16 and 224");
            return Err(fields.error(reason));
        }
        Ok(VisionConfig { tower, image_size, patch_size })
    }

    /// Patches of an image.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }
}

/// A tower's settings, empty where all are the defaults.
fn section(folder: &Path, key: &str) -> Result<Fields> {
    let path = folder.join("config.json");
    let fields = Fields::read(&path)?;
    fields.only("quantization_config", &[])?;
    Ok(fields.under(key)?.unwrap_or(Fields::of(&path, serde_json::Map::new())))
}
