//! Encoding texts: tokens, batches, and back to the order of the texts.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::path::Path;

use rayon::prelude::*;

use super::directory::Directory;
use super::portion::Portion;
use super::{Compute, Encoded};
use crate::error::{Error, Result};
use crate::span;
use crate::tokenizer::Tokenizer;
use crate::trace::on_device;

/// A model of texts.
pub trait TextModel: Send + Sync {
    /// Widths of token states and of the global vector.
    fn widths(&self) -> (usize, usize);

    /// Most tokens of a text.
    fn max_tokens(&self) -> usize;

    /// A text as the tokenizer is to read it.
    fn prepared<'t>(&self, text: &'t str) -> Cow<'t, str> {
        text.into()
    }

    /// Tokens that are computed for a text of so many: more, if the model fills texts up.
    fn computed(&self, tokens: usize) -> usize {
        tokens
    }

    /// Encodes texts given by the numbers of their tokens.
    fn encode(&self, ids: &[&[u32]]) -> Result<Vec<Encoded>>;
}

/// Texts that are tokenized at a time, side by side.
const CHUNK: usize = 256;

/// A model of texts with its tokenizer.
pub struct TextEncoder {
    pub(super) identity: String,
    pub(super) tokenizer: Tokenizer,
    pub(super) model: Box<dyn TextModel>,
    pub(super) tokens: Portion,
}

impl TextEncoder {
    /// Opens a Hugging Face directory of a CLIP, a SigLIP or a BERT.
    pub fn open(folder: &Path, compute: impl Into<Compute>) -> Result<TextEncoder> {
        Directory::open(folder)?.text(&compute.into())
    }

    /// Kind and fingerprint, as a store's manifest records it.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Widths of token states and of the global vector.
    pub fn widths(&self) -> (usize, usize) {
        self.model.widths()
    }

    /// Encodes texts, each cut to `max_tokens` and else at its own length.
    pub fn encode_texts(&self, texts: &[&str], max_tokens: usize) -> Result<Vec<Encoded>> {
        self.encode_ids(&self.tokenize(texts, max_tokens)?)
    }

    /// The numbers of texts' tokens, at most `max_tokens` of each text and no more than the model takes.
    pub fn tokenize(&self, texts: &[&str], max_tokens: usize) -> Result<Vec<Vec<u32>>> {
        let _span = span!("tokens");
        let tokenizer = self.tokenizer.at_most(max_tokens.min(self.model.max_tokens()))?;
        texts.par_iter().map(|text| tokenizer.encode(&self.model.prepared(text))).collect()
    }

    /// The same in groups of as many texts as are worth encoding together, each group when it is asked for.
    pub fn groups<'t>(
        &'t self,
        texts: &'t [String],
        max_tokens: usize,
    ) -> Result<impl Iterator<Item = Result<Vec<Vec<u32>>>> + Send + 't> {
        let tokenizer = self.tokenizer.at_most(max_tokens.min(self.model.max_tokens()))?;
        let (mut chunks, mut waiting) = (texts.chunks(CHUNK), VecDeque::new());
        Ok(std::iter::from_fn(move || {
            let _span = span!("tokens");
            let mut tokens: usize = waiting.iter().map(Vec::len).sum();
            while tokens < self.tokens.group {
                let Some(chunk) = chunks.next() else { break };
                let encode = |text: &String| tokenizer.encode(&self.model.prepared(text));
                match chunk.par_iter().map(encode).collect::<Result<Vec<_>>>() {
                    Ok(ids) => {
                        tokens += ids.iter().map(Vec::len).sum::<usize>();
                        waiting.extend(ids);
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
            let group = take_group(&mut waiting, self.tokens.group);
            (!group.is_empty()).then_some(Ok(group))
        }))
    }

    /// Encodes texts given by the numbers of their tokens.
    pub fn encode_ids(&self, ids: &[Vec<u32>]) -> Result<Vec<Encoded>> {
        let _span = (span!("forward of texts"), on_device(self.tokens.gpu.as_ref(), "forward of texts", ""));
        let lengths: Vec<usize> = ids.iter().map(|ids| self.model.computed(ids.len())).collect();
        let batches = batches(&lengths, self.tokens.pass);
        // Batches side by side: their layers need not wait for each other.
        let run = |batch: &Vec<usize>| self.model.encode(&batch.iter().map(|&i| ids[i].as_slice()).collect::<Vec<_>>());
        let done: Result<Vec<Vec<Encoded>>> = batches.par_iter().map(run).collect();
        let done = done.map_err(|error| match error {
            Error::Invalid(reason) => Error::file(self.tokenizer.path(), reason),
            error => error,
        })?;
        let mut encoded = vec![None; ids.len()];
        for (i, text) in batches.into_iter().flatten().zip(done.into_iter().flatten()) {
            encoded[i] = Some(text);
        }
        let whole: Option<Vec<Encoded>> = encoded.into_iter().collect();
        whole.ok_or_else(|| Error::invalid("the text encoder left out a text"))
    }
}

/// Takes texts from the front: as many as have this many tokens together, and one at least.
fn take_group(waiting: &mut VecDeque<Vec<u32>>, most: usize) -> Vec<Vec<u32>> {
    let mut tokens = 0;
    let fits = |ids: &&Vec<u32>| {
        tokens += ids.len();
        tokens <= most
    };
    let count = waiting.iter().take_while(fits).count().max(1).min(waiting.len());
    waiting.drain(..count).collect()
}

/// Numbers of the texts of each forward pass of at most so many tokens: by length, so that those of a pass take about as long.
fn batches(lengths: &[usize], most: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| lengths[i]);
    let (mut batches, mut tokens) = (Vec::new(), most + 1);
    for i in order {
        tokens += lengths[i];
        if tokens > most {
            batches.push(Vec::new());
            tokens = lengths[i];
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(i);
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_in_one_batch() {
        let lengths: Vec<usize> = (0..500).map(|i| 1 + i * 37 % 77).chain([3000]).collect();
        let batches = batches(&lengths, 1024);
        let mut all = batches.concat();
        all.sort();
        assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
        let tokens = |batch: &Vec<usize>| batch.iter().map(|&i| lengths[i]).sum::<usize>();
        assert!(batches.iter().all(|batch| tokens(batch) <= 1024 || batch.len() == 1));
        assert!(batches.len() < 25 && super::batches(&[], 1024).is_empty());
    }

    #[test]
    fn groups_hold_what_fits_and_one_text_at_least() {
        let mut waiting: VecDeque<Vec<u32>> = [3, 4, 9, 2].map(|length| vec![0; length]).into();
        let mut take = || take_group(&mut waiting, 8).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!([take(), take(), take(), take()], [vec![3, 4], vec![9], vec![2], vec![]]);
    }
}
