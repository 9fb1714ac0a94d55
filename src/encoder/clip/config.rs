//! `config.json` of a CLIP model. Defaults are those of transformers' CLIPConfig, since files leave them out.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::open_clip;
use crate::autograd::Cost;
use crate::encoder::trained::{Blocks, Shapes};
use crate::encoder::transformer::{Sizes, block_cost, block_parameters};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::files;
use crate::ops::convolution::{self, Filters};
use crate::ops::linear;
use crate::tensor::Element;

/// Both towers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    fn of(fields: &Fields, default: &TextConfig) -> Result<TextConfig> {
        fields.only("pruned_heads", &[json!({})])?;
        let end = fields.or(fields.whole("eos_token_id"), u64::from(default.eos_token_id))?;
        Ok(TextConfig {
            vocab_size: fields.positive("vocab_size", default.vocab_size)?,
            hidden_size: fields.positive("hidden_size", default.hidden_size)?,
            intermediate_size: fields.positive("intermediate_size", default.intermediate_size)?,
            num_hidden_layers: fields.or(fields.size("num_hidden_layers"), default.num_hidden_layers)?,
            num_attention_heads: fields.positive("num_attention_heads", default.num_attention_heads)?,
            max_position_embeddings: fields.positive("max_position_embeddings", default.max_position_embeddings)?,
            hidden_act: fields.or(fields.text("hidden_act"), default.hidden_act.as_str())?.into(),
            layer_norm_eps: fields.or(fields.above_zero("layer_norm_eps"), default.layer_norm_eps)?,
            eos_token_id: u32::try_from(end).map_err(|_| fields.wrong("eos_token_id", "the number of a token"))?,
        })
    }

    pub(super) fn sizes(&self) -> Result<Sizes> {
        let (heads, eps) = (self.num_attention_heads, self.layer_norm_eps);
        Ok(Sizes::new(self.hidden_size, self.intermediate_size, heads, eps, &self.hidden_act)?.causal())
    }

    /// Row of the sentence vector: transformers looks for the first end token, and in configurations written before
    /// it knew that token's number (they say 2) for the highest number.
    pub(super) fn end_of(&self, ids: &[u32]) -> Result<usize> {
        let end = self.eos_token_id;
        let found = match end {
            2 => ids.iter().enumerate().rev().max_by_key(|(_, id)| **id).map(|(i, _)| i),
            _ => ids.iter().position(|&id| id == end),
        };
        found.ok_or_else(|| {
            Error::invalid(format!("gives no end token, which is {end} in config.json; is it another model's?"))
        })
    }
}

impl VisionConfig {
    fn of(fields: &Fields, default: &VisionConfig) -> Result<VisionConfig> {
        fields.only("pruned_heads", &[json!({})])?;
        fields.only("num_channels", &[json!(3)])?;
        // Transformers 5 takes a height and a width as well.
        let square = |key: &str, default: usize| match fields.get(key).is_some_and(Value::is_array) {
            false => fields.positive(key, default),
            true => match fields.sizes(key)?.as_deref() {
                Some([height, width]) if height == width => Ok(*height),
                _ => Err(fields.wrong(key, "one number, or twice the same")),
            },
        };
        let config = VisionConfig {
            hidden_size: fields.positive("hidden_size", default.hidden_size)?,
            intermediate_size: fields.positive("intermediate_size", default.intermediate_size)?,
            num_hidden_layers: fields.or(fields.size("num_hidden_layers"), default.num_hidden_layers)?,
            num_attention_heads: fields.positive("num_attention_heads", default.num_attention_heads)?,
            num_channels: default.num_channels,
            image_size: square("image_size", default.image_size)?,
            patch_size: square("patch_size", default.patch_size)?,
            hidden_act: fields.or(fields.text("hidden_act"), default.hidden_act.as_str())?.into(),
            layer_norm_eps: fields.or(fields.above_zero("layer_norm_eps"), default.layer_norm_eps)?,
        };
        config.expect_patches(fields)?;
        Ok(config)
    }

    pub(super) fn sizes(&self) -> Result<Sizes> {
        let (heads, eps) = (self.num_attention_heads, self.layer_norm_eps);
        Sizes::new(self.hidden_size, self.intermediate_size, heads, eps, &self.hidden_act)
    }

    /// Fails if not even one patch fits into an image, in the words of the settings that say so.
    pub(super) fn expect_patches(&self, fields: &Fields) -> Result<()> {
        if self.patch_size > self.image_size {
            let (patch, image) = (fields.name("patch_size"), fields.name("image_size"));
            let reason = format!("`{patch}` {} is above `{image}` {}", self.patch_size, self.image_size);
            return Err(fields.error(reason));
        }
        Ok(())
    }

    /// States of an image: its patches and the class token.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }
}

