//! What one forward pass computes on: feature rows of mentions and of distinct entities, and who meets whom.

use std::sync::Arc;

use half::f16;

use crate::autograd::Var;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::ops::{Gold, Pairing};
use crate::tensor::{FeatureRows, Indices, Ragged, RowTable, Textbook};

/// Where features come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Of a frozen encoder: rows of a table.
    Stored(FeatureRows),
    /// Of an encoder that is trained along: computed on the tape that the network is applied on.
    Computed(Var),
}

impl From<FeatureRows> for Source {
    fn from(rows: FeatureRows) -> Source {
        Source::Stored(rows)
    }
}

impl From<Var> for Source {
    fn from(x: Var) -> Source {
        Source::Computed(x)
    }
}

impl Source {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Source::Stored(rows) => rows.len(),
            Source::Computed(x) => x.tensor().shape()[0],
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of a table, if that is where they come from.
    pub fn stored(&self) -> Option<&FeatureRows> {
        match self {
            Source::Stored(rows) => Some(rows),
            Source::Computed(_) => None,
        }
    }
}

/// Features of one modality of n items.
#[derive(Clone, Debug)]
pub struct Modality {
    /// Token or patch states, sequence after sequence.
    pub tokens: Source,
    /// Which of them form which item's sequence (n sequences).
    pub sequences: Ragged,
    /// One global vector per item (n).
    pub global: Source,
}

impl Modality {
    /// Features of one item as an encoder gave them, rounded as the feature store rounds.
    pub fn single(tokens: &[f32], width: usize, global: &[f32]) -> Result<Modality> {
        let rows = |values: &[f32], width: usize| -> Result<FeatureRows> {
            let mut table = RowTable::new(width);
            table.push_f16(values.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>().into())?;
            if !table.all_finite(0..table.rows() as u32) {
                return Err(Error::invalid("the encoder gave features that are NaN, or too large for f16"));
            }
            let rows = (0..table.rows() as u32).collect::<Indices>();
            Ok(FeatureRows::new(Arc::new(table), rows))
        };
        let tokens = rows(tokens, width)?;
        let length = tokens.rows.len();
        let sequences = Ragged::new([length], Textbook { sequences: 1, length })?;
        Ok(Modality { tokens: tokens.into(), sequences, global: rows(global, global.len())?.into() })
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
    pub gold: Gold,
    /// Of each pair's attention weights over texts and over images.
    pub(super) starts: [Starts; 2],
}

/// [`Pairing::starts`] of pairs over one modality.
#[derive(Clone, Debug)]
pub(super) struct Starts {
    /// Mentions as queries over the entities' sequences.
    pub mention: Indices,
    /// The reverse.
    pub entity: Indices,
}

impl Batch {
    /// What the pairs (mention, entity) and the gold pairs among them make of these features.
    pub fn new(mention: Side, entity: Side, pairs: Pairing, gold: Vec<u32>) -> Result<Batch> {
        let starts = |mention: &Modality, entity: &Modality| -> Result<Starts> {
            let (over, under) = (pairs.starts(&entity.sequences)?, pairs.flip().starts(&mention.sequences)?);
            Ok(Starts { mention: over, entity: under })
        };
        let starts = [starts(&mention.text, &entity.text)?, starts(&mention.image, &entity.image)?];
        Ok(Batch { gold: Gold::new(&pairs, gold), mention, entity, pairs, starts })
    }

    fn needs(&self) -> Needs<'_> {
        let mut others: Vec<&Indices> =
            self.starts.iter().flat_map(|Starts { mention, entity }| [mention, entity]).collect();
        others.extend(self.pairs.arrays());
        others.extend(self.gold.arrays());
        Needs { modalities: [&self.mention, &self.entity].into_iter().flat_map(Side::modalities).collect(), others }
    }

    /// Starts copying what a device will need and does not hold: features through a block of page-locked memory each, all
    /// numbers together through one more.
    pub fn stage(&self, gpu: &Gpu) -> Result<()> {
        self.needs().stage(gpu)
    }

    /// What is queued on the device from now on runs when all of [`Batch::stage`] is there, and needs nothing more.
    pub fn arrive(&self, gpu: &Gpu) -> Result<()> {
        self.needs().arrive(gpu)
    }
}

impl Side {
    fn modalities(&self) -> [&Modality; 2] {
        [&self.text, &self.image]
    }

    /// What is queued on the device from now on to prepare this side finds there what it needs.
    pub fn arrive(&self, gpu: &Gpu) -> Result<()> {
        Needs { modalities: self.modalities().to_vec(), others: Vec::new() }.arrive(gpu)
    }
}

/// What a device needs of some features.
struct Needs<'a> {
    modalities: Vec<&'a Modality>,
    /// More arrays of numbers that kernels will be given.
    others: Vec<&'a Indices>,
}

impl<'a> Needs<'a> {
    /// Features that do not lie on a tape.
    fn features(&self) -> impl Iterator<Item = &'a FeatureRows> {
        let sources = self.modalities.iter().flat_map(|modality| [&modality.tokens, &modality.global]);
        sources.filter_map(Source::stored)
    }

    /// All arrays of numbers that kernels will be given.
    fn arrays(&self) -> Vec<&'a Indices> {
        let mut arrays: Vec<&Indices> = self.features().map(FeatureRows::numbers).collect();
        arrays.extend(self.features().filter_map(FeatureRows::places));
        arrays.extend(self.modalities.iter().map(|modality| modality.sequences.offsets()));
        arrays.extend(&self.others);
        arrays
    }

    /// No array that counts, of those that kernels will be given, is longer.
    fn longest_count(&self) -> usize {
        let items = self.modalities.iter().map(|modality| modality.sequences.len() + 1);
        self.features().map(|rows| rows.len()).chain(items).max().unwrap_or(0)
    }

    fn stage(&self, gpu: &Gpu) -> Result<()> {
        self.features().try_for_each(|rows| rows.stage(gpu))?;
        gpu.stage_counting(self.longest_count())?;
        Indices::stage(&self.arrays(), gpu)
    }

    fn arrive(&self, gpu: &Gpu) -> Result<()> {
        self.stage(gpu)?;
        self.features().try_for_each(|rows| rows.on(gpu).map(drop))?;
        gpu.counting(self.longest_count())?;
        Indices::expand(&self.arrays(), gpu)?;
        self.arrays().into_iter().try_for_each(|array| array.on(gpu).map(drop))
    }
}
