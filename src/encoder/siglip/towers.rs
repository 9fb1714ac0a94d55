//! SigLIP's two towers on a tape, to be trained: what [`SiglipText`](super::text::SiglipText) and
//! [`SiglipVision`](super::vision::SiglipVision) compute, of parameters by the names that files give them.

use super::config::SiglipConfig;
use super::weights::POOLING;
use crate::autograd::Var;
use crate::encoder::trained::{Layers, States};
use crate::encoder::transformer::Layout;
use crate::error::Result;
use crate::ops::{Attention, Normalize, Pairing};
use crate::tensor::{Ragged, Textbook};

/// The towers of a configuration on a tape.
pub struct Towers<'a> {
    /// Sizes of both.
    pub config: &'a SiglipConfig,
    /// What fills up texts.
    pub pad: u32,
    /// The weights, as [`read`](super::weights::read) reads them.
    pub layers: Layers<'a>,
}

impl Towers<'_> {
    /// All that the text tower says of texts given by the numbers of their tokens. It reads them filled up to one length; the
    /// states are those of their own tokens.
    pub fn text_states(&self, ids: &[&[u32]]) -> Result<States> {
        let (config, layers) = (&self.config.text, &self.layers);
        let (length, sizes) = (config.max_position_embeddings, config.tower.sizes);
        let fill = |ids: &&[u32]| [*ids, &vec![self.pad; length.saturating_sub(ids.len())]].concat();
        let filled: Vec<Vec<u32>> = ids.iter().map(fill).collect();
        let filled: Vec<&[u32]> = filled.iter().map(Vec::as_slice).collect();
        let (tokens, places, whole) = layers.tokens(&filled, length)?;
        let x = layers.sum(&[
            &layers.rows("text_model.embeddings.token_embedding.weight", tokens)?,
            &layers.rows("text_model.embeddings.position_embedding.weight", places)?,
        ])?;
        let blocks = ("text_model.encoder.layers", &Layout::CLIP);
        let x = layers.blocks(blocks, config.tower.num_hidden_layers, &sizes, x, &whole)?;
        let x = layers.norm("text_model.final_layer_norm", sizes.eps, &x)?;
        let last = layers.select(&x, whole.ranges().map(|rows| rows.end as u32 - 1).collect())?;
        let global = layers.tape.apply(Normalize, &[&layers.linear("text_model.head", &last, None)?])?;
        let own = whole.ranges().zip(ids).flat_map(|(rows, ids)| rows.start as u32..(rows.start + ids.len()) as u32);
        let longest = ids.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let textbook = Textbook { sequences: ids.len(), length: longest };
        let sequences = Ragged::new(ids.iter().map(|ids| ids.len()), textbook)?;
        Ok(States { tokens: layers.select(&x, own.collect())?, sequences, global })
    }

    /// All that the vision tower says of images as the processor prepares them, (3, size, size) each.
    pub fn image_states(&self, images: &[&[f32]]) -> Result<States> {
        let (config, layers) = (&self.config.vision, &self.layers);
        let (length, sizes) = (config.patches(), config.tower.sizes);
        let textbook = Textbook { sequences: images.len(), length };
        let sequences = Ragged::new(images.iter().map(|_| length), textbook)?;
        let patches = layers.patches(images, (config.image_size, config.patch_size), 0)?;
        let patches = layers.linear("vision_model.embeddings.patch_embedding", &patches, None)?;
        let places = sequences.ranges().flat_map(|rows| 0..rows.len() as u32).collect();
        let places = layers.rows("vision_model.embeddings.position_embedding.weight", places)?;
        let x = layers.sum(&[&patches, &places])?;
        let blocks = ("vision_model.encoder.layers", &Layout::CLIP);
        let x = layers.blocks(blocks, config.tower.num_hidden_layers, &sizes, x, &sequences)?;
        let tokens = layers.norm("vision_model.post_layernorm", sizes.eps, &x)?;
        let global = layers.tape.apply(Normalize, &[&self.pooled(&tokens, &sequences)?])?;
        Ok(States { tokens, sequences, global })
    }

    /// What the learned query finds among the patches of each image, and an MLP makes of it.
    fn pooled(&self, x: &Var, images: &Ragged) -> Result<Var> {
        let (layers, sizes) = (&self.layers, self.config.vision.tower.sizes);
        let attention = |layer: &str, x: &Var| layers.linear(&format!("{POOLING}{layer}"), x, None);
        let query = attention("q_proj", layers.vars.get("vision_model.head.probe")?)?;
        let queries = layers.select(&query, vec![0; images.len()])?;
        let one_each = Ragged::new((0..images.len()).map(|_| 1), Textbook { sequences: images.len(), length: 1 })?;
        let scale = 1.0 / (sizes.heads.width as f32).sqrt();
        let pairs = Pairing::identity(images.len());
        let pool = Attention::new(sizes.heads.count, scale, one_each, images.clone(), pairs)?;
        let pooled = layers.tape.apply(pool, &[&queries, &attention("k_proj", x)?, &attention("v_proj", x)?])?;
        let pooled = attention("out_proj", &pooled)?;
        let normalized = layers.norm("vision_model.head.layernorm", sizes.eps, &pooled)?;
        let wide = layers.linear("vision_model.head.mlp.fc1", &normalized, Some(sizes.activation))?;
        layers.sum(&[&pooled, &layers.linear("vision_model.head.mlp.fc2", &wide, None)?])
    }
}
