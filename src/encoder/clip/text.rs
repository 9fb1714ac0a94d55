//! CLIP's text tower.

use super::config::{ClipConfig, TextConfig};
use crate::encoder::loader::Loader;
use crate::encoder::text::TextModel;
use crate::encoder::transformer::{Block, Layout};
use crate::encoder::{Encoded, collect, of_length_one};
use crate::error::Result;
use crate::ops::embedding::Embedding;
use crate::ops::layer_norm::Norm;
use crate::ops::linear::Linear;
use crate::tensor::Sequences;

/// A transformer whose tokens see only those before them; the last one's state says what the text does.
pub struct ClipText {
    config: TextConfig,
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: Norm,
    projection: Linear,
}

impl ClipText {
    pub(super) fn read(loader: &Loader, config: &ClipConfig) -> Result<ClipText> {
        let c = &config.text_config;
        let (width, sizes) = (c.hidden_size, c.sizes()?);
        let tower = loader.under("text_model");
        let tokens = ("embeddings.token_embedding", c.vocab_size);
        let positions = ("embeddings.position_embedding", c.max_position_embeddings);
        Ok(ClipText {
            embedding: tower.embedding(tokens, positions, width, None)?,
            blocks: Block::read_all(&tower, ("encoder.layers", &Layout::CLIP), c.num_hidden_layers, sizes)?,
            norm: tower.norm("final_layer_norm", width, c.layer_norm_eps)?.wide(),
            projection: loader.projection("text_projection", config.projection_dim, width)?.wide(),
            config: c.clone(),
        })
    }
}

impl TextModel for ClipText {
    fn widths(&self) -> (usize, usize) {
        (self.config.hidden_size, self.projection.outputs())
    }

    fn max_tokens(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn encode(&self, ids: &[&[u32]]) -> Result<Vec<Encoded>> {
        let texts = Sequences::new(ids.iter().map(|ids| ids.len()).collect());
        let mut x = self.embedding.forward(ids)?;
        self.blocks.iter().try_for_each(|block| block.forward(&mut x, &texts))?;
        let x = self.norm.forward(&x)?;
        let ends = ids.iter().zip(texts.ranges()).map(|(ids, rows)| Ok(rows.start + self.config.end_of(ids)?));
        let ends = x.select(&ends.collect::<Result<Vec<_>>>()?)?;
        collect(x, &texts, of_length_one(self.projection.forward(&ends)?)?)
    }
}
