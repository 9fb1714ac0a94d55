//! A first stage for large knowledge bases: the entities whose Fusion vectors agree best with a mention's.

use indicatif::ProgressBar;
use rand::seq::index;
use rayon::prelude::*;
use serde::Serialize;

use super::best::Best;
use super::entities::{Entities, Mentions};
use super::ranking::finite;
use super::statistics::{Interval, wilson};
use crate::data::Item;
use crate::device::cpu::{simd, vector};
use crate::error::{Error, Result};
use crate::model::{PreparedMention, PreparedSide, mean_over_scores};
use crate::random::{Purpose, generator};

/// Vectors that one task compares with a mention's.
const CHUNK: usize = 8192;

/// Fusion's vectors of all entities.
#[derive(Debug)]
pub struct Shortlist {
    /// (entities, width)
    vectors: Vec<f32>,
    width: usize,
    length: usize,
}

/// How long the lists are, and what they must find.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ShortlistSettings {
    /// Entities of a list.
    pub length: usize,
    /// Least share of mentions whose first entity by the whole model must be in the list.
    pub min_recall: f64,
    /// Mentions on which this is measured, at most.
    pub recall_mentions: usize,
    /// Draws them.
    pub seed: u64,
}

/// How often the list holds the entity that the whole model ranks first among all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recall {
    /// Mentions whose list holds it.
    pub found: usize,
    /// Mentions of the sample.
    pub mentions: usize,
    /// Wilson's 95 % interval of the share.
    pub interval: Interval,
}

impl Recall {
    /// The share of mentions.
    pub fn share(&self) -> f64 {
        self.found as f64 / self.mentions as f64
    }
}

impl Shortlist {
    /// Collects the vectors of all entities, and scores all of them against some of these mentions to measure recall.
    ///
    /// Fails if the model has no such vectors, if the lists would be longer than the knowledge base, or if recall is too low.
    pub(super) fn new(
        entities: &mut Entities,
        settings: ShortlistSettings,
        mentions: &[Item],
        bar: &ProgressBar,
    ) -> Result<(Shortlist, Recall)> {
        let (count, ShortlistSettings { length, min_recall, recall_mentions, seed }) = (entities.count(), settings);
        if length == 0 || length > count {
            return Err(Error::invalid(format!(
                "--shortlist {length}: a list has at least one entity and at most all {count} of the knowledge base"
            )));
        }
        let drawn = recall_mentions.min(mentions.len());
        if drawn == 0 {
            return Err(Error::invalid("--shortlist needs mentions on which its recall is measured"));
        }
        let mut rng = generator(seed, Purpose::RecallSample, 0);
        let drawn: Vec<Item> =
            index::sample(&mut rng, mentions.len(), drawn).into_iter().map(|at| mentions[at]).collect();
        let side = entities.batcher().side(&drawn, drawn.len())?;
        let no_vectors = || {
            let reason = "the model has no scores of the Fusion branch, whose vectors it compares; leave it out";
            Error::invalid(format!("--shortlist: {reason}"))
        };
        if !entities.prepares() {
            return Err(no_vectors());
        }
        let side = PreparedSide::new(entities.model(), &side)?;
        let sample: Vec<PreparedMention> = (0..drawn.len()).map(|m| side.mention(m)).collect();
        let width = sample[0].fused().len();
        if width == 0 {
            return Err(no_vectors());
        }
        let kinds = entities.model().config().scores().len();
        let mut vectors = Vec::with_capacity(count * width);
        let mut best: Vec<Best> = sample.iter().map(|_| Best::new(1)).collect();
        let mentions = Mentions::Prepared(sample.clone());
        let all: Vec<u32> = (0..count as u32).collect();
        for block in all.chunks(entities.block()) {
            entities.prepare(block, bar)?;
            vectors.extend(entities.fused(block)?);
            let scores = entities.score(&mentions, block)?;
            for (best, scores) in best.iter_mut().zip(scores.chunks_exact(kinds * block.len())) {
                finite(scores, "of the sample for --shortlist")?;
                best.add(block, &mean_over_scores(scores, kinds), scores, |i| block[i]);
            }
        }
        let list = Shortlist { vectors, width, length };
        let holds = |(mention, best): (&PreparedMention, Best)| {
            let first = best.into_sorted().first().map(|scored| scored.entity);
            first.is_some_and(|first| list.of(mention).binary_search(&first).is_ok())
        };
        let found = sample.iter().zip(best).map(holds).filter(|&held| held).count();
        let recall = Recall { found, mentions: sample.len(), interval: wilson(found, sample.len())? };
        if recall.share() < min_recall {
            return Err(Error::invalid(format!(
                "a list of {length} holds the whole model's first entity for {found} of {} mentions, a recall of {:.4} \
                 (95 % interval {:.4} to {:.4}), below --min-recall {min_recall}; raise --shortlist, or lower --min-recall",
                recall.mentions,
                recall.share(),
                recall.interval.low,
                recall.interval.high
            )));
        }
        Ok((list, recall))
    }

    /// The entities whose vectors' dot product with the mention's is largest, by rising number; of equal ones those with the
    /// lowest numbers.
    pub fn of(&self, mention: &PreparedMention) -> Vec<u32> {
        let query = mention.fused();
        let of_chunk = |(chunk, vectors): (usize, &[f32])| {
            let products: Vec<f32> =
                simd!(vectors.chunks_exact(self.width).map(|row| vector::dot(&query, row)).collect());
            let first = (chunk * CHUNK) as u32;
            let mut found: Vec<(f32, u32)> = products.into_iter().zip(first..).collect();
            self.keep_best(&mut found);
            found
        };
        let mut found: Vec<(f32, u32)> =
            self.vectors.par_chunks(CHUNK * self.width).enumerate().flat_map_iter(of_chunk).collect();
        self.keep_best(&mut found);
        let mut entities: Vec<u32> = found.into_iter().map(|(_, entity)| entity).collect();
        entities.sort_unstable();
        entities
    }

    /// Keeps the first of a list.
    fn keep_best(&self, found: &mut Vec<(f32, u32)>) {
        if found.len() > self.length {
            found.select_nth_unstable_by(self.length - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            found.truncate(self.length);
        }
    }
}
