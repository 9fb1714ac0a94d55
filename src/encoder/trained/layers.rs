//! Layers on a tape, of weights by their names.

use std::ops::Range;

use rayon::prelude::*;

use crate::autograd::{Tape, Var, Variables};
use crate::device::Gpu;
use crate::device::cpu::Buffer;
use crate::encoder::transformer::{Layout, Sizes};
use crate::error::{Error, Result};
use crate::ops::{Activation, Attention, Dropout, Gather, LayerNorm, Linear, Pairing, Sum};
use crate::tensor::{Ragged, Tensor, Textbook};

/// Dropout of a tower's states: which values go depends on the run, the step and the place of a text or image in its batch alone, so
/// that they are the same by chunks of the batch, and when a layer is computed again.
#[derive(Clone, Copy, Debug)]
pub struct Masks {
    /// Probability of zeroing, in [0, 1).
    pub p: f32,
    /// The run's seed, and its step.
    pub seed: u64,
    pub step: u32,
    /// Of texts (0) or of images (1).
    pub tower: u32,
    /// The place in the batch of the first text or image.
    pub first: usize,
}

/// The rows of a text or image have places apart from others', unless there are more of them than that.
const APART: usize = 1 << 12;

/// Streams of draws that no model's dropout has begin here; a tower has so many.
const STREAMS: u32 = 1 << 16;
const OF_A_TOWER: u32 = 1 << 12;

/// Weights, and what they are applied on.
#[derive(Clone, Copy)]
pub struct Layers<'a> {
    /// What operations are noted on.
    pub tape: &'a Tape,
    /// The weights by the names that files give them.
    pub vars: &'a Variables,
    /// Where they lie; `None` for the host.
    pub gpu: Option<&'a Gpu>,
    /// Dropout, if there is any.
    pub masks: Option<Masks>,
}

/// What a tower says of texts or images: the features that [`Encoded`](crate::encoder::Encoded) holds of each.
pub struct States {
    /// States of tokens or patches, sequence after sequence (rows, width).
    pub tokens: Var,
    /// Which of them are whose.
    pub sequences: Ragged,
    /// Global vectors (sequences, width).
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

/// Rows by their numbers.
fn select(tape: &Tape, x: &Var, numbers: Vec<u32>) -> Result<Var> {
    let (count, rows) = (numbers.len(), x.tensor().shape()[0]);
    let pairs = Pairing::new(numbers, rows, (0..count as u32).collect(), count)?;
    tape.apply(Gather { pairs }, &[x])
}

impl Layers<'_> {
    /// Rows by their numbers.
    pub fn select(&self, x: &Var, numbers: Vec<u32>) -> Result<Var> {
        select(self.tape, x, numbers)
    }

    /// Rows of a parameter by their numbers.
    pub fn rows(&self, name: &str, numbers: Vec<u32>) -> Result<Var> {
        self.select(self.vars.get(name)?, numbers)
    }

    /// `name.weight` and `name.bias` of a normalization.
    pub fn norm(&self, name: &str, eps: f32, x: &Var) -> Result<Var> {
        let [weight, bias] = self.vars.group(name, ["weight", "bias"])?;
        self.tape.apply(LayerNorm { eps, textbook_rows: x.tensor().shape()[0] }, &[x, weight, bias])
    }

    /// `name.weight` and `name.bias` of a layer.
    pub fn linear(&self, name: &str, x: &Var, activation: Option<Activation>) -> Result<Var> {
        let [weight, bias] = self.vars.group(name, ["weight", "bias"])?;
        self.tape.apply(Linear { activation, bias: true, textbook_rows: x.tensor().shape()[0] }, &[weight, bias, x])
    }

    /// A layer without a bias, by its weight's name.
    pub fn product(&self, weight: &str, x: &Var) -> Result<Var> {
        let linear = Linear { activation: None, bias: false, textbook_rows: x.tensor().shape()[0] };
        self.tape.apply(linear, &[self.vars.get(weight)?, x])
    }

    /// The sum of tensors of one shape.
    pub fn sum(&self, terms: &[&Var]) -> Result<Var> {
        self.tape.apply(Sum { coefficients: vec![1.0; terms.len()] }, terms)
    }

    /// Texts by the numbers of their tokens: all tokens, their places, and which are whose. Fails if one has more than `most`.
    pub fn tokens(&self, ids: &[&[u32]], most: usize) -> Result<(Vec<u32>, Vec<u32>, Ragged)> {
        let longest = ids.iter().map(|ids| ids.len()).max().unwrap_or(0);
        if longest > most {
            return Err(Error::invalid(format!("a text has {longest} tokens, of which the encoder takes {most}")));
        }
        let textbook = Textbook { sequences: ids.len(), length: longest };
        let sequences = Ragged::new(ids.iter().map(|ids| ids.len()), textbook)?;
        let places = sequences.ranges().flat_map(|rows| 0..rows.len() as u32).collect();
        Ok((ids.concat(), places, sequences))
    }

