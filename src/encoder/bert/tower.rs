//! BERT on a tape, to be trained: what [`Bert`](super::Bert) computes, of parameters by the names that files give them.

use super::config::BertConfig;
use super::names::names;
use crate::encoder::trained::{Layers, States};
use crate::error::Result;
use crate::ops::{Pooling, SequencePool};

/// The model of a configuration on a tape.
pub struct BertTower<'a> {
    /// Its sizes.
    pub config: &'a BertConfig,
    /// The weights, as [`read`](super::weights::read) reads them.
    pub layers: Layers<'a>,
}

impl BertTower<'_> {
    /// All that it says of texts given by the numbers of their tokens. There is no dropout.
    pub fn text_states(&self, ids: &[&[u32]]) -> Result<States> {
        let (config, layers, names) = (self.config, &self.layers, names(self.config));
        let (tokens, places, sequences) = layers.tokens(ids, config.max_position_embeddings)?;
        let rows = tokens.len();
        let words = layers.rows("embeddings.word_embeddings.weight", tokens)?;
        let places = layers.rows("embeddings.position_embeddings.weight", places)?;
        let x = match config.type_vocab_size {
            0 => layers.sum(&[&words, &places]),
            // All texts are of the first type.
            _ => {
                layers.sum(&[&words, &places, &layers.rows("embeddings.token_type_embeddings.weight", vec![0; rows])?])
            }
        }?;
        let x = layers.norm("embeddings.LayerNorm", config.layer_norm_eps, &x)?;
        let blocks = (names.blocks, &names.block);
        let tokens = layers.blocks(blocks, config.num_hidden_layers, &config.sizes()?, x, &sequences)?;
        let pool = SequencePool { sequences: sequences.clone(), kind: Pooling::Mean };
        let global = layers.tape.apply(pool, &[&tokens])?;
        Ok(States { tokens, sequences, global })
    }
}
