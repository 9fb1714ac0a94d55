//! Ranking the whole knowledge base for every mention with the whole model: a block of entities at a time, each against all
//! mentions.

use indicatif::ProgressBar;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::best::{Ahead, Best, Scored};
use super::entities::{Entities, Keeping, Mentions};
use super::ranking::{Evaluation, Ranked, finite};
use super::shortlist::{FirstStage, Recall, Shortlist};
use crate::data::{Batcher, Sample};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::model::{Model, PreparedMention, PreparedSide, mean_over_scores};
use crate::random::{Purpose, generator};

/// Mentions that meet each block of entities while it is prepared.
const MENTIONS: usize = 4096;

/// Mentions that are prepared together, and scored at a time: where shares of them may begin and end with the same bits.
pub const BATCH: usize = 128;

/// How the whole knowledge base is ranked.
#[derive(Clone, Debug)]
pub struct WholeKb {
    /// Entities that are listed for a mention; ranks are those among all.
    pub top: usize,
    /// Draws the order of the entities, which decides ties.
    pub seed: u64,
    /// How prepared entities are kept.
    pub keeping: Keeping,
    /// Scores only those that a first stage finds.
    pub shortlist: Option<FirstStage>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct WholeKbEvaluation {
    /// The mentions with the entities that are listed, best first.
    pub samples: Vec<Sample>,
    /// Metrics over all entities, and the listed entities' scores.
    pub evaluation: Evaluation,
    /// Of the first stage, if there is one.
    pub recall: Option<Recall>,
}

/// A mention's ranking of a knowledge base.
struct Ranking {
    /// The first of it.
    listed: Vec<Scored>,
    /// The gold entity's rank by each score, then by their mean.
    ranks: Vec<usize>,
    /// Whether the gold entity was ranked at all.
    found: bool,
}

/// Ranks all `entities` of a knowledge base for each sample, whose gold entity stands among its candidates. If there is a first
/// stage, it is judged by some of the mentions of `judges`, such as all of a split whose part is ranked. The model's weights
/// lie on the host; `gpu` is where it shall compute, if not there. `bar` counts entities, once for each batch of mentions that
/// they are scored against.
///
/// Fails for a model whose entities cannot be prepared alone: each pair would be computed as training does.
pub fn evaluate_whole(
    (model, gpu): (&Model, Option<&Gpu>),
    (batcher, entities): (&Batcher, usize),
    (samples, judges): (&[Sample], &[Sample]),
    settings: &WholeKb,
    bar: &ProgressBar,
) -> Result<WholeKbEvaluation> {
    let kinds = model.config().scores();
    let Some(golds) = samples.iter().map(gold_of).collect::<Option<Vec<u32>>>() else {
        return Err(Error::invalid("a mention without its gold entity has no rank"));
    };
    if !model.config().network.prepares() {
        return Err(Error::invalid(format!(
            "{} does not prepare entities apart from mentions, so it cannot rank a whole knowledge base; rank the lists of \
             `fissfuse candidates` with it",
            model.config().network.name()
        )));
    }
    let mut place: Vec<u32> = (0..entities as u32).collect();
    place.shuffle(&mut generator(settings.seed, Purpose::EntityOrder, 0));
    let kb = Entities::new((model, gpu), batcher, entities, settings.keeping)?;
    let mut whole = Whole { kb, kinds: kinds.len(), place, top: settings.top.min(entities), bar };
    let first = match &settings.shortlist {
        Some(stage) => {
            let items: Vec<_> = judges.iter().map(|sample| sample.item).collect();
            Some(Shortlist::new(&mut whole.kb, stage, &items, bar)?)
        }
        None => None,
    };
    let mut rankings = Vec::with_capacity(samples.len());
    let batches: usize = samples.chunks(MENTIONS).map(|samples| samples.len().div_ceil(BATCH)).sum();
    bar.set_position(0);
    bar.set_length((if first.is_some() { samples.len() } else { batches * entities }) as u64);
    for (samples, golds) in samples.chunks(MENTIONS).zip(golds.chunks(MENTIONS)) {
        let sides = samples.chunks(BATCH).map(|samples| whole.prepare(samples)).collect::<Result<Vec<_>>>()?;
        let mentions: Vec<PreparedMention> = (0..samples.len()).map(|m| sides[m / BATCH].mention(m % BATCH)).collect();
        rankings.extend(match &first {
            Some((shortlist, _)) => whole.rank_listed(samples, &mentions, golds, shortlist)?,
            None => whole.rank_all(samples, &mentions, golds)?,
        });
    }
    let listed = samples.iter().zip(golds).zip(&rankings).map(|((sample, gold), ranking)| Sample {
        candidates: ranking.listed.iter().map(|scored| scored.entity).collect(),
        gold: ranking.listed.iter().position(|scored| scored.entity == gold).map(|at| at as u32),
        ..sample.clone()
    });
    let samples = listed.collect();
    let ranked = rankings.into_iter().map(|ranking| ranking.into_ranked(kinds.len())).collect();
    let evaluation = Evaluation::of(&kinds, ranked);
    let recall = first.map(|(_, recall)| recall);
    Ok(WholeKbEvaluation { samples, evaluation, recall })
}

/// The gold entity of a sample.
fn gold_of(sample: &Sample) -> Option<u32> {
    Some(sample.candidates[sample.gold? as usize])
}

impl Ranking {
    fn into_ranked(self, kinds: usize) -> Ranked {
        let of_kind = |k: usize| self.listed.iter().map(move |scored| scored.scores[k]);
        Ranked {
            order: (0..self.listed.len()).collect(),
            similarity: self.listed.iter().map(|scored| scored.mean).collect(),
            scores: (0..kinds).flat_map(of_kind).collect(),
            rank: self.ranks[kinds],
            by_score: self.ranks[..kinds].to_vec(),
            found: self.found,
        }
    }
}

/// A knowledge base that is ranked.
struct Whole<'a> {
    kb: Entities<'a>,
    kinds: usize,
    /// Which of equal entities comes first: the one with the lower place.
    place: Vec<u32>,
    top: usize,
    bar: &'a ProgressBar,
}

