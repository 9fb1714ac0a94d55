//! CLIP's two towers on a tape, to be trained: what [`ClipText`](super::text::ClipText) and
//! [`ClipVision`](super::vision::ClipVision) compute, of parameters by the names that files give them.

use rayon::prelude::*;

use super::config::ClipConfig;
use super::weights::LOG_SCALE;
use crate::autograd::{Tape, Var, Variables};
use crate::device::Gpu;
use crate::device::cpu::Buffer;
use crate::encoder::transformer::Sizes;
use crate::error::{Error, Result};
use crate::ops::{Activation, Attention, Contrastive, Gather, LayerNorm, Linear, Normalize, Pairing, Sum};
use crate::tensor::{Ragged, Tensor, Textbook};

/// The towers of a configuration on a tape.
pub struct Towers<'a> {
    /// Sizes of both.
    pub config: &'a ClipConfig,
    /// What they are applied on.
    pub tape: &'a Tape,
    /// The weights, as [`initial`](super::weights::initial) makes them or [`read`](super::weights::read) reads them.
    pub vars: &'a Variables,
    /// Where the weights lie; `None` for the host.
    pub gpu: Option<&'a Gpu>,
}

/// What a tower says of texts or images: the features that [`Encoded`](crate::encoder::Encoded) holds of each.
pub struct States {
    /// States of tokens or patches, sequence after sequence (rows, width).
    pub tokens: Var,
    /// Which of them are whose.
    pub sequences: Ragged,
    /// Global vectors of length 1 (sequences, projection).
    pub global: Var,
}

