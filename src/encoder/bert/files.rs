//! A BERT's Hugging Face directory but for its weights; with trained ones it becomes a directory again.

use std::path::Path;

use rayon::prelude::*;

use super::config::BertConfig;
use super::weights;
use crate::autograd::Parameters;
use crate::encoder::trained::{self, Beside, Kept};
use crate::error::Result;
use crate::tensor::Precision;
use crate::tokenizer::Tokenizer;

/// Files of a directory that go with its weights where they are there.
const FILES: [&str; 5] =
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "config.json"];

/// See the module's documentation.
pub struct BertFiles {
    /// Sizes of the model.
    pub config: BertConfig,
    /// Of its texts.
    pub tokenizer: Tokenizer,
    files: Beside,
}

impl BertFiles {
    /// Of the model in a directory, whose files are taken as they are.
    pub fn read(folder: &Path) -> Result<BertFiles> {
        let config = BertConfig::read(folder)?;
        if let Some((name, size)) = config.absurd() {
            return Err(trained::absurd(folder, name, size));
        }
        Ok(BertFiles { config, tokenizer: Tokenizer::open(folder)?, files: Beside::read(folder, &FILES)? })
    }

    /// Numbers of texts' tokens, cut to what the model takes and to so many. Fails if the model does not know one of them.
    pub fn tokens_at_most(&self, texts: &[&str], most: usize) -> Result<Vec<Vec<u32>>> {
        let tokenizer = self.tokenizer.at_most(most.min(self.config.max_position_embeddings))?;
        let encode = |text: &&str| {
            let ids = tokenizer.encode(text)?;
            self.tokenizer.expect_below(&ids, self.config.vocab_size)?;
            Ok(ids)
        };
        texts.par_iter().map(encode).collect()
    }

    /// Writes the directory with these weights in f32 or bf16, whole or not at all. They lie on the host.
    pub fn write(&self, parameters: &Parameters, precision: Precision, folder: &Path) -> Result<()> {
        let all = weights::all(&self.config);
        let write = |path: &Path| trained::weights::write(parameters, &all, &Kept::default(), precision, path);
        self.files.write(folder, "model.safetensors", write)
    }
}
