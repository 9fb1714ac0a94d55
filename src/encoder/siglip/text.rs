//! SigLIP's text tower.

use std::borrow::Cow;
use std::path::Path;

use super::config::TextConfig;
use crate::encoder::loader::Loader;
use crate::encoder::text::TextModel;
use crate::encoder::transformer::{Block, Layout};
use crate::encoder::{Encoded, of_length_one};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::ops::embedding::Embedding;
use crate::ops::layer_norm::Norm;
use crate::ops::linear::Linear;
use crate::tensor::Sequences;
use crate::tokenizer::Tokenizer;

/// How texts become what the tower was trained on.
pub struct Reading {
    /// Whether ASCII punctuation is left out (SigLIP; the tokenizer of SigLIP 2 knows it).
    without_punctuation: bool,
    /// What fills a text up to the length that all had in training: the tower attends to it.
    pub pad: u32,
}

impl Reading {
    /// Of `tokenizer_config.json`, whose class says which of the two it is.
    pub fn of(folder: &Path, tokenizer: &Tokenizer, pad: u32) -> Result<Reading> {
        let path = folder.join("tokenizer_config.json");
        if !path.exists() {
            let reason = "is missing; it says how a SigLIP reads texts: copy it from where the model was published";
            return Err(Error::file(path, reason));
        }
        let settings = Fields::read(&path)?;
        let without_punctuation = match settings.text("tokenizer_class")? {
            Some("SiglipTokenizer" | "T5Tokenizer" | "T5TokenizerFast") => true,
            Some("Siglip2Tokenizer" | "GemmaTokenizer" | "GemmaTokenizerFast") => false,
            _ => return Err(settings.wrong("tokenizer_class", "SiglipTokenizer, Siglip2Tokenizer or GemmaTokenizer")),
        };
        let token = settings.get("pad_token").and_then(|t| t.as_str().or_else(|| t.get("content")?.as_str()));
        let pad = match token {
            None => pad,
            Some(token) => {
                tokenizer.id(token).ok_or_else(|| settings.wrong("pad_token", "a token of tokenizer.json"))?
            }
        };
        Ok(Reading { without_punctuation, pad })
    }

    /// Lower case, and for SigLIP no punctuation and no more than one space between words.
    pub fn prepared(&self, text: &str) -> String {
        let lower = text.to_lowercase();
        match self.without_punctuation {
            false => lower,
            true => {
                let kept: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
                kept.split_whitespace().collect::<Vec<_>>().join(" ")
            }
        }
    }
}

/// A transformer over a text that is filled up to one length; the state of the last place says what the text does.
pub struct SiglipText {
    config: TextConfig,
    reading: Reading,
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: Norm,
    head: Linear,
}

impl SiglipText {
    pub(super) fn read(loader: &Loader, config: TextConfig, reading: Reading) -> Result<SiglipText> {
        let (width, sizes) = (config.tower.hidden_size, config.tower.sizes);
        let tower = loader.under("text_model");
        let tokens = ("embeddings.token_embedding", config.vocab_size);
        let positions = ("embeddings.position_embedding", config.max_position_embeddings);
        Ok(SiglipText {
            embedding: tower.embedding(tokens, positions, width, None)?,
            blocks: Block::read_all(&tower, ("encoder.layers", &Layout::CLIP), config.tower.num_hidden_layers, sizes)?,
            norm: tower.norm("final_layer_norm", width, sizes.eps)?.wide(),
            head: tower.dense("head", config.projection_size, width)?.wide(),
            reading,
            config,
        })
    }
}

impl TextModel for SiglipText {
    fn widths(&self) -> (usize, usize) {
        (self.config.tower.hidden_size, self.config.projection_size)
    }

    fn max_tokens(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn prepared<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.reading.prepared(text).into()
    }

    fn computed(&self, _: usize) -> usize {
        self.config.max_position_embeddings
    }

    /// The states are those of a text's own tokens, not of what fills it up.
    fn encode(&self, ids: &[&[u32]]) -> Result<Vec<Encoded>> {
        let length = self.config.max_position_embeddings;
        if ids.iter().any(|ids| ids.len() > length) {
            return Err(Error::shape("siglip", format!("a text of more than {length} tokens")));
        }
        let filled: Vec<Vec<u32>> =
            ids.iter().map(|ids| [*ids, &vec![self.reading.pad; length - ids.len()]].concat()).collect();
        let filled: Vec<&[u32]> = filled.iter().map(Vec::as_slice).collect();
        let texts = Sequences::equal(ids.len(), length);
        let mut x = self.embedding.forward(&filled)?;
        self.blocks.iter().try_for_each(|block| block.forward(&mut x, &texts))?;
        let x = self.norm.forward(&x)?;
        let last = x.select(&texts.ranges().map(|rows| rows.end - 1).collect::<Vec<_>>())?;
        let global = of_length_one(self.head.forward(&last)?)?;
        let (width, x) = (x.width(), x.into_host()?);
        let own = x.chunks_exact(length * width).zip(ids).map(|(rows, ids)| rows[..ids.len() * width].to_vec());
        Ok(own.zip(global).map(|(tokens, global)| Encoded { tokens, global }).collect())
    }
}