impl States {
    /// The states of texts or images by their places, one after the other; how many each has; their global vectors.
    pub fn select(&self, tape: &Tape, places: &[u32]) -> Result<(Var, Vec<usize>, Var)> {
        let ranges = || places.iter().map(|&place| self.sequences.range(place as usize));
        let rows = ranges().flat_map(|range| range.start as u32..range.end as u32).collect();
        let lengths = ranges().map(|range| range.len()).collect();
        Ok((select(tape, &self.tokens, rows)?, lengths, select(tape, &self.global, places.to_vec())?))
    }
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
        self.tape.apply(Contrastive, &[&texts, &images, self.vars.get(LOG_SCALE)?])
    }

    /// Global vectors of length 1 of texts given by the numbers of their tokens: (texts, projection).
    pub fn texts(&self, ids: &[&[u32]]) -> Result<Var> {
        let Blocks { x, speakers, .. } = self.text_blocks(ids)?;
        self.project("text_projection", &self.final_norm(&select(self.tape, &x, speakers)?)?)
    }

    /// All that the text tower says of texts given by the numbers of their tokens.
    pub fn text_states(&self, ids: &[&[u32]]) -> Result<States> {
        let Blocks { x, sequences, speakers } = self.text_blocks(ids)?;
        let tokens = self.final_norm(&x)?;
        let global = self.project("text_projection", &select(self.tape, &tokens, speakers)?)?;
        Ok(States { tokens, sequences, global })
    }

    fn final_norm(&self, x: &Var) -> Result<Var> {
        self.norm("text_model.final_layer_norm", self.config.text_config.layer_norm_eps, x)
    }

    fn text_blocks(&self, ids: &[&[u32]]) -> Result<Blocks> {
        let (config, sizes) = (&self.config.text_config, self.config.text_config.sizes()?);
        let longest = ids.iter().map(|ids| ids.len()).max().unwrap_or(0);
        if longest > config.max_position_embeddings {
            let most = config.max_position_embeddings;
            return Err(Error::invalid(format!("a text has {longest} tokens, of which the encoder takes {most}")));
        }
        let textbook = Textbook { sequences: ids.len(), length: longest };
        let sequences = Ragged::new(ids.iter().map(|ids| ids.len()), textbook)?;
        let tokens = ids.concat();
        let places = sequences.ranges().flat_map(|rows| 0..rows.len() as u32).collect();
        let x = self.sum(
            &self.rows("text_model.embeddings.token_embedding.weight", tokens)?,
            &self.rows("text_model.embeddings.position_embedding.weight", places)?,
        )?;
        let x = self.blocks("text_model", config.num_hidden_layers, &sizes, x, &sequences)?;
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
        let x = self.norm("vision_model.post_layernorm", eps, &select(self.tape, x, speakers)?)?;
        self.project("visual_projection", &x)
    }

    fn image_blocks(&self, images: &[&[f32]]) -> Result<Blocks> {
        let (config, sizes) = (&self.config.vision_config, self.config.vision_config.sizes()?);
        let (length, eps) = (config.patches(), sizes.eps);
        let textbook = Textbook { sequences: images.len(), length };
        let sequences = Ragged::new(images.iter().map(|_| length), textbook)?;
        let (patches, class) = self.patches(images)?;
        // The class token's row has no pixels, and so nothing of the filters, which have no bias; the others' have
        // nothing of the class.
        let patches = self.product("vision_model.embeddings.patch_embedding.weight", &patches)?;
        let class = self.product("vision_model.embeddings.class_embedding", &class)?;
        let places = sequences.ranges().flat_map(|rows| 0..rows.len() as u32).collect();
        let places = self.rows("vision_model.embeddings.position_embedding.weight", places)?;
        let x = self.sum(&self.sum(&patches, &class)?, &places)?;
        let x = self.norm("vision_model.pre_layrnorm", eps, &x)?;
        let x = self.blocks("vision_model", config.num_hidden_layers, &sizes, x, &sequences)?;
        let speakers = sequences.ranges().map(|rows| rows.start as u32).collect();
        Ok(Blocks { x, sequences, speakers })
    }

    /// The patches of images, a row of zeros before those of each: (rows, 3 · patch²); and which rows these are (rows, 1).
    fn patches(&self, images: &[&[f32]]) -> Result<(Var, Var)> {
        let config = &self.config.vision_config;
        let (size, patch, rows) = (config.image_size, config.patch_size, config.patches());
        let (side, width) = (size / patch, 3 * patch * patch);
        if let Some(image) = images.iter().find(|image| image.len() != 3 * size * size) {
            let reason = format!("an image of {} values, the encoder takes 3 x {size} x {size}", image.len());
            return Err(Error::shape("patches", reason));
        }
        let mut patches = Buffer::zeros(images.len() * rows * width);
        patches.par_chunks_exact_mut(rows * width).zip(images).for_each(|(rows, image)| {
            for (at, row) in rows.chunks_exact_mut(width).skip(1).enumerate() {
                let (top, left) = (at / side * patch, at % side * patch);
                for (line, to) in row.chunks_exact_mut(patch).enumerate() {
                    let from = (line / patch * size + top + line % patch) * size + left;
                    to.copy_from_slice(&image[from..from + patch]);
                }
            }
        });
        let mut class = Buffer::zeros(images.len() * rows);
        class.iter_mut().step_by(rows).for_each(|x| *x = 1.0);
        let constant = |data: Buffer, width: usize| {
            Ok::<_, Error>(Var::constant(Tensor::new([images.len() * rows, width], data)?.to(self.gpu)?))
        };
        Ok((constant(patches, width)?, constant(class, 1)?))
    }

    fn blocks(&self, tower: &str, count: usize, sizes: &Sizes, x: Var, sequences: &Ragged) -> Result<Var> {
        (0..count).try_fold(x, |x, i| self.block(&format!("{tower}.encoder.layers.{i}"), sizes, x, sequences))
    }

    /// Attention and an MLP, each of what was normalized and added to it.
    fn block(&self, name: &str, sizes: &Sizes, x: Var, sequences: &Ragged) -> Result<Var> {
        let heads = sizes.heads;
        let normalized = self.norm(&format!("{name}.layer_norm1"), sizes.eps, &x)?;
        let layer = |layer: &str| self.linear(&format!("{name}.self_attn.{layer}"), &normalized, None);
        let (q, k, v) = (layer("q_proj")?, layer("k_proj")?, layer("v_proj")?);
        let pairs = Pairing::identity(sequences.len());
        let scale = 1.0 / (heads.width as f32).sqrt();
        let attention = Attention::new(heads.count, scale, sequences.clone(), sequences.clone(), pairs)?;
        let attention = if heads.causal { attention.causal()? } else { attention };
        let attended = self.tape.apply(attention, &[&q, &k, &v])?;
        let x = self.sum(&x, &self.linear(&format!("{name}.self_attn.out_proj"), &attended, None)?)?;
        let normalized = self.norm(&format!("{name}.layer_norm2"), sizes.eps, &x)?;
        let wide = self.linear(&format!("{name}.mlp.fc1"), &normalized, Some(sizes.activation))?;
        self.sum(&x, &self.linear(&format!("{name}.mlp.fc2"), &wide, None)?)
    }

    fn norm(&self, name: &str, eps: f32, x: &Var) -> Result<Var> {
        let [weight, bias] = self.vars.group(name, ["weight", "bias"])?;
        self.tape.apply(LayerNorm { eps, textbook_rows: x.tensor().shape()[0] }, &[x, weight, bias])
    }

    fn linear(&self, name: &str, x: &Var, activation: Option<Activation>) -> Result<Var> {
        let [weight, bias] = self.vars.group(name, ["weight", "bias"])?;
        self.tape.apply(Linear { activation, bias: true, textbook_rows: x.tensor().shape()[0] }, &[weight, bias, x])
    }

    /// A layer without a bias, by its weight's name.
    fn product(&self, weight: &str, x: &Var) -> Result<Var> {
        let linear = Linear { activation: None, bias: false, textbook_rows: x.tensor().shape()[0] };
        self.tape.apply(linear, &[self.vars.get(weight)?, x])
    }

    fn project(&self, name: &str, x: &Var) -> Result<Var> {
        self.tape.apply(Normalize, &[&self.product(&format!("{name}.weight"), x)?])
    }

    /// Rows of a parameter by their numbers.
    fn rows(&self, name: &str, numbers: Vec<u32>) -> Result<Var> {
        select(self.tape, self.vars.get(name)?, numbers)
    }

    fn sum(&self, a: &Var, b: &Var) -> Result<Var> {
        self.tape.apply(Sum { coefficients: vec![1.0; 2] }, &[a, b])
    }
}

/// Rows by their numbers.
fn select(tape: &Tape, x: &Var, numbers: Vec<u32>) -> Result<Var> {
    let (count, rows) = (numbers.len(), x.tensor().shape()[0]);
    let pairs = Pairing::new(numbers, rows, (0..count as u32).collect(), count)?;
    tape.apply(Gather { pairs }, &[x])
}
