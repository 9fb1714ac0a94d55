//! A first stage for large knowledge bases: the entities whose Fusion vectors agree best with a mention's.

use std::sync::Arc;

use indicatif::ProgressBar;
use rand::seq::index;
use serde::Serialize;

use super::best::Best;
use super::entities::{Entities, Mentions};
use super::ranking::finite;
use super::statistics::{Interval, wilson};
use super::vectors::{NO_VECTORS, fused, share_of};
use crate::data::Item;
use crate::error::{Error, Result};
use crate::model::{PreparedMention, PreparedSide, mean_over_scores};
use crate::random::{Purpose, generator};
use crate::search::{Candidates, Collector, Flat, Found, Source, Top};

/// A first stage: its settings, and what it asks.
#[derive(Clone, Debug)]
pub struct FirstStage {
    /// How long the lists are, and what they must find.
    pub settings: ShortlistSettings,
    /// What finds them.
    pub source: Source,
}

/// What lists entities by Fusion's vectors.
#[derive(Debug)]
pub struct Shortlist {
    candidates: Arc<dyn Candidates>,
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
    /// Mean share of the entities with the largest products that the list holds, where a scan in f32 is not what makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_exact: Option<f64>,
}

impl Recall {
    /// The share of mentions.
    pub fn share(&self) -> f64 {
        self.found as f64 / self.mentions as f64
    }
}

impl Shortlist {
    /// Scores all entities against some of these mentions to measure recall, and collects their vectors on the way if the first
    /// stage is to scan them.
    ///
    /// Fails if the model has no such vectors, if the lists would be longer than the knowledge base, if what holds the vectors
    /// holds others or does not answer, or if recall is too low.
    pub(super) fn new(
        entities: &mut Entities,
        stage: &FirstStage,
        mentions: &[Item],
        bar: &ProgressBar,
    ) -> Result<(Shortlist, Recall)> {
        let FirstStage { settings, source } = stage;
        let (count, length) = (entities.count(), settings.length);
        if length == 0 || length > count {
            return Err(Error::invalid(format!(
                "--shortlist {length}: a list has at least one entity and at most all {count} of the knowledge base"
            )));
        }
        let drawn = draw(settings, mentions)?;
        let side = entities.batcher().side(&drawn, drawn.len())?;
        let sides = entities.prepares().then(|| PreparedSide::new(entities.model(), &side)).transpose()?;
        let sample: Vec<PreparedMention> =
            sides.iter().flat_map(|side| (0..drawn.len()).map(|m| side.mention(m))).collect();
        let queries = fused(&sample);
        let width = queries.len() / drawn.len();
        if width == 0 {
            return Err(Error::invalid(format!("--shortlist: {NO_VECTORS}")));
        }
        if let Source::Held(held) = source {
            expect_all(held.as_ref(), count, width)?;
        }
        let kinds = entities.model().config().scores().len();
        let mut collected = Collector::new(source, count, width);
        let mut best: Vec<Best> = sample.iter().map(|_| Best::new(1)).collect();
        let mut nearest: Vec<Top> = sample.iter().map(|_| Top::new(length)).collect();
        let mentions = Mentions::Prepared(sample.clone());
        let all: Vec<u32> = (0..count as u32).collect();
        for block in all.chunks(entities.block()) {
            entities.prepare(block, bar)?;
            let of_block = entities.fused(block)?;
            collected.add(&of_block)?;
            if !collected.is_exact() {
                let tops = nearest.iter_mut().zip(queries.chunks_exact(width));
                tops.for_each(|(top, query)| top.add(block[0], &Flat::products(&of_block, query)));
            }
            let scores = entities.score(&mentions, block)?;
            for (best, scores) in best.iter_mut().zip(scores.chunks_exact(kinds * block.len())) {
                finite(scores, "of the sample for --shortlist")?;
                best.add(block, &mean_over_scores(scores, kinds), scores, |i| block[i]);
            }
        }
        let exact = (!collected.is_exact()).then_some(nearest);
        let candidates = collected.finish(entities.model().gpu())?;
        let list = Shortlist { candidates, length };
        let lists = list.found(&queries)?;
        let holds = |(list, best): (&Vec<Found>, Best)| {
            let first = best.into_sorted().first().map(|scored| scored.entity);
            first.is_some_and(|first| list.iter().any(|found| found.number == first))
        };
        let found = lists.iter().zip(best).map(holds).filter(|&held| held).count();
        let of_exact = exact.map(|exact| share_of(&lists, exact));
        let recall = Recall { found, mentions: sample.len(), interval: wilson(found, sample.len())?, of_exact };
        list.expect_enough(&recall, settings.min_recall)?;
        Ok((list, recall))
    }

    /// The entities that are listed for each mention, by rising number.
    pub fn of(&self, mentions: &[PreparedMention]) -> Result<Vec<Vec<u32>>> {
        let sorted = |found: Vec<Found>| {
            let mut entities: Vec<u32> = found.into_iter().map(|found| found.number).collect();
            entities.sort_unstable();
            entities
        };
        Ok(self.found(&fused(mentions))?.into_iter().map(sorted).collect())
    }

    /// Lists of these queries; an error if one is short.
    fn found(&self, queries: &[f32]) -> Result<Vec<Vec<Found>>> {
        let lists = self.candidates.top_k(queries, self.length)?;
        match lists.iter().find(|list| list.len() != self.length) {
            None => Ok(lists),
            Some(short) => Err(Error::device(
                self.candidates.name(),
                "searching it",
                format!(
                    "it finds {} entities instead of {}; let it search more widely (--search-breadth)",
                    short.len(),
                    self.length
                ),
            )),
        }
    }

    /// Refuses lists that miss too much.
    fn expect_enough(&self, recall: &Recall, min_recall: f64) -> Result<()> {
        let length = self.length;
        if recall.share() < min_recall {
            return Err(Error::invalid(format!(
                "a list of {length} holds the whole model's first entity for {} of {} mentions, a recall of {:.4} \
                 (95 % interval {:.4} to {:.4}), below --min-recall {min_recall}; raise --shortlist, or lower --min-recall",
                recall.found,
                recall.mentions,
                recall.share(),
                recall.interval.low,
                recall.interval.high
            )));
        }
        match recall.of_exact.filter(|&share| share < min_recall) {
            None => Ok(()),
            Some(share) => Err(Error::invalid(format!(
                "{} finds {share:.4} of the {length} entities that a scan in f32 finds, in the mean of {} mentions, below \
                 --min-recall {min_recall}; let it search more widely (--search-breadth), or lower --min-recall",
                self.candidates.name(),
                recall.mentions
            ))),
        }
    }
}

/// The mentions on which recall is measured.
fn draw(settings: &ShortlistSettings, mentions: &[Item]) -> Result<Vec<Item>> {
    let drawn = settings.recall_mentions.min(mentions.len());
    if drawn == 0 {
        return Err(Error::invalid("--shortlist needs mentions on which its recall is measured"));
    }
    let mut rng = generator(settings.seed, Purpose::RecallSample, 0);
    Ok(index::sample(&mut rng, mentions.len(), drawn).into_iter().map(|at| mentions[at]).collect())
}

/// Refuses what holds vectors of another number or width than the model and the knowledge base have.
fn expect_all(held: &dyn Candidates, count: usize, width: usize) -> Result<()> {
    match (held.len(), held.width()) {
        (len, of) if len == count && of == width => Ok(()),
        (len, of) => Err(Error::invalid(format!(
            "{} holds {len} vectors of {of} numbers, and the knowledge base has {count} of {width}; fill it with \
             `fissfuse index push`",
            held.name()
        ))),
    }
}
