//! Texts to token numbers and back, by the tokenizer that a model ships.

mod file;
mod settings;

use std::path::{Path, PathBuf};

use tokenizers::TruncationParams;

use crate::error::{Error, Result};
use crate::fields::read_json;
use crate::guard::caught;

/// Most characters of a text that an error repeats.
const SHOWN: usize = 60;

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
        let file = read_json(&path)?;
        file::check(&path, &file)?;
        let inner = file::read(&path, file)?;
        let tokenizer = Tokenizer { path, inner };
        settings::check(folder, &tokenizer)?;
        Ok(tokenizer)
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Token numbers of a text, with the model's special tokens if `special`.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        self.encode_by(&self.inner, text, special)
    }

    fn encode_by(&self, inner: &tokenizers::Tokenizer, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = caught(|| inner.encode_fast(text, special).map_err(|e| e.to_string())).flatten();
        let encoding = encoding.map_err(|e| {
            let start: String = text.chars().take(SHOWN).collect();
            Error::file(&self.path, format!("cannot tokenize {start:?}: {e}"))
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The same tokenizer, cutting texts to `max_tokens` with their special tokens.
    pub fn at_most(&self, max_tokens: usize) -> Result<Bounded<'_>> {
        let special = self.encode("", true)?.len();
        if max_tokens <= special {
            let reason = format!("max_tokens = {max_tokens} leaves no room beside the {special} special tokens");
            return Err(Error::invalid(reason));
        }
        let mut inner = self.inner.clone();
        let truncation = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
        inner.with_truncation(Some(truncation)).map_err(|e| Error::file(&self.path, e.to_string()))?;
        Ok(Bounded { tokenizer: self, inner })
    }

    /// The text of tokens, without special ones.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let text = caught(|| self.inner.decode(ids, true).map_err(|e| e.to_string())).flatten();
        text.map_err(|e| Error::file(&self.path, format!("cannot decode tokens: {e}")))
    }

    /// The number of a token as it stands in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Decodes an answer token by token.
    pub fn stream(&self) -> Streaming<'_> {
        Streaming { tokenizer: self, ids: Vec::new(), shown: 0, text: 0 }
    }
}

/// A tokenizer with a limit.
pub struct Bounded<'a> {
    tokenizer: &'a Tokenizer,
    inner: tokenizers::Tokenizer,
}

impl Bounded<'_> {
    /// Token numbers of a text with the model's special tokens, cut to the limit.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode_by(&self.inner, text, true)
    }
}

/// The text of tokens that arrive one after the other. A character may need several, and what a token reads as depends on
/// the ones before it, so text is given out only when it is settled.
pub struct Streaming<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens from the last one that was shown in full, which gives those after it their spaces.
    ids: Vec<u32>,
    /// Of these, the tokens whose text was given out.
    shown: usize,
    /// Length of their text in bytes.
    text: usize,
}

impl Streaming<'_> {
    /// The text that a further token settles; empty if it is not settled yet.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let new = text.get(self.text..).unwrap_or_default().to_string();
        // Keep one token of context.
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        self.text = self.tokenizer.decode(&self.ids)?.len();
        Ok(new)
    }

    /// What is left at the end: an unfinished character.
    pub fn finish(self) -> Result<String> {
        Ok(self.tokenizer.decode(&self.ids)?.get(self.text..).unwrap_or_default().to_string())
    }
}
