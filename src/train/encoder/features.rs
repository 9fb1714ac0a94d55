//! The features of a batch, computed on the tape.

use std::ops::Range;
use std::sync::Arc;

use super::EncoderRun;
use crate::autograd::{Tape, Var, Variables};
use crate::data::InputBatch;
use crate::device::Gpu;
use crate::encoder::trained::{Layers, Masks, States};
use crate::error::Result;
use crate::model::{Batch, Modality, Noise, Side};
use crate::ops::Multiply;
use crate::tensor::{FeatureRows, Ragged, RowTable, Tensor, Textbook};

/// The texts and images of a batch as the encoder takes them.
pub struct Prepared {
    pub(super) batch: InputBatch,
    /// Tokens of each distinct text; none if no text is read.
    pub(super) ids: Vec<Vec<u32>>,
    /// Each distinct image; `None` where its features are zero. None at all if no image is read.
    pub(super) pixels: Vec<Option<Arc<Vec<f32>>>>,
}

impl Prepared {
    /// Distinct texts (0) or images (1); none of what is not read.
    pub(super) fn len(&self, which: usize) -> usize {
        [self.ids.len(), self.pixels.len()][which]
    }
}

/// What the towers say of texts and of images; nothing of what is not read.
pub(super) type Said = [Option<States>; 2];

impl EncoderRun<'_> {
    /// What the encoder says of a part of the distinct texts (0) or images (1) of a batch.
    pub(super) fn say(
        &self,
        layers: Layers,
        (Prepared { ids, pixels, .. }, noise): (&Prepared, Option<Noise>),
        which: usize,
        part: Range<usize>,
    ) -> Result<States> {
        let (p, tower) = (self.settings.dropout, which as u32);
        let masks = |Noise { seed, step }| Masks { p, seed, step, tower, first: part.start };
        let masks = noise.filter(|_| p > 0.0).map(masks);
        let layers = Layers { masks, ..layers };
        match which {
            0 => self.files.text_states(layers, &ids[part].iter().map(Vec::as_slice).collect::<Vec<_>>()),
            _ => self.images(layers, &pixels[part]),
        }
    }

    /// What both say of all of a batch, with the encoder's weights as `vars` has them.
    pub(super) fn said(
        &self,
        (tape, vars, gpu): (&Tape, &Variables, Option<&Gpu>),
        prepared: &Prepared,
        noise: Option<Noise>,
    ) -> Result<Said> {
        let layers = Layers { tape, vars, gpu, masks: None };
        let all = |which: usize| match prepared.len(which) {
            0 => Ok(None),
            items => self.say(layers, (prepared, noise), which, 0..items).map(Some),
        };
        Ok([all(0)?, all(1)?])
    }

    /// What the network computes on.
    pub(super) fn batch(&self, tape: &Tape, [texts, images]: &Said, prepared: &Prepared) -> Result<Batch> {
        let batch = &prepared.batch;
        let (manifest, mentions) = (self.inputs.manifest(), batch.mentions[0].len());
        let side = |places: &[Vec<u32>; 2], uses: usize| -> Result<Side> {
            let modality = |states: &Option<States>, which: usize, length: usize| {
                let textbook = Textbook { sequences: uses, length };
                match states {
                    Some(states) => computed(tape, states, &places[which], textbook),
                    None => blank(places[which].len(), self.widths(which), textbook),
                }
            };
            Ok(Side { text: modality(texts, 0, manifest.max_tokens)?, image: modality(images, 1, manifest.patches)? })
        };
        let (mention, entity) = (side(&batch.mentions, mentions)?, side(&batch.entities, batch.pairs.len())?);
        Batch::new(mention, entity, batch.pairs.clone(), batch.gold.clone())
    }

    /// Widths of tokens and of the global vector, of texts (0) or images (1).
    fn widths(&self, which: usize) -> (usize, usize) {
        let widths = self.model.widths;
        [(widths.text, widths.text_global), (widths.image, widths.image_global)][which]
    }

    /// What the encoder says of images; of those that there are not, zeros.
    fn images(&self, layers: Layers, pixels: &[Option<Arc<Vec<f32>>>]) -> Result<States> {
        let given: Vec<&[f32]> = pixels.iter().map(|image| &image.as_ref().unwrap_or(&self.stand_in)[..]).collect();
        let states = self.files.image_states(layers, &given)?;
        if pixels.iter().all(Option::is_some) {
            return Ok(states);
        }
        let there = |image: &Option<_>| if image.is_some() { 1.0 } else { 0.0 };
        let only = |x: &Var, rows: Vec<f32>| {
            let rows = Tensor::new([rows.len(), 1], rows)?.to(layers.gpu)?;
            layers.tape.apply(Multiply, &[x, &Var::constant(rows)])
        };
        let patches = pixels.iter().zip(states.sequences.ranges());
        let patches = patches.flat_map(|(image, rows)| vec![there(image); rows.len()]).collect();
        let tokens = only(&states.tokens, patches)?;
        let global = only(&states.global, pixels.iter().map(there).collect())?;
        Ok(States { tokens, global, ..states })
    }
}

/// Features of the texts or images at these places.
fn computed(tape: &Tape, states: &States, places: &[u32], textbook: Textbook) -> Result<Modality> {
    let (tokens, lengths, global) = states.select(tape, places)?;
    let sequences = Ragged::new(lengths, textbook)?;
    Ok(Modality { tokens: tokens.into(), sequences, global: global.into() })
}

/// Of a modality that is not read: a row of zeros for each item.
fn blank(items: usize, (width, global): (usize, usize), textbook: Textbook) -> Result<Modality> {
    let rows = |width: usize| -> Result<FeatureRows> {
        Ok(FeatureRows::new(Arc::new(RowTable::from_f32(width, vec![0.0; width])?), vec![0; items]))
    };
    let sequences = Ragged::new((0..items).map(|_| 1), textbook)?;
    Ok(Modality { tokens: rows(width)?.into(), sequences, global: rows(global)?.into() })
}
