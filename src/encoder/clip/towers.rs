//! CLIP's two towers on a tape, to be trained: what [`ClipText`](super::text::ClipText) and
//! [`ClipVision`](super::vision::ClipVision) compute, of parameters by the names that files give them.

use super::config::ClipConfig;
use super::weights::LOG_SCALE;
use crate::autograd::Var;
use crate::device::cpu::Buffer;
use crate::encoder::trained::{Layers, States};
use crate::encoder::transformer::Layout;
use crate::error::Result;
use crate::ops::{Contrastive, Normalize};
use crate::tensor::{Ragged, Tensor, Textbook};

/// The towers of a configuration on a tape.
pub struct Towers<'a> {
    /// Sizes of both.
    pub config: &'a ClipConfig,
    /// The weights, as [`initial`](super::weights::initial) makes them or [`read`](super::weights::read) reads them.
    pub layers: Layers<'a>,
}

/// States as a tower's blocks leave them, and the row of each sequence that its global vector is made of.
struct Blocks {
    x: Var,
    sequences: Ragged,
    speakers: Vec<u32>,
}

impl Towers<'_> {
    /// Losses of pairs of a text and an image (2): text to image, image to text.
    pub fn losses(&self, texts: &[&[u32]], images: &[&[f32]]) -> Result<Var> {
        let (texts, images) = (self.texts(texts)?, self.images(images)?);
        self.layers.tape.apply(Contrastive, &[&texts, &images, self.layers.vars.get(LOG_SCALE)?])
    }

    /// Global vectors of length 1 of texts given by the numbers of their tokens: (texts, projection).
    pub fn texts(&self, ids: &[&[u32]]) -> Result<Var> {
        let Blocks { x, speakers, .. } = self.text_blocks(ids)?;
        self.project("text_projection", &self.final_norm(&self.layers.select(&x, speakers)?)?)
    }

    /// All that the text tower says of texts given by the numbers of their tokens.
    pub fn text_states(&self, ids: &[&[u32]]) -> Result<States> {
        let Blocks { x, sequences, speakers } = self.text_blocks(ids)?;
        let tokens = self.final_norm(&x)?;
        let global = self.project("text_projection", &self.layers.select(&tokens, speakers)?)?;
        Ok(States { tokens, sequences, global })
    }

    fn final_norm(&self, x: &Var) -> Result<Var> {
        self.layers.norm("text_model.final_layer_norm", self.config.text_config.layer_norm_eps, x)
    }

    fn text_blocks(&self, ids: &[&[u32]]) -> Result<Blocks> {
        let (config, sizes) = (&self.config.text_config, self.config.text_config.sizes()?);
        let layers = &self.layers;
        let (tokens, places, sequences) = layers.tokens(ids, config.max_position_embeddings)?;
        let x = layers.sum(&[
            &layers.rows("text_model.embeddings.token_embedding.weight", tokens)?,
            &layers.rows("text_model.embeddings.position_embedding.weight", places)?,
        ])?;
        let blocks = ("text_model.encoder.layers", &Layout::CLIP);
        let x = layers.blocks(blocks, config.num_hidden_layers, &sizes, x, &sequences)?;
        let end = |(ids, rows): (&&[u32], std::ops::Range<usize>)| Ok((rows.start + config.end_of(ids)?) as u32);
        let speakers = ids.iter().zip(sequences.ranges()).map(end).collect::<Result<_>>()?;
        Ok(Blocks { x, sequences, speakers })
    }

    /// Global vectors of length 1 of images as the processor prepares them, (3, size, size) each: (images, projection).
    pub fn images(&self, images: &[&[f32]]) -> Result<Var> {
        let Blocks { x, speakers, .. } = self.image_blocks(images)?;
        self.image_vectors(&x, speakers)
    }

    /// All that the vision tower says of such images.
    pub fn image_states(&self, images: &[&[f32]]) -> Result<States> {
        let Blocks { x, sequences, speakers } = self.image_blocks(images)?;
        let global = self.image_vectors(&x, speakers)?;
        Ok(States { tokens: x, sequences, global })
    }

    fn image_vectors(&self, x: &Var, speakers: Vec<u32>) -> Result<Var> {
        let eps = self.config.vision_config.layer_norm_eps;
        let x = self.layers.norm("vision_model.post_layernorm", eps, &self.layers.select(x, speakers)?)?;
        self.project("visual_projection", &x)
    }

    fn image_blocks(&self, images: &[&[f32]]) -> Result<Blocks> {
        let (config, sizes) = (&self.config.vision_config, self.config.vision_config.sizes()?);
        let (length, eps) = (config.patches(), sizes.eps);
        let textbook = Textbook { sequences: images.len(), length };
        let sequences = Ragged::new(images.iter().map(|_| length), textbook)?;
        let layers = &self.layers;
        let patches = layers.patches(images, (config.image_size, config.patch_size), 1)?;
        // The class token's row has no pixels, and so nothing of the filters, which have no bias; the others' have
        // nothing of the class.
        let patches = layers.product("vision_model.embeddings.patch_embedding.weight", &patches)?;
        let class = layers.product("vision_model.embeddings.class_embedding", &self.class(images.len())?)?;
        let places = sequences.ranges().flat_map(|rows| 0..rows.len() as u32).collect();
        let places = layers.rows("vision_model.embeddings.position_embedding.weight", places)?;
        let x = layers.sum(&[&layers.sum(&[&patches, &class])?, &places])?;
        let x = layers.norm("vision_model.pre_layrnorm", eps, &x)?;
        let blocks = ("vision_model.encoder.layers", &Layout::CLIP);
        let x = layers.blocks(blocks, config.num_hidden_layers, &sizes, x, &sequences)?;
        let speakers = sequences.ranges().map(|rows| rows.start as u32).collect();
        Ok(Blocks { x, sequences, speakers })
    }

    /// Which row of each image is the class token's (rows, 1): 1, the others 0.
    fn class(&self, images: usize) -> Result<Var> {
        let rows = self.config.vision_config.patches();
        let mut class = Buffer::zeros(images * rows);
        class.iter_mut().step_by(rows).for_each(|x| *x = 1.0);
        Ok(Var::constant(Tensor::new([images * rows, 1], class)?.to(self.layers.gpu)?))
    }

    fn project(&self, name: &str, x: &Var) -> Result<Var> {
        self.layers.tape.apply(Normalize, &[&self.layers.product(&format!("{name}.weight"), x)?])
    }
}
