//! Ranking every mention's candidates with a trained model.

use std::collections::HashMap;

use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::blocks::in_blocks;
use super::metrics::{Metrics, rank};
use crate::autograd::Tape;
use crate::data::{Batcher, Sample};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::model::{EntityIndex, Model, PreparedSide, Scorer, mean_over_scores};
use crate::tensor::Element;

/// Entities or mentions prepared at a time.
const BLOCK: usize = 256;

/// Mentions of a batch on a device, and of a model that does not prepare entities.
const BATCH: usize = 64;

/// Mentions that [`evaluate`] computes together: where shares of them may begin and end with the same bits. Prepared sides have
/// the same bits whatever they are prepared with.
pub fn computed_together(model: &Model, gpu: Option<&Gpu>) -> usize {
    if is_prepared(model, gpu) { 1 } else { BATCH }
}

fn is_prepared(model: &Model, gpu: Option<&Gpu>) -> bool {
    gpu.is_none() && model.config().network.prepares()
}

/// A mention's candidates with their scores.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// Positions in the sample's list, best first.
    pub order: Vec<usize>,
    /// Mean score of each candidate of the sample's list (Eq. 11).
    pub similarity: Vec<f32>,
    /// Scores (kinds, candidates).
    pub scores: Vec<f32>,
    /// Rank of the gold entity.
    pub rank: usize,
    /// The same by each score alone.
    pub by_score: Vec<usize>,
    /// Whether the gold entity was among those that were ranked.
    pub found: bool,
}

/// Where a mention's gold entity stands: all that metrics are made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldRanks {
    /// By the mean of the scores.
    pub mean: usize,
    /// By each score alone.
    pub by_score: Vec<usize>,
    /// Whether it was among those that were ranked.
    pub found: bool,
}

/// Metrics by the mean of the scores, then by each of so many scores.
pub fn metrics_of(ranks: &[GoldRanks], scores: usize) -> (Metrics, Vec<Metrics>) {
    let by = |rank: &dyn Fn(&GoldRanks) -> usize| {
        Metrics::with_misses(&ranks.iter().map(|ranks| (rank(ranks), ranks.found)).collect::<Vec<_>>())
    };
    (by(&|ranks| ranks.mean), (0..scores).map(|k| by(&|ranks| ranks.by_score[k])).collect())
}

/// Metrics of a model on some mentions.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// By the mean of the scores.
    pub mean: Metrics,
    /// By each score alone.
    pub per_score: Vec<(&'static str, Metrics)>,
    /// One per sample.
    pub ranked: Vec<Ranked>,
}

impl Evaluation {
    /// Of rankings by these scores.
    pub fn of(kinds: &[&'static str], ranked: Vec<Ranked>) -> Evaluation {
        let ranks: Vec<GoldRanks> = ranked.iter().map(Ranked::gold_ranks).collect();
        let (mean, per_score) = metrics_of(&ranks, kinds.len());
        Evaluation { mean, per_score: kinds.iter().copied().zip(per_score).collect(), ranked }
    }
}

impl Ranked {
    /// Where the gold entity stands.
    pub fn gold_ranks(&self) -> GoldRanks {
        GoldRanks { mean: self.rank, by_score: self.by_score.clone(), found: self.found }
    }
}

/// Prepares these entities and adds them to an index, in this order.
pub fn index_entities(
    model: &Model,
    batcher: &Batcher,
    entities: &[u32],
    index: &mut EntityIndex,
    bar: &ProgressBar,
) -> Result<()> {
    in_blocks(entities, BLOCK, |block| {
        let side = batcher.side(&batcher.items(block)?, block.len())?;
        index.add(&PreparedSide::new(model, &side)?, block.len())?;
        bar.inc(block.len() as u64);
        Ok(())
    })
}

/// Order of candidates by falling similarity; equal ones keep their order.
pub fn order_by(similarity: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..similarity.len()).collect();
    order.sort_by(|&a, &b| similarity[b].total_cmp(&similarity[a]));
    order
}

/// Fails if a score of this mention is no finite number: no order of such scores means anything.
pub(super) fn finite(scores: &[f32], mention: &str) -> Result<()> {
    if scores.iter().all(|score| score.is_finite()) {
        return Ok(());
    }
    Err(Error::overflow(format!("mention `{mention}`: scores are")))
}

