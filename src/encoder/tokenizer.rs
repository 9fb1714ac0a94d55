//! Texts to token numbers, by the tokenizer that a model ships.

use std::path::{Path, PathBuf};

use tokenizers::TruncationParams;

use crate::error::{Error, Result};

/// A model's `tokenizer.json`.
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model's folder.
    pub fn open(folder: &Path) -> Result<Tokenizer> {
        let path = folder.join("tokenizer.json");
        if !path.exists() {
            let reason = "is missing; save the model's fast tokenizer (`tokenizer.save_pretrained`) beside its weights";
            return Err(Error::file(&path, reason));
        }
        let mut inner = tokenizers::Tokenizer::from_file(&path)
            .map_err(|e| Error::file(&path, format!("cannot be read as a tokenizer: {e}")))?;
        inner.with_padding(None);
        Ok(Tokenizer { path, inner })
    }

    /// Token numbers of a text with the model's special tokens, at most `max_tokens` in all.
    pub fn encode(&self, text: &str, max_tokens: usize) -> Result<Vec<u32>> {
        self.at_most(max_tokens)?.ids(text)
    }

    /// The same tokenizer, cutting texts to `max_tokens` with their special tokens.
    pub fn at_most(&self, max_tokens: usize) -> Result<Bounded<'_>> {
        let special = self.ids_of(&self.inner, "")?.len();
        if max_tokens <= special {
            let reason = format!("max_tokens = {max_tokens} leaves no room beside the {special} special tokens");
            return Err(Error::invalid(reason));
        }
        let mut inner = self.inner.clone();
        let truncation = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
        inner.with_truncation(Some(truncation)).map_err(|e| Error::file(&self.path, e.to_string()))?;
        Ok(Bounded { tokenizer: self, inner })
    }

    fn ids_of(&self, inner: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>> {
        let encoding = inner.encode_fast(text, true);
        let encoding = encoding.map_err(|e| Error::file(&self.path, format!("cannot tokenize {text:?}: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// A tokenizer with a limit.
pub struct Bounded<'a> {
    tokenizer: &'a Tokenizer,
    inner: tokenizers::Tokenizer,
}

impl Bounded<'_> {
    /// Token numbers of a text.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.ids_of(&self.inner, text)
    }
}
