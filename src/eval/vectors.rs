//! The vectors that a first stage compares: Fusion's, of mentions and of a whole knowledge base.

use std::collections::HashSet;

use indicatif::ProgressBar;

use super::blocks::in_blocks;
use crate::data::{Batcher, Item};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::model::{Model, PreparedMention, PreparedSide};
use crate::search::{Found, Top};

/// Items that are prepared at a time.
const BLOCK: usize = 256;

/// What a model without Fusion's scores is told.
pub(super) const NO_VECTORS: &str =
    "the model has no scores of the Fusion branch, whose vectors a first stage compares; leave it out";

/// A model that makes Fusion's vectors of what is in a feature store.
pub struct FusionVectors<'a> {
    /// Where it computes.
    model: Model,
    batcher: &'a Batcher,
    entities: usize,
    width: usize,
}

impl<'a> FusionVectors<'a> {
    /// For a knowledge base of so many entities. The model's weights lie on the host; `gpu` is where it shall compute, if not
    /// there.
    ///
    /// Fails for a model that has no such vectors, and for a knowledge base without entities.
    pub fn new((model, gpu): (&Model, Option<&Gpu>), batcher: &'a Batcher, entities: usize) -> Result<Self> {
        if !model.config().network.prepares() {
            return Err(Error::invalid(NO_VECTORS));
        }
        let mut vectors = FusionVectors { model: model.to(gpu)?, batcher, entities, width: 0 };
        if entities == 0 {
            return Err(Error::invalid("the knowledge base has no entities"));
        }
        vectors.width = vectors.of(&batcher.items(&[0])?)?.len();
        if vectors.width == 0 { Err(Error::invalid(NO_VECTORS)) } else { Ok(vectors) }
    }

    /// Numbers of a vector: the hidden width for each of Fusion's scores.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Vectors (items, width).
    pub fn of(&self, items: &[Item]) -> Result<Vec<f32>> {
        let mut all = Vec::with_capacity(items.len() * self.width);
        in_blocks(items, BLOCK, |items| {
            let side = PreparedSide::new(&self.model, &self.batcher.side(items, items.len())?)?;
            (0..items.len()).for_each(|at| all.extend(side.mention(at).fused()));
            Ok(())
        })?;
        Ok(all)
    }

    /// Gives the vectors of all entities, in their order, some at a time with the first one's number. The bar counts them.
    pub fn of_entities(&self, mut each: impl FnMut(u32, &[f32]) -> Result<()>, bar: &ProgressBar) -> Result<()> {
        let all: Vec<u32> = (0..self.entities as u32).collect();
        bar.set_length(all.len() as u64);
        for block in all.chunks(BLOCK) {
            each(block[0], &self.of(&self.batcher.items(block)?)?)?;
            bar.inc(block.len() as u64);
        }
        Ok(())
    }
}

/// Mentions' vectors, side by side (mentions, width).
pub(super) fn fused(mentions: &[PreparedMention]) -> Vec<f32> {
    mentions.iter().flat_map(PreparedMention::fused).collect()
}

/// Mean share of the nearest vectors of each query that were found.
pub fn share_of(found: &[Vec<Found>], nearest: Vec<Top>) -> f64 {
    let share = |(found, top): (&Vec<Found>, Top)| {
        let nearest: HashSet<u32> = top.into_sorted().into_iter().map(|found| found.number).collect();
        found.iter().filter(|found| nearest.contains(&found.number)).count() as f64 / nearest.len().max(1) as f64
    };
    found.iter().zip(nearest).map(share).sum::<f64>() / found.len().max(1) as f64
}
