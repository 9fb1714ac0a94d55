//! A CLIP's directory but for its weights: of given sizes with a tokenizer that learns its words from texts, or of a model that
//! there is, as Hugging Face or as OpenCLIP keeps it. With trained weights it becomes a directory of the same kind again.

use std::ops::RangeInclusive;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::config::{ClipConfig, TextConfig, VisionConfig};
use super::random::{END_NUMBER, preprocessor, pretty, train_tokenizer};
use super::{open_clip, weights};
use crate::autograd::Parameters;
use crate::encoder::ImageProcessor;
use crate::encoder::loader::Alias;
use crate::encoder::processor::Kind;
use crate::encoder::trained::{self, Beside, Kept, LARGEST, MOST_LAYERS};
use crate::error::{Error, Result};
use crate::fields::{Fields, parse_json};
use crate::tensor::{Precision, Shards};
use crate::tokenizer::Tokenizer;

/// Files of a directory that go with its weights where they are there.
const FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    // Last, so that a directory that was cut short has no configuration.
    open_clip::CONFIG,
    "config.json",
];

/// Sizes of a vocabulary: at least one word beside the tokens for start, end and what is unknown.
const VOCABULARIES: RangeInclusive<usize> = 4..=1 << 20;

/// Sizes of a tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TowerSizes {
    /// Width of its states.
    pub width: usize,
    /// Its blocks.
    pub layers: usize,
    /// Heads of its attention.
    pub heads: usize,
    /// Width of its MLPs' hidden layer.
    pub inner: usize,
}

impl Default for TowerSizes {
    fn default() -> TowerSizes {
        TowerSizes { width: 128, layers: 3, heads: 4, inner: 512 }
    }
}

/// Sizes of a CLIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipSizes {
    /// The text tower.
    pub text: TowerSizes,
    /// The vision tower.
    pub vision: TowerSizes,
    /// Width of the global vectors.
    pub projection: usize,
    /// Width and height of the images.
    pub image_size: usize,
    /// Width and height of a patch.
    pub patch_size: usize,
    /// Most words and parts of words.
    pub vocabulary: usize,
    /// Most tokens of a text.
    pub max_tokens: usize,
}

impl Default for ClipSizes {
    fn default() -> ClipSizes {
        let (text, vision) = (TowerSizes::default(), TowerSizes::default());
        ClipSizes { text, vision, projection: 128, image_size: 64, patch_size: 8, vocabulary: 4000, max_tokens: 48 }
    }
}

impl ClipSizes {
    /// The configuration of a model of these sizes with all of its vocabulary. Fails if they make no sense or are absurd.
    pub fn checked(&self) -> Result<ClipConfig> {
        let config = self.config(self.vocabulary)?;
        check_sizes(&config)?;
        if !VOCABULARIES.contains(&self.vocabulary) {
            let (least, most) = (VOCABULARIES.start(), VOCABULARIES.end());
            return Err(Error::invalid(format!(
                "model: vocabulary = {}: {least} to {most} are learned",
                self.vocabulary
            )));
        }
        Ok(config)
    }

    /// The configuration of a model of these sizes with so many tokens. Fails if they make no sense.
    fn config(&self, vocab_size: usize) -> Result<ClipConfig> {
        let refuse = |what: String| Err(Error::invalid(format!("model: {what}")));
        let ClipSizes { text, vision, projection, max_tokens, patch_size, image_size, .. } = self;
        for (tower, sizes) in [("text", text), ("vision", vision)] {
            let TowerSizes { width, heads, inner, layers } = *sizes;
            let named = [("width", width), ("layers", layers), ("heads", heads), ("inner", inner)];
            if let Some((name, _)) = named.iter().find(|(_, size)| *size == 0) {
                return refuse(format!("{tower}.{name} = 0: must be at least 1"));
            }
            if !width.is_multiple_of(heads) {
                return refuse(format!("{tower}.heads = {heads} does not divide {tower}.width = {width}"));
            }
        }
        let least = [
            ("projection", *projection, 1),
            ("max_tokens", *max_tokens, 3),
            ("patch_size", *patch_size, 1),
            ("image_size", *image_size, 1),
        ];
        if let Some((name, size, least)) = least.iter().find(|(_, size, least)| size < least) {
            return refuse(format!("{name} = {size}: must be at least {least}"));
        }
        if !image_size.is_multiple_of(*patch_size) {
            return refuse(format!("patch_size = {patch_size} does not divide image_size = {image_size}"));
        }
        Ok(ClipConfig {
            model_type: "clip".into(),
            projection_dim: self.projection,
            text_config: TextConfig {
                vocab_size,
                hidden_size: text.width,
                intermediate_size: text.inner,
                num_hidden_layers: text.layers,
                num_attention_heads: text.heads,
                max_position_embeddings: self.max_tokens,
                eos_token_id: END_NUMBER,
                ..TextConfig::default()
            },
            vision_config: VisionConfig {
                hidden_size: vision.width,
                intermediate_size: vision.inner,
                num_hidden_layers: vision.layers,
                num_attention_heads: vision.heads,
                image_size: self.image_size,
                patch_size: self.patch_size,
                ..VisionConfig::default()
            },
        })
    }
}

