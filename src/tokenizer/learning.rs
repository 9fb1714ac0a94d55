//! Learning a tokenizer's words from texts.

use std::fmt::Display;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{Decoder, Normalizer, PostProcessor, PreTokenizer, TokenizerImpl};

use crate::error::{Error, Result};
use crate::guard::{self, Failure};
use crate::interrupt;

/// An error of making a tokenizer or of its learning.
pub fn failed(reason: &dyn Display) -> Error {
    Error::invalid(format!("training the tokenizer: {reason}"))
}

/// The tokenizer with the words that its trainer finds in these texts.
///
/// Fails at the first signal that asks this process to stop: the library, which goes on for minutes where texts are many, is
/// left to itself then.
pub fn learned<N, PT, PP, D>(
    mut tokenizer: TokenizerImpl<BPE, N, PT, PP, D>,
    mut trainer: BpeTrainer,
    texts: Vec<String>,
) -> Result<TokenizerImpl<BPE, N, PT, PP, D>>
where
    N: Normalizer + Send + Sync + 'static,
    PT: PreTokenizer + Send + Sync + 'static,
    PP: PostProcessor + Send + Sync + 'static,
    D: Decoder + Send + Sync + 'static,
{
    let learn = move || match tokenizer.train(&mut trainer, texts.into_iter()) {
        Ok(_) => Ok(tokenizer),
        Err(e) => Err(e.to_string()),
    };
    match guard::until_asked(learn) {
        Ok(learned) => learned.map_err(|reason| failed(&reason)),
        Err(Failure::Broken(reason)) => Err(failed(&reason)),
        Err(Failure::Late) => {
            interrupt::check(|| "the tokenizer was not learned yet, and nothing is kept".into())?;
            Err(failed(&"it was given up"))
        }
    }
}
