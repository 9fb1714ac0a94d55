//! Texts to token numbers and back, by the tokenizer that a model ships.

mod file;
mod growth;
mod learning;
mod settings;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenizers::TruncationParams;

pub use self::learning::{failed, learned};
use crate::error::{Error, Result};
use crate::fields::read_json;
use crate::guard::{self, Failure};

/// Longest time, in seconds, for a text of up to [`BYTES_PER_SECOND`]; each further so many bytes have one second more. What
/// is published takes microseconds for a sentence and a second for some megabytes.
const SECONDS: u64 = 10;

/// See [`SECONDS`].
const BYTES_PER_SECOND: usize = 50_000;

/// Most characters of a text that an error repeats.
const SHOWN: usize = 60;

/// The file of a model's tokenizer.
pub const FILE: &str = "tokenizer.json";

/// A model's `tokenizer.json`.
pub struct Tokenizer {
    path: PathBuf,
    inner: Arc<tokenizers::Tokenizer>,
    /// Longest time for a text, see [`SECONDS`].
    seconds: u64,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model's folder.
    pub fn open(folder: &Path) -> Result<Tokenizer> {
        let path = folder.join(FILE);
        if !path.exists() {
            let reason = "is missing; save the model's fast tokenizer (`tokenizer.save_pretrained`) beside its weights";
            return Err(Error::file(&path, reason));
        }
        let tokenizer = Tokenizer::of(&path, read_json(&path)?)?;
        settings::check(folder, &tokenizer)?;
        Ok(tokenizer)
    }

    /// What a file says that `tokenizer.json` would say.
    pub fn of(path: &Path, file: serde_json::Value) -> Result<Tokenizer> {
        file::check(path, &file)?;
        growth::check(path, &file)?;
        let inner = Arc::new(file::read(path, file)?);
        Ok(Tokenizer { path: path.to_path_buf(), inner, seconds: SECONDS })
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Token numbers of a text, with the model's special tokens if `special`.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        self.encode_by(&self.inner, text, special)
    }

    fn encode_by(&self, inner: &Arc<tokenizers::Tokenizer>, text: &str, special: bool) -> Result<Vec<u32>> {
        let (inner, owned) = (Arc::clone(inner), text.to_string());
        let encode = move || match inner.encode_fast(owned, special) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(e) => Err(e.to_string()),
        };
        self.bounded(text.len(), encode, || {
            let start: String = text.chars().take(SHOWN).collect();
            format!("tokenize {start:?}, a text of {} bytes", text.len())
        })
    }

    /// What the library makes of so many bytes, in the time that these may take.
    fn bounded<T: Send + 'static>(
        &self,
        bytes: usize,
        run: impl FnOnce() -> Result<T, String> + Send + 'static,
        what: impl FnOnce() -> String,
    ) -> Result<T> {
        let seconds = self.seconds + (bytes / BYTES_PER_SECOND) as u64;
        let failure = match guard::within(seconds, run) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) | Err(Failure::Broken(reason)) => reason,
            Err(Failure::Late) => format!(
                "it has not ended after {seconds} s; take the tokenizer.json that the model was published with, or shorter texts"
            ),
        };
        Err(Error::file(&self.path, format!("cannot {}: {failure}", what())))
    }

    /// Fails if one of a text's tokens is none that a model with so many knows.
    pub fn expect_below(&self, ids: &[u32], vocabulary: usize) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= vocabulary) {
            None => Ok(()),
            Some(id) => {
                let reason = format!("gives token {id}, of which the model in config.json has {vocabulary}");
                Err(Error::file(&self.path, reason))
            }
        }
    }

    /// The same tokenizer, cutting texts to `max_tokens` with their special tokens.
    pub fn at_most(&self, max_tokens: usize) -> Result<Bounded<'_>> {
        let special = self.encode("", true)?.len();
        if max_tokens <= special {
            let reason = format!("max_tokens = {max_tokens} leaves no room beside the {special} special tokens");
            return Err(Error::invalid(reason));
        }
        let mut inner = tokenizers::Tokenizer::clone(&self.inner);
        let truncation = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
        inner.with_truncation(Some(truncation)).map_err(|e| Error::file(&self.path, e.to_string()))?;
        Ok(Bounded { tokenizer: self, inner: Arc::new(inner) })
    }

    /// The text of tokens, without special ones.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let (inner, owned) = (Arc::clone(&self.inner), ids.to_vec());
        let decode = move || inner.decode(&owned, true).map_err(|e| e.to_string());
        self.bounded(size_of_val(ids), decode, || format!("decode {} tokens", ids.len()))
    }

    /// What each token reads as alone, in the order of their numbers; special ones as nothing.
    pub fn pieces(&self) -> Result<Vec<(u32, String)>> {
        let inner = Arc::clone(&self.inner);
        let ids: BTreeSet<u32> = inner.get_vocab(true).into_values().collect();
        let bytes = ids.len() * size_of::<u32>();
        let decode = move || {
            let piece = |id: u32| Ok((id, inner.decode(&[id], true).map_err(|e| e.to_string())?));
            ids.into_iter().map(piece).collect()
        };
        self.bounded(bytes, decode, || "decode its vocabulary".into())
    }

    /// Numbers that tokens have: one more than the highest.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |highest| highest as usize + 1)
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
    inner: Arc<tokenizers::Tokenizer>,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_that_takes_too_long_is_an_error_that_names_file_and_length() {
        let folder = tempfile::tempdir().unwrap();
        let model = json!({"type": "WordPiece", "vocab": {"[UNK]": 0, "a": 1, "##a": 2}, "unk_token": "[UNK]",
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 1u64 << 40});
        let file = json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": null, "model": model});
        std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
        let tokenizer = Tokenizer { seconds: 1, ..Tokenizer::open(folder.path()).unwrap() };
        // A word of n letters is looked up from each of them to each later one: n^3 / 6 bytes are hashed.
        let error = tokenizer.encode(&"a".repeat(8000), false).unwrap_err().to_string();
        for said in ["tokenizer.json: cannot tokenize \"aaa", "of 8000 bytes", "not ended after 1 s", "published with"]
        {
            assert!(error.contains(said), "{error}");
        }
        // Others are not held up.
        assert_eq!(tokenizer.encode("aaa", false).unwrap(), [1, 2, 2]);
        assert_eq!(tokenizer.pieces().unwrap(), [(0, "[UNK]".into()), (1, "a".into()), (2, "##a".into())]);
    }
}
