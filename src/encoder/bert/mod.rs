//! BERT (Devlin et al., 2019) and DistilBERT (Sanh et al., 2019).

mod config;

use std::path::Path;

pub use config::BertConfig;

use super::text::TextModel;
use super::transformer::{Block, Layout};
use super::{Compute, Encoded, collect};
use crate::encoder::loader::Loader;
use crate::error::Result;
use crate::ops::embedding::Embedding;
use crate::ops::layer_norm::Norm;
use crate::ops::pool::mean;
use crate::tensor::{Sequences, Shards};

/// Where the layers of a model lie.
struct Names {
    /// What its tensors begin with where it was saved with a head for some task.
    part: &'static str,
    /// Its blocks, each under its number.
    blocks: &'static str,
    block: Layout,
}

const BERT: Names = Names {
    part: "bert",
    blocks: "encoder.layer",
    block: Layout {
        norm_first: false,
        qkv: ["attention.self.query", "attention.self.key", "attention.self.value"],
        out: "attention.output.dense",
        norm1: "attention.output.LayerNorm",
        up: "intermediate.dense",
        down: "output.dense",
        norm2: "output.LayerNorm",
    },
};

const DISTILBERT: Names = Names {
    part: "distilbert",
    blocks: "transformer.layer",
    block: Layout {
        norm_first: false,
        qkv: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
        out: "attention.out_lin",
        norm1: "sa_layer_norm",
        up: "ffn.lin1",
        down: "ffn.lin2",
        norm2: "output_layer_norm",
    },
};

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
    let names = if config.distilled { DISTILBERT } else { BERT };
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
    let block = |i: usize| Block::read(&loader.under(&format!("{}.{i}", names.blocks)), &names.block, sizes);
    Ok(Box::new(Bert {
        embedding: embeddings.embedding(tokens, positions, width, types)?,
        norm: embeddings.norm("LayerNorm", width, config.layer_norm_eps)?.wide(),
        blocks: (0..config.num_hidden_layers).map(block).collect::<Result<_>>()?,
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