/// Fails if a size is absurd.
fn check_sizes(config: &ClipConfig) -> Result<()> {
    let (text, vision) = (&config.text_config, &config.vision_config);
    let sizes = [
        ("text.width", text.hidden_size, LARGEST),
        ("vision.width", vision.hidden_size, LARGEST),
        ("text.layers", text.num_hidden_layers, MOST_LAYERS),
        ("vision.layers", vision.num_hidden_layers, MOST_LAYERS),
        ("text.inner", text.intermediate_size, LARGEST),
        ("vision.inner", vision.intermediate_size, LARGEST),
        ("projection", config.projection_dim, LARGEST),
        ("max_tokens", text.max_position_embeddings, LARGEST),
        ("image_size", vision.image_size, LARGEST),
        ("patch_size", vision.patch_size, LARGEST),
    ];
    match sizes.iter().find(|(_, size, most)| size > most) {
        None => Ok(()),
        Some((name, size, most)) => {
            Err(Error::invalid(format!("model: {name} = {size}: encoders of sizes up to {most} are trained")))
        }
    }
}

/// See the module's documentation.
pub struct ClipFiles {
    /// Sizes of both towers.
    pub config: ClipConfig,
    /// Of its texts.
    pub tokenizer: Tokenizer,
    /// Of its images.
    pub processor: ImageProcessor,
    files: Beside,
    /// Whether files go by OpenCLIP's names.
    open_clip: bool,
}

impl ClipFiles {
    /// Of a model of these sizes. The tokenizer's words are learned from `texts`.
    pub fn new<'a>(sizes: &ClipSizes, texts: impl Iterator<Item = &'a str> + Send) -> Result<ClipFiles> {
        // Before anything is learned.
        sizes.checked()?;
        let (tokenizer, vocabulary) = train_tokenizer(texts, sizes.vocabulary)?;
        let config = sizes.config(vocabulary)?;
        let json = serde_json::to_value(&config).map_err(|e| Error::invalid(e.to_string()))?;
        let prepared = preprocessor(sizes.image_size);
        let processor = match &prepared {
            serde_json::Value::Object(entries) => {
                let fields = Fields::of(Path::new("preprocessor_config.json"), entries.clone());
                ImageProcessor::of(&fields, Kind::Clip, Some(sizes.image_size as u32))?
            }
            _ => return Err(Error::invalid("settings of images that are no object")),
        };
        let path = Path::new("tokenizer.json");
        let files = vec![
            ("tokenizer.json", tokenizer.clone().into_bytes()),
            ("preprocessor_config.json", pretty(&prepared)?.into_bytes()),
            ("config.json", pretty(&json)?.into_bytes()),
        ];
        let tokenizer = Tokenizer::of(path, parse_json(path, &tokenizer)?)?;
        Ok(ClipFiles { config, tokenizer, processor, files: Beside::new(files), open_clip: false })
    }

    /// Of the model in a directory, whose files are taken as they are.
    pub fn read(folder: &Path) -> Result<ClipFiles> {
        let config = ClipConfig::read(folder)?;
        for (tower, sizes) in
            [("text_config", config.text_config.sizes()), ("vision_config", config.vision_config.sizes())]
        {
            sizes.map_err(|e| super::refused(folder, tower, e))?;
        }
        check_sizes(&config).map_err(|e| Error::file(super::config_file(folder), e.to_string()))?;
        let processor = super::processor(folder, &config)?;
        let (tokenizer, open_clip) = (Tokenizer::open(folder)?, open_clip::is_in(folder));
        Ok(ClipFiles { config, tokenizer, processor, files: Beside::read(folder, &FILES)?, open_clip })
    }

    /// Reads the weights of the directory that these are the files of.
    pub fn weights(&self, shards: &Shards) -> Result<Parameters> {
        let alias = if self.open_clip { open_clip::alias } else { Alias::same };
        weights::read_as(shards, &self.config, alias)
    }

    /// Numbers of texts' tokens, cut to what the model takes. Fails if the model does not know one of them.
    pub fn tokens(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>> {
        self.tokens_at_most(texts, usize::MAX)
    }

    /// The same of at most so many tokens.
    pub fn tokens_at_most(&self, texts: &[&str], most: usize) -> Result<Vec<Vec<u32>>> {
        let config = &self.config.text_config;
        let tokenizer = self.tokenizer.at_most(most.min(config.max_position_embeddings))?;
        let encode = |text: &&str| {
            let ids = tokenizer.encode(text)?;
            config.end_of(&ids).map_err(|e| Error::file(self.tokenizer.path(), e.to_string()))?;
            self.tokenizer.expect_below(&ids, config.vocab_size)?;
            Ok(ids)
        };
        texts.par_iter().map(encode).collect()
    }

    /// A checksum of the files.
    pub fn checksum(&self) -> String {
        self.files.checksum()
    }

    /// Writes the directory with these weights in f32 or bf16, whole or not at all. They lie on the host.
    pub fn write(&self, parameters: &Parameters, precision: Precision, folder: &Path) -> Result<()> {
        let all = weights::all(&self.config);
        if self.open_clip {
            let (renamed, all) = trained::weights::renamed(parameters, &all, open_clip::alias)?;
            let write = |path: &Path| trained::weights::write(&renamed, &all, &Kept::default(), precision, path);
            return self.files.write(folder, open_clip::WEIGHTS, write);
        }
        let write = |path: &Path| trained::weights::write(parameters, &all, &Kept::default(), precision, path);
        self.files.write(folder, "model.safetensors", write)
    }
}