    /// The patches of images of (3, size, size), row by row of each, with rows of zeros before them: (rows, 3 · patch²).
    pub fn patches(&self, images: &[&[f32]], (size, patch): (usize, usize), before: usize) -> Result<Var> {
        let (side, width) = (size / patch, 3 * patch * patch);
        let rows = before + side * side;
        if let Some(image) = images.iter().find(|image| image.len() != 3 * size * size) {
            let reason = format!("an image of {} values, the encoder takes 3 x {size} x {size}", image.len());
            return Err(Error::shape("patches", reason));
        }
        let mut patches = Buffer::zeros(images.len() * rows * width);
        patches.par_chunks_exact_mut(rows * width).zip(images).for_each(|(rows, image)| {
            for (at, row) in rows.chunks_exact_mut(width).skip(before).enumerate() {
                let (top, left) = (at / side * patch, at % side * patch);
                for (line, to) in row.chunks_exact_mut(patch).enumerate() {
                    let from = (line / patch * size + top + line % patch) * size + left;
                    to.copy_from_slice(&image[from..from + patch]);
                }
            }
        });
        Ok(Var::constant(Tensor::new([images.len() * rows, width], patches)?.to(self.gpu)?))
    }

    /// A layer of the encoder, which `compute` makes of `x` and the weights whose names begin with `name` and a dot: on a tape with
    /// checkpoints, backward computes it again.
    pub fn checkpointed(
        &self,
        name: &str,
        x: Var,
        compute: impl Fn(Layers, Var) -> Result<Var> + 'static,
    ) -> Result<Var> {
        if !self.tape.has_checkpoints() {
            return compute(*self, x);
        }
        let (names, weights): (Vec<String>, Vec<&Var>) = self.vars.under(name).into_iter().unzip();
        let inputs: Vec<&Var> = [&x].into_iter().chain(weights).collect();
        let (gpu, masks) = (self.gpu.cloned(), self.masks);
        self.tape.checkpointed(&inputs, move |tape, inputs| {
            let (x, weights) = inputs.split_first().ok_or_else(|| Error::invalid("a layer of no inputs"))?;
            let vars: Variables = names.iter().cloned().zip(weights.iter().cloned()).collect();
            compute(Layers { tape, vars: &vars, gpu: gpu.as_ref(), masks }, x.clone())
        })
    }

    /// States of these sequences with dropout; each of a tower's uses has another number.
    fn dropped(&self, x: Var, sequences: &Ragged, number: usize) -> Result<Var> {
        let Some(Masks { p, seed, step, tower, first }) = self.masks else { return Ok(x) };
        let rows = |(item, rows): (usize, Range<usize>)| {
            let start = (first + item) * APART;
            (start..start + rows.len()).map(|place| place as u32)
        };
        let places: Vec<u32> = sequences.ranges().enumerate().flat_map(rows).collect();
        let stream = (step, STREAMS + tower * OF_A_TOWER + number as u32);
        self.tape.apply(Dropout { p, seed, stream, places: Some(places.into()) }, &[&x])
    }

    /// Blocks under their numbers after `prefix`. What goes into the first may be dropped, and what each layer of a block adds.
    pub fn blocks(
        &self,
        (prefix, layout): (&str, &Layout),
        count: usize,
        sizes: &Sizes,
        x: Var,
        sequences: &Ragged,
    ) -> Result<Var> {
        let x = self.dropped(x, sequences, 0)?;
        (0..count).try_fold(x, |x, i| {
            let (block, layout, sizes, sequences) = (format!("{prefix}.{i}"), *layout, *sizes, sequences.clone());
            let name = block.clone();
            self.checkpointed(&name, x, move |layers, x| layers.block((i, &block, &layout), &sizes, x, &sequences))
        })
    }

    /// Attention and an MLP with residuals around both, normalized as the layout says.
    fn block(
        &self,
        (number, block, layout): (usize, &str, &Layout),
        sizes: &Sizes,
        x: Var,
        sequences: &Ragged,
    ) -> Result<Var> {
        let name = |layer: &str| format!("{block}.{layer}");
        let norm = |layer: &str, x: &Var| self.norm(&name(layer), sizes.eps, x);
        let attend = |x: &Var| {
            let attended = self.attention(&name, layout, sizes, x, sequences)?;
            self.dropped(self.linear(&name(layout.out), &attended, None)?, sequences, 2 * number + 1)
        };
        let widen = |x: &Var| {
            let wide = self.linear(&name(layout.up), x, Some(sizes.activation))?;
            self.dropped(self.linear(&name(layout.down), &wide, None)?, sequences, 2 * number + 2)
        };
        if layout.norm_first {
            let x = self.sum(&[&x, &attend(&norm(layout.norm1, &x)?)?])?;
            self.sum(&[&x, &widen(&norm(layout.norm2, &x)?)?])
        } else {
            let x = norm(layout.norm1, &self.sum(&[&x, &attend(&x)?])?)?;
            norm(layout.norm2, &self.sum(&[&x, &widen(&x)?])?)
        }
    }

    fn attention(
        &self,
        name: &dyn Fn(&str) -> String,
        layout: &Layout,
        sizes: &Sizes,
        x: &Var,
        sequences: &Ragged,
    ) -> Result<Var> {
        let heads = sizes.heads;
        let [q, k, v] = layout.qkv.map(|layer| self.linear(&name(layer), x, None));
        let pairs = Pairing::identity(sequences.len());
        let scale = 1.0 / (heads.width as f32).sqrt();
        let attention = Attention::new(heads.count, scale, sequences.clone(), sequences.clone(), pairs)?;
        let attention = if heads.causal { attention.causal()? } else { attention };
        self.tape.apply(attention, &[&q?, &k?, &v?])
    }
}
