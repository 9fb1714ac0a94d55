//! What one forward pass computes on: feature rows of mentions and of distinct entities, and who meets whom.

use std::sync::Arc;

use half::f16;

use crate::device::Gpu;
use crate::error::Result;
use crate::ops::Pairing;
use crate::tensor::{FeatureRows, Indices, Ragged, RowTable, Textbook};

/// Features of one modality of n items.
#[derive(Clone, Debug)]
pub struct Modality {
    /// Token or patch states, sequence after sequence.
    pub tokens: FeatureRows,
    /// Which of them form which item's sequence (n sequences).
    pub sequences: Ragged,
    /// One global vector per item (n).
    pub global: FeatureRows,
}

impl Modality {
    /// Features of one item as an encoder gave them, rounded as the feature store rounds.
    pub fn single(tokens: &[f32], width: usize, global: &[f32]) -> Result<Modality> {
        let rows = |values: &[f32], width: usize| -> Result<FeatureRows> {
            let mut table = RowTable::new(width);
            table.push_f16(values.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>().into())?;
            let rows = (0..table.rows() as u32).collect::<Indices>();
            Ok(FeatureRows::new(Arc::new(table), rows))
        };
        let tokens = rows(tokens, width)?;
        let length = tokens.rows.len();
        let sequences = Ragged::new([length], Textbook { sequences: 1, length })?;
        Ok(Modality { tokens, sequences, global: rows(global, global.len())? })
    }
}

/// Features of the mentions or of the entities of a batch.
#[derive(Clone, Debug)]
pub struct Side {
    /// Text features.
    pub text: Modality,
    /// Image features.
    pub image: Modality,
}

/// Mentions, the distinct entities among their candidates, and the pairs to score.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Mentions.
    pub mention: Side,
    /// Distinct entities: each is computed once, however many mentions list it.
    pub entity: Side,
    /// Left: mention, right: entity; a mention's candidates stand next to each other, in their order.
    pub pairs: Pairing,
    /// Pair that holds each mention's gold candidate; empty if none is needed.
    pub gold: Vec<u32>,
}

impl Batch {
    /// Starts copying the features that a device will need and does not hold.
    pub fn stage(&self, gpu: &Gpu) -> Result<()> {
        let sides = [&self.mention, &self.entity].into_iter().flat_map(|side| [&side.text, &side.image]);
        sides.flat_map(|modality| [&modality.tokens, &modality.global]).try_for_each(|rows| rows.stage(gpu))
    }
}