impl ClipConfig {
    /// What the products of a text of `tokens` tokens cost in f32.
    pub fn text_cost(&self, tokens: usize) -> Result<Cost> {
        let config = &self.text_config;
        let blocks = block_cost(&config.sizes()?, &[tokens], Element::F32) * config.num_hidden_layers as u64;
        Ok(blocks + self.projection_cost(config.hidden_size))
    }

    /// What the products of an image cost in f32.
    pub fn image_cost(&self) -> Result<Cost> {
        let config = &self.vision_config;
        let (outputs, inputs, kernel) = (config.hidden_size, config.num_channels, config.patch_size);
        let filters = Filters { outputs, inputs, kernel, stride: kernel, padding: 0 };
        let (pixels, windows) = (config.image_size.pow(2), config.patches() - 1);
        let embedding = convolution::cost(filters, pixels, windows, Element::F32, Element::F32);
        let blocks = block_cost(&config.sizes()?, &[config.patches()], Element::F32) * config.num_hidden_layers as u64;
        Ok(embedding + blocks + self.projection_cost(config.hidden_size))
    }

    /// Parameters of the text and of the vision tower, each with its projection.
    pub fn parameters(&self) -> (u64, u64) {
        let (text, vision, projection) = (&self.text_config, &self.vision_config, self.projection_dim);
        let tower = |width: usize, inner: usize, layers: usize| {
            layers as u64 * block_parameters(width, inner) + (width * projection) as u64
        };
        let (width, inner) = (text.hidden_size, text.intermediate_size);
        // Tokens, positions, and the normalization at the end.
        let texts = tower(width, inner, text.num_hidden_layers)
            + ((text.vocab_size + text.max_position_embeddings + 2) * width) as u64;
        let (width, inner) = (vision.hidden_size, vision.intermediate_size);
        let filters = vision.num_channels * vision.patch_size.pow(2);
        // The class, positions, filters of patches, and the normalizations before and after.
        let images =
            tower(width, inner, vision.num_hidden_layers) + ((1 + vision.patches() + filters + 4) * width) as u64;
        (texts, images)
    }

    /// Sizes of both towers' blocks.
    pub fn shapes(&self) -> Shapes {
        let (text, vision) = (&self.text_config, &self.vision_config);
        Shapes {
            text: Blocks { layers: text.num_hidden_layers, width: text.hidden_size, inner: text.intermediate_size },
            vision: Blocks {
                layers: vision.num_hidden_layers,
                width: vision.hidden_size,
                inner: vision.intermediate_size,
            },
            patches: vision.patches(),
            maps: Vec::new(),
        }
    }

    fn projection_cost(&self, width: usize) -> Cost {
        linear::cost(1, (width, self.projection_dim), Element::F32, Element::F32, false)
    }

    /// Reads and checks the `config.json` of a Hugging Face directory, or OpenCLIP's file. What a tower does not compute is refused by
    /// `TextConfig::sizes` and `VisionConfig::sizes`, since the other tower may be of use without it.
    pub fn read(folder: &Path) -> Result<ClipConfig> {
        if open_clip::is_in(folder) {
            return open_clip::config(folder);
        }
        let fields = Fields::read(&files::config_of(folder, "give the directory of a CLIP")?)?;
        let model_type = fields.text("model_type")?.unwrap_or_default();
        if model_type != "clip" {
            let reason = format!("has model_type `{}`; a CLIP's is `clip`", model_type.escape_debug());
            return Err(fields.error(reason));
        }
        fields.only("quantization_config", &[])?;
        let text = tower(&fields, "text_config", TextConfig::default(), TextConfig::of)?;
        let vision = tower(&fields, "vision_config", VisionConfig::default(), VisionConfig::of)?;
        Ok(ClipConfig {
            model_type: "clip".into(),
            text_config: text,
            vision_config: vision,
            projection_dim: fields.positive("projection_dim", 512)?,
        })
    }
}

/// A tower's settings: under its name, and in files of old under `..._dict` besides, which transformers lets win. Where
/// they disagree, it is not known what is meant.
fn tower<T: Serialize>(fields: &Fields, key: &str, default: T, of: impl Fn(&Fields, &T) -> Result<T>) -> Result<T> {
    let old = format!("{key}_dict");
    let base = match fields.under(&old)? {
        Some(old) => of(&old, &default)?,
        None => {
            let own = fields.under(key)?;
            return own.map_or(Ok(None), |own| of(&own, &default).map(Some)).map(|own| own.unwrap_or(default));
        }
    };
    let Some(own) = fields.under(key)? else { return Ok(base) };
    let merged = of(&own, &base)?;
    let list = |config: &T| serde_json::to_value(config).unwrap_or_default();
    let (a, b) = (list(&base), list(&merged));
    let differs = a.as_object().into_iter().flatten().find(|(name, value)| b.get(name.as_str()) != Some(value));
    match differs {
        None => Ok(base),
        Some((name, value)) => {
            let found = &b[name];
            let reason = format!("`{key}.{name}` is {found}, `{old}` makes it {value}; take out the one not meant");
            Err(fields.error(reason))
        }
    }
}
