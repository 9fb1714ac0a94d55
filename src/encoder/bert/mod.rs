//! BERT (Devlin et al., 2019) and DistilBERT (Sanh et al., 2019).

mod config;
mod files;
mod names;
mod tower;
pub mod weights;

use std::path::Path;

pub use config::BertConfig;
pub use files::BertFiles;
pub use tower::BertTower;

use self::names::names;
use super::text::TextModel;
use super::transformer::Block;
use super::{Compute, Encoded, collect};
use crate::encoder::loader::Loader;
use crate::error::Result;
use crate::ops::embedding::Embedding;
use crate::ops::layer_norm::Norm;
use crate::ops::pool::mean;
use crate::tensor::{Sequences, Shards};

/// A transformer encoder; a text's global vector is the mean of its tokens' states.
pub struct Bert {
    config: BertConfig,
    embedding: Embedding,
    norm: Norm,
    blocks: Vec<Block>,
}

/// Reads the model, saved alone or with a head for some task.
pub(super) fn open(folder: &Path, shards: &Shards, compute: &Compute) -> Result<Box<dyn TextModel>> {
    let config = BertConfig::read(folder)?;
    let names = names(&config);
    let loader = Loader::new(shards, compute).under_if(names.part, "embeddings.word_embeddings.weight");
    let (width, sizes) = (config.hidden_size, config.sizes()?);
    let embeddings = loader.under("embeddings");
    // All texts are of the first type, where there are any.
    let types = match config.type_vocab_size {
        0 => None,
        types => Some(embeddings.tensor("token_type_embeddings.weight", &[types, width])?),
    };
    let tokens = ("word_embeddings", config.vocab_size);
    let positions = ("position_embeddings", config.max_position_embeddings);
    Ok(Box::new(Bert {
        embedding: embeddings.embedding(tokens, positions, width, types)?,
        norm: embeddings.norm("LayerNorm", width, config.layer_norm_eps)?.wide(),
        blocks: Block::read_all(&loader, (names.blocks, &names.block), config.num_hidden_layers, sizes)?,
        config,
    }))
}

impl TextModel for Bert {
    fn widths(&self) -> (usize, usize) {
        (self.config.hidden_size, self.config.hidden_size)
    }

    fn max_tokens(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn encode(&self, ids: &[&[u32]]) -> Result<Vec<Encoded>> {
        let texts = Sequences::new(ids.iter().map(|ids| ids.len()).collect());
        let mut x = self.norm.forward(&self.embedding.forward(ids)?)?;
        self.blocks.iter().try_for_each(|block| block.forward(&mut x, &texts))?;
        let global = mean(&x, &texts)?.into_vectors()?;
        collect(x, &texts, global)
    }
}