/// What the scores (kinds, candidates) of a sample make of its candidates.
fn ranked(sample: &Sample, scores: Vec<f32>, kinds: usize) -> Result<Ranked> {
    finite(&scores, &sample.id)?;
    let similarity = mean_over_scores(&scores, kinds);
    let gold = sample.gold.map(|gold| gold as usize);
    let n = similarity.len();
    let by_score = (0..kinds).map(|k| rank(&scores[k * n..][..n], gold)).collect();
    let rank = rank(&similarity, gold);
    Ok(Ranked { order: order_by(&similarity), similarity, scores, rank, by_score, found: gold.is_some() })
}

/// Prepares each entity and each mention once, and scores the pairs of both.
fn rank_prepared(model: &Model, batcher: &Batcher, samples: &[Sample], bar: &ProgressBar) -> Result<Vec<Ranked>> {
    let mut place: HashMap<u32, u32> = HashMap::new();
    let mut entities = Vec::new();
    for &candidate in samples.iter().flat_map(|s| &s.candidates) {
        place.entry(candidate).or_insert_with(|| {
            entities.push(candidate);
            entities.len() as u32 - 1
        });
    }
    bar.set_length((entities.len() + samples.len()) as u64);
    let scorer = Scorer::new(model)?;
    let mut index = EntityIndex::new(&scorer, Element::F32);
    index_entities(model, batcher, &entities, &mut index, bar)?;
    let kinds = scorer.kinds().len();
    let mut all = Vec::with_capacity(samples.len());
    for block in samples.chunks(BLOCK) {
        let items: Vec<_> = block.iter().map(|s| s.item).collect();
        let mentions = PreparedSide::new(model, &batcher.side(&items, items.len())?)?;
        let rank_one = |(i, sample): (usize, &Sample)| {
            let candidates: Vec<u32> = sample.candidates.iter().map(|c| place[c]).collect();
            ranked(sample, scorer.score(mentions.mention(i), &index, &candidates)?, kinds)
        };
        all.extend(block.par_iter().enumerate().map(rank_one).collect::<Result<Vec<_>>>()?);
        bar.inc(block.len() as u64);
    }
    Ok(all)
}

/// Computes batches as training does.
fn rank_in_batches(model: &Model, batcher: &Batcher, samples: &[Sample], bar: &ProgressBar) -> Result<Vec<Ranked>> {
    bar.set_length(samples.len() as u64);
    let mut all = Vec::with_capacity(samples.len());
    for block in samples.chunks(BATCH) {
        let tape = Tape::inference();
        let (vars, batch) = (model.parameters().bind(&tape), batcher.batch(block)?);
        model.gpu().map_or(Ok(()), |gpu| batch.stage(gpu))?;
        let computed = model.scores(&tape, &vars, &batch, None)?;
        let (kinds, values) = (computed.kinds.len(), computed.values.tensor().to(None)?);
        let (pairs, mut start) = (values.shape()[1], 0);
        for sample in block {
            let n = sample.candidates.len();
            let of_kind = |k: usize| &values.data()[k * pairs + start..][..n];
            all.push(ranked(sample, (0..kinds).flat_map(of_kind).copied().collect(), kinds)?);
            start += n;
        }
        bar.inc(block.len() as u64);
    }
    Ok(all)
}

/// Ranks the candidates of all samples, where the model's weights lie.
pub fn evaluate(model: &Model, batcher: &Batcher, samples: &[Sample], bar: &ProgressBar) -> Result<Evaluation> {
    let ranked = match is_prepared(model, model.gpu()) {
        true => rank_prepared(model, batcher, samples, bar)?,
        false => rank_in_batches(model, batcher, samples, bar)?,
    };
    Ok(Evaluation::of(&model.config().scores(), ranked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_are_no_numbers_are_an_error() {
        finite(&[0.0, -1e38], "m").unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = finite(&[0.0, bad], "m").unwrap_err().to_string();
            assert!(error.contains("mention `m`: scores are not finite, though the features are"), "{error}");
            assert!(error.contains("lower train.learning_rate"), "{error}");
        }
    }
}