impl Whole<'_> {
    fn prepare(&self, samples: &[Sample]) -> Result<PreparedSide> {
        let items: Vec<_> = samples.iter().map(|sample| sample.item).collect();
        PreparedSide::new(self.kb.model(), &self.kb.batcher().side(&items, items.len())?)
    }

    /// All entities' rankings. What is scored first is each mention's gold entity alone, for what stands before it to be counted
    /// as it passes by: prepared in the same block as later, so that it has the same bits.
    fn rank_all(&mut self, samples: &[Sample], mentions: &[PreparedMention], golds: &[u32]) -> Result<Vec<Ranking>> {
        let all: Vec<u32> = (0..self.kb.count() as u32).collect();
        let mut ahead: Vec<Option<Ahead>> = samples.iter().map(|_| None).collect();
        for block in all.chunks(self.kb.block()) {
            let within = |gold: &u32| block.contains(gold);
            if !golds.iter().any(within) {
                continue;
            }
            self.kb.prepare(block, &ProgressBar::hidden())?;
            for (m, &gold) in golds.iter().enumerate().filter(|(_, gold)| within(gold)) {
                let scores = self.kb.score(&Mentions::Prepared(vec![mentions[m]]), &[gold])?;
                let mean = mean_over_scores(&scores, self.kinds)[0];
                ahead[m] = Some(Ahead::new(gold, self.place[gold as usize], scores, mean));
            }
        }
        let mut best: Vec<Best> = samples.iter().map(|_| Best::new(self.top)).collect();
        for block in all.chunks(self.kb.block()) {
            self.kb.prepare(block, &ProgressBar::hidden())?;
            let place = |i: usize| self.place[block[i] as usize];
            for first in (0..samples.len()).step_by(BATCH) {
                let batch = first..(first + BATCH).min(samples.len());
                let scores = self.kb.score(&Mentions::Prepared(mentions[batch.clone()].to_vec()), block)?;
                let of_batch = samples[batch.clone()].par_iter().zip(&mut best[batch.clone()]).zip(&mut ahead[batch]);
                of_batch.zip(scores.par_chunks(self.kinds * block.len())).try_for_each(
                    |(((sample, best), ahead), scores)| {
                        finite(scores, &sample.id)?;
                        let means = mean_over_scores(scores, self.kinds);
                        best.add(block, &means, scores, place);
                        ahead.iter_mut().for_each(|ahead| ahead.add(block, &means, scores, place));
                        Ok(())
                    },
                )?;
                self.bar.inc(block.len() as u64);
            }
        }
        let ranking = |(best, ahead): (Best, Option<Ahead>)| {
            let ranks = ahead.map(|ahead| ahead.ranks());
            let ranks = ranks.ok_or_else(|| Error::shape("whole-kb", "a gold entity that is none"))?;
            Ok(Ranking { listed: best.into_sorted(), ranks, found: true })
        };
        best.into_iter().zip(ahead).map(ranking).collect()
    }

    /// Rankings of the entities that the first stage lists; a gold entity that it does not list ranks behind all of them.
    fn rank_listed(
        &mut self,
        samples: &[Sample],
        mentions: &[PreparedMention],
        golds: &[u32],
        shortlist: &Shortlist,
    ) -> Result<Vec<Ranking>> {
        let mut rankings = Vec::with_capacity(samples.len());
        let mut lists = Vec::with_capacity(samples.len());
        for mentions in mentions.chunks(BATCH) {
            lists.extend(shortlist.of(mentions)?);
        }
        for (((sample, mention), &gold), list) in samples.iter().zip(mentions).zip(golds).zip(lists) {
            self.kb.prepare(&list, &ProgressBar::hidden())?;
            let scores = self.kb.score(&Mentions::Prepared(vec![*mention]), &list)?;
            finite(&scores, &sample.id)?;
            let means = mean_over_scores(&scores, self.kinds);
            let place = |i: usize| self.place[list[i] as usize];
            let mut best = Best::new(self.top);
            best.add(&list, &means, &scores, place);
            let at = list.binary_search(&gold).ok();
            let ranks = match at {
                None => vec![list.len() + 1; self.kinds + 1],
                Some(at) => {
                    let own = scores[at..].iter().step_by(list.len()).copied().collect();
                    let mut ahead = Ahead::new(gold, place(at), own, means[at]);
                    ahead.add(&list, &means, &scores, place);
                    ahead.ranks()
                }
            };
            rankings.push(Ranking { listed: best.into_sorted(), ranks, found: at.is_some() });
            self.bar.inc(1);
        }
        Ok(rankings)
    }
}
