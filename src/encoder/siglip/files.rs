//! A SigLIP's Hugging Face directory but for its weights; with trained ones it becomes a directory again.

use std::path::Path;

use rayon::prelude::*;

use super::config::SiglipConfig;
use super::text::Reading;
use super::towers::Towers;
use super::weights;
use crate::autograd::Parameters;
use crate::encoder::ImageProcessor;
use crate::encoder::processor::Kind;
use crate::encoder::trained::{self, Beside, Kept, Layers};
use crate::error::Result;
use crate::tensor::Precision;
use crate::tokenizer::Tokenizer;

/// Files of a directory that go with its weights where they are there.
const FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "preprocessor_config.json",
    "processor_config.json",
    // Last, so that a directory that was cut short has no configuration.
    "config.json",
];

/// See the module's documentation.
pub struct SiglipFiles {
    /// Sizes of both towers.
    pub config: SiglipConfig,
    /// Of its texts.
    pub tokenizer: Tokenizer,
    /// Of its images.
    pub processor: ImageProcessor,
    reading: Reading,
    files: Beside,
}

impl SiglipFiles {
    /// Of the model in a directory, whose files are taken as they are.
    pub fn read(folder: &Path) -> Result<SiglipFiles> {
        let config = SiglipConfig::read(folder)?;
        if let Some((name, size)) = config.absurd() {
            return Err(trained::absurd(folder, name, size));
        }
        let processor = ImageProcessor::open(folder, Kind::Siglip, Some(config.vision.image_size as u32))?;
        let tokenizer = Tokenizer::open(folder)?;
        let reading = Reading::of(folder, &tokenizer, config.text.pad_token_id)?;
        Ok(SiglipFiles { config, tokenizer, processor, reading, files: Beside::read(folder, &FILES)? })
    }

    /// Numbers of texts' tokens, cut to what the model takes and to so many. Fails if the model does not know one of them.
    pub fn tokens_at_most(&self, texts: &[&str], most: usize) -> Result<Vec<Vec<u32>>> {
        let tokenizer = self.tokenizer.at_most(most.min(self.config.text.max_position_embeddings))?;
        let encode = |text: &&str| {
            let ids = tokenizer.encode(&self.reading.prepared(text))?;
            self.tokenizer.expect_below(&ids, self.config.text.vocab_size)?;
            Ok(ids)
        };
        texts.par_iter().map(encode).collect()
    }

    /// The towers with weights on a tape.
    pub fn towers<'a>(&'a self, layers: Layers<'a>) -> Towers<'a> {
        Towers { config: &self.config, pad: self.reading.pad, layers }
    }

    /// Writes the directory with these weights in f32 or bf16, whole or not at all. They lie on the host.
    pub fn write(&self, parameters: &Parameters, precision: Precision, folder: &Path) -> Result<()> {
        let (renamed, all) = trained::weights::renamed(parameters, &weights::all(&self.config), weights::alias)?;
        let write = |path: &Path| trained::weights::write(&renamed, &all, &Kept::default(), precision, path);
        self.files.write(folder, "model.safetensors", write)
    }
}
