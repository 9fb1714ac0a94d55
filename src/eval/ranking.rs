//! Ranking every mention's candidates with a trained model.

use std::collections::HashMap;

use indicatif::ProgressBar;
use rayon::prelude::*;

use super::metrics::{Metrics, rank};
use crate::autograd::Tape;
use crate::data::{Batcher, Sample};
use crate::error::{Error, Result};
use crate::model::{EntityIndex, Model, PreparedSide, Scorer, mean_over_scores};
use crate::tensor::Element;

/// Entities or mentions prepared at a time.
const BLOCK: usize = 256;

/// Mentions of a batch on a device.
const BATCH: usize = 64;

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

/// Prepares these entities and adds them to an index, in this order.
pub fn index_entities(
    model: &Model,
    batcher: &Batcher,
    entities: &[u32],
    index: &mut EntityIndex,
    bar: &ProgressBar,
) -> Result<()> {
    for block in entities.chunks(BLOCK) {
        let side = batcher.side(&batcher.items(block)?, block.len())?;
        index.add(&PreparedSide::new(model, &side)?, block.len())?;
        bar.inc(block.len() as u64);
    }
    Ok(())
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
    Err(Error::invalid(format!(
        "mention `{mention}`: scores are not finite; the model's weights or the features hold NaN or infinity \
         (`fissfuse index check` compares the features with their checksums)"
    )))
}

/// What the scores (kinds, candidates) of a sample make of its candidates.
fn ranked(sample: &Sample, scores: Vec<f32>, kinds: usize) -> Result<Ranked> {
    finite(&scores, &sample.id)?;
    let similarity = mean_over_scores(&scores, kinds);
    let rank = rank(&similarity, sample.gold.map(|g| g as usize));
    Ok(Ranked { order: order_by(&similarity), similarity, scores, rank })
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
    let mut index = EntityIndex::new(model, Element::F32);
    index_entities(model, batcher, &entities, &mut index, bar)?;
    let scorer = Scorer::new(model)?;
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
    let prepared = model.gpu().is_none() && model.config().network.prepares();
    let ranked = match prepared {
        true => rank_prepared(model, batcher, samples, bar)?,
        false => rank_in_batches(model, batcher, samples, bar)?,
    };
    let kinds = model.config().scores();
    let by_score = |k: usize| {
        let ranks = samples.iter().zip(&ranked).map(|(sample, ranked)| {
            let n = sample.candidates.len();
            (rank(&ranked.scores[k * n..][..n], sample.gold.map(|g| g as usize)), sample.gold.is_some())
        });
        Metrics::with_misses(&ranks.collect::<Vec<_>>())
    };
    let ranks: Vec<(usize, bool)> = ranked.iter().zip(samples).map(|(r, s)| (r.rank, s.gold.is_some())).collect();
    Ok(Evaluation {
        mean: Metrics::with_misses(&ranks),
        per_score: kinds.iter().enumerate().map(|(k, kind)| (*kind, by_score(k))).collect(),
        ranked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_are_no_numbers_are_an_error() {
        finite(&[0.0, -1e38], "m").unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = finite(&[0.0, bad], "m").unwrap_err().to_string();
            assert!(error.contains("mention `m`: scores are not finite"), "{error}");
        }
    }
}
