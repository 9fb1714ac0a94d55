//! Batches of random features in real shapes, for measuring.

use std::fmt;
use std::sync::Arc;

use half::f16;
use rand::Rng;

use crate::error::{Error, Result};
use crate::model::{Batch, Modality, Side, Widths};
use crate::ops::Pairing;
use crate::random::{Purpose, generator};
use crate::tensor::{FeatureRows, Indices, Ragged, RowTable, Textbook};

/// Most rows of a text or an image, and of all texts or images of a batch: products of these and of any width that a network
/// may have stay below 2^64.
const LONGEST: usize = 1 << 14;
const MOST_ROWS: usize = 1 << 28;

/// Sizes of a synthetic batch.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Shape {
    /// Mentions.
    pub mentions: usize,
    /// Candidates of each, all distinct entities.
    pub candidates: usize,
    /// Mean number of text tokens; lengths are drawn uniformly around it.
    pub mean_tokens: usize,
    /// Most text tokens; what a textbook implementation pads to.
    pub max_tokens: usize,
    /// Image patches.
    pub patches: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Shape { mentions, candidates, mean_tokens, max_tokens, patches } = self;
        write!(
            f,
            "{mentions} mentions of {candidates} candidates, {mean_tokens} tokens in the mean and {max_tokens} at most, "
        )?;
        write!(f, "{patches} patches")
    }
}

impl Shape {
    /// The paper's WikiDiverse step: 128 mentions x 10 candidates.
    pub const WIKIDIVERSE: Shape =
        Shape { mentions: 128, candidates: 10, mean_tokens: 20, max_tokens: 64, patches: 50 };
    /// The paper's WikiMEL step: 128 mentions x 100 candidates.
    pub const WIKIMEL: Shape = Shape { candidates: 100, ..Shape::WIKIDIVERSE };

    /// Fails unless every size is at least 1, texts fit, and rows and their FLOPs can be counted.
    pub fn check(&self) -> Result<()> {
        let Shape { mentions, candidates, mean_tokens, max_tokens, patches } = *self;
        let sizes = [
            ("mentions", mentions),
            ("candidates", candidates),
            ("mean tokens", mean_tokens),
            ("most tokens", max_tokens),
            ("patches", patches),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::invalid(format!("0 {name}: must be at least 1")));
        }
        if mean_tokens > max_tokens {
            let reason = format!("{mean_tokens} tokens of a text in the mean are more than {max_tokens}, the most");
            return Err(Error::invalid(reason));
        }
        let longest = max_tokens.max(patches);
        let rows = mentions.checked_mul(candidates).and_then(|pairs| pairs.checked_mul(longest));
        if longest > LONGEST || rows.is_none_or(|rows| rows > MOST_ROWS) {
            let most =
                format!("a text or an image has {LONGEST} rows at most, and all pairs have {MOST_ROWS} together");
            return Err(Error::invalid(format!("too large, {most}: {self}")));
        }
        Ok(())
    }

    /// A batch of this shape with features drawn by seed and stored as f16, as the feature store has them.
    pub fn batch(&self, widths: Widths, seed: u64) -> Result<Batch> {
        let pairs = self.mentions * self.candidates;
        let left = (0..pairs).map(|p| (p / self.candidates) as u32).collect();
        let (mention, entity) = (self.side(self.mentions, widths, seed, 0)?, self.side(pairs, widths, seed, 1)?);
        let gold = (0..self.mentions).map(|m| (m * self.candidates + m % self.candidates) as u32).collect();
        Batch::new(mention, entity, Pairing::new(left, self.mentions, (0..pairs as u32).collect(), pairs)?, gold)
    }

    /// Features of `items` mentions or entities.
    pub fn side(&self, items: usize, widths: Widths, seed: u64, which: u64) -> Result<Side> {
        let mut rng = generator(seed, Purpose::Benchmark, which);
        let mut modality = |lengths: Vec<usize>, longest: usize, width: usize, global: usize| -> Result<Modality> {
            let sequences = Ragged::new(lengths, Textbook { sequences: items, length: longest })?;
            let mut rows = |numbers: Indices, width: usize| -> Result<FeatureRows> {
                let n = numbers.len();
                // Cheap noise in (-1.75, 1.75), whose variance is about 1.
                let count = n.saturating_mul(width);
                let mut values = Vec::new();
                values.try_reserve_exact(count).map_err(|e| {
                    Error::invalid(format!("{n} rows of {width} features have no room in memory ({e}); ask for fewer"))
                })?;
                values.resize(count, f16::ZERO);
                for chunk in values.chunks_mut(4) {
                    let bits: u64 = rng.random();
                    for (i, value) in chunk.iter_mut().enumerate() {
                        *value = f16::from_f32(((bits >> (16 * i)) as u16 as i16) as f32 * (1.75 / 32768.0));
                    }
                }
                let mut table = RowTable::new(width);
                table.push_f16(values.into())?;
                Ok(FeatureRows::new(Arc::new(table), numbers))
            };
            // As they come of a store: all rows of one item after the other.
            let tokens = Indices::runs(sequences.offsets()[..items].to_vec(), sequences.offsets())?;
            let (tokens, global) = (rows(tokens, width)?.into(), rows((0..items as u32).collect(), global)?.into());
            Ok(Modality { tokens, global, sequences })
        };
        let span = (self.mean_tokens - 1).min(self.max_tokens.saturating_sub(self.mean_tokens));
        let mut draw = generator(seed, Purpose::Benchmark, 2 + which);
        let lengths: Vec<usize> =
            (0..items).map(|_| draw.random_range(self.mean_tokens - span..=self.mean_tokens + span)).collect();
        Ok(Side {
            text: modality(lengths, self.max_tokens, widths.text, widths.text_global)?,
            image: modality(vec![self.patches; items], self.patches, widths.image, widths.image_global)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_cannot_be_counted_are_refused() {
        Shape::WIKIMEL.check().unwrap();
        let shape = Shape::WIKIDIVERSE;
        for wrong in [
            Shape { mentions: usize::MAX, ..shape },
            Shape { mentions: 1 << 16, candidates: 1 << 16, ..shape },
            Shape { max_tokens: usize::MAX, ..shape },
            Shape { patches: 1 << 20, ..shape },
        ] {
            assert!(wrong.check().unwrap_err().to_string().contains("too large"), "{wrong:?}");
        }
    }
}
