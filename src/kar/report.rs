//! What re-ranking did: metrics before and after, how ranks changed, what the model's answers were worth and took.

use serde::{Deserialize, Serialize};

use super::debias::Sample;
use super::fuse::Fusion;
use super::instruction::letter;
use super::types::{Choice, Outcome, Reranked, Settings, Spent, Verdict};
use crate::data::Ranking;
use crate::eval::Metrics;

/// How the gold entities' ranks changed (Fig. 9 of the paper).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankChanges {
    /// How many went from which rank (rows, from 1) to which (columns), among the first K.
    pub matrix: Vec<Vec<usize>>,
    /// Gold entities behind the first K, where nothing changes.
    pub behind: usize,
    /// Ranks that got better: below the diagonal.
    pub improved: usize,
    /// Ranks that got worse: above it.
    pub degraded: usize,
}

impl RankChanges {
    /// Of ranks before and after, each from 1.
    pub fn of(k: usize, ranks: &[(usize, usize)]) -> RankChanges {
        let mut matrix = vec![vec![0; k]; k];
        for &(before, after) in ranks {
            if let Some(count) = matrix.get_mut(before - 1).and_then(|row| row.get_mut(after - 1)) {
                *count += 1;
            }
        }
        let count = |wanted: &dyn Fn(usize, usize) -> bool| ranks.iter().filter(|&&(b, a)| wanted(b, a)).count();
        RankChanges {
            matrix,
            behind: count(&|before, _| before > k),
            improved: count(&|before, after| after < before),
            degraded: count(&|before, after| after > before),
        }
    }
}

/// How the model by itself did with what stood at a letter: without a prior divided out or a ranking's evidence added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtLetter {
    /// The letter.
    pub letter: char,
    /// Mentions whose right entity stood at it.
    pub right: usize,
    /// Of these, the ones where the model chose it.
    pub found: usize,
    /// Mentions for which the model chose it, right or wrong.
    pub chosen: usize,
}

impl AtLetter {
    /// Of all letters up to the last that was shown, over mentions whose answers count and whose right entity was an option.
    fn all<'a>(pairs: impl Iterator<Item = (&'a Ranking, &'a Reranked)>) -> Vec<AtLetter> {
        let mut all: Vec<AtLetter> = Vec::new();
        for (ranking, reranked) in pairs {
            let Some(Choice { shown, letter: chosen }) = &reranked.choice else { continue };
            let Some(right) = shown.iter().position(|&at| Some(ranking.candidates[at]) == ranking.mention.gold) else {
                continue;
            };
            for at in all.len()..shown.len() {
                all.push(AtLetter { letter: letter(at), right: 0, found: 0, chosen: 0 });
            }
            all[right].right += 1;
            all[right].found += usize::from(right == *chosen);
            all[*chosen].chosen += 1;
        }
        all
    }
}

/// A mention that kept its old ranking although the model was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unanswered {
    /// The mention.
    pub mention_id: String,
    /// The invalid answer, or why there is none.
    pub answer: String,
}

/// All there is to say about a re-ranking.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model that was asked.
    pub model: String,
    /// How.
    pub settings: Settings,
    /// Mentions of the run file.
    pub mentions: usize,
    /// Mentions of the dataset's split that the run file lacks.
    pub not_in_run: usize,
    /// Mentions whose answers count.
    pub answered: usize,
    /// Mentions that the gate let pass.
    pub sure: usize,
    /// Of these, the share whose first candidate is right.
    pub sure_and_right: Option<f64>,
    /// Mentions that were not asked about since the model's answers have no weight.
    pub weightless: usize,
    /// Mentions with fewer than two candidates.
    pub too_few: usize,
    /// Mentions with fewer candidates than K.
    pub shorter_than_k: usize,
    /// Mentions whose answers name no option; they keep their ranking.
    pub invalid: Vec<Unanswered>,
    /// Mentions whose answers ended within the model's thoughts; they keep their ranking.
    pub unfinished: Vec<Unanswered>,
    /// Mentions whose answers hardly begin with a letter, by their log-probabilities; they keep their ranking.
    pub unsure: Vec<Unanswered>,
    /// Mentions that the model refused; they keep their ranking.
    pub refused: Vec<Unanswered>,
    /// Mentions whose gold entity is known, which the metrics are over.
    pub with_gold: usize,
    /// Mentions without a gold entity, which are re-ranked and go into no metric.
    pub without_gold: usize,
    /// Of those with one, the ones whose gold entity is none of the candidates, which counts as ranked behind all.
    pub gold_missing: usize,
    /// Metrics of the old rankings; none without gold entities.
    pub before: Option<Metrics>,
    /// Metrics of the new ones.
    pub after: Option<Metrics>,
    /// What H@k cannot show.
    pub note: String,
    /// How ranks changed.
    pub changes: RankChanges,
    /// How the model did with what stood at each letter.
    pub by_letter: Vec<AtLetter>,
    /// The letters' prior that was divided out.
    pub letter_prior: Option<Vec<f64>>,
    /// What the mentions say that it was estimated on.
    pub debias_sample: Option<Sample>,
    /// How the ranking's and the model's weights were fitted, if they were.
    pub fusion: Option<Fusion>,
    /// What the answers took.
    pub spent: Spent,
}

impl Report {
    /// Of an outcome; `split` is the number of mentions in the dataset's split. It knows of no fusion.
    pub fn new(model: String, settings: &Settings, rankings: &[Ranking], split: usize, outcome: &Outcome) -> Report {
        let pairs = || rankings.iter().zip(&outcome.reranked);
        let rank = |(ranking, reranked): (&Ranking, &Reranked)| {
            let before = ranking.rank(0..ranking.candidates.len())?;
            Some(([before, ranking.rank(reranked.order.iter().copied())?], !ranking.lacks_gold()))
        };
        let ranked: Vec<([usize; 2], bool)> = pairs().filter_map(rank).collect();
        let ranks: Vec<(usize, usize)> = ranked.iter().map(|([before, after], _)| (*before, *after)).collect();
        let metrics = |which: usize| {
            let ranks: Vec<(usize, bool)> = ranked.iter().map(|(ranks, found)| (ranks[which], *found)).collect();
            (!ranks.is_empty()).then(|| Metrics::with_misses(&ranks))
        };
        let count = |wanted: &dyn Fn(&Verdict) -> bool| outcome.reranked.iter().filter(|r| wanted(&r.verdict)).count();
        let listed = |text: &dyn Fn(&Verdict) -> Option<String>| {
            let one = |(ranking, reranked): (&Ranking, &Reranked)| {
                Some(Unanswered { mention_id: ranking.mention.id.clone(), answer: text(&reranked.verdict)? })
            };
            pairs().filter_map(one).collect::<Vec<_>>()
        };
        let sure = pairs().filter(|(_, r)| r.verdict == Verdict::Sure).filter_map(rank);
        let sure: Vec<(usize, bool)> = sure.map(|([before, _], found)| (before, found)).collect();
        let k = settings.k;
        Report {
            model,
            settings: settings.clone(),
            mentions: rankings.len(),
            not_in_run: split.saturating_sub(rankings.len()),
            answered: count(&|v| matches!(v, Verdict::Answered { .. })),
            sure: count(&|v| *v == Verdict::Sure),
            sure_and_right: (!sure.is_empty()).then(|| Metrics::with_misses(&sure).hits1),
            weightless: count(&|v| *v == Verdict::Weightless),
            too_few: count(&|v| *v == Verdict::TooFew),
            shorter_than_k: rankings.iter().filter(|r| r.candidates.len() < k).count(),
            invalid: listed(&|verdict| match verdict {
                Verdict::Invalid(answer) => Some(answer.clone()),
                _ => None,
            }),
            unfinished: listed(&|verdict| match verdict {
                Verdict::Unfinished(answer) => Some(answer.clone()),
                _ => None,
            }),
            unsure: listed(&|verdict| match verdict {
                Verdict::Unsure(answer) => Some(answer.clone()),
                _ => None,
            }),
            refused: listed(&|verdict| match verdict {
                Verdict::Refused(reason) => Some(reason.clone()),
                _ => None,
            }),
            with_gold: ranks.len(),
            without_gold: rankings.len() - ranks.len(),
            gold_missing: rankings.iter().filter(|r| r.lacks_gold()).count(),
            before: metrics(0),
            after: metrics(1),
            note: format!("Only the first {k} candidates are re-ranked: H@k cannot change for k >= {k}."),
            changes: RankChanges::of(k, &ranks),
            by_letter: AtLetter::all(pairs()),
            letter_prior: outcome.prior.as_ref().map(|prior| prior.letters().to_vec()),
            debias_sample: outcome.sample.clone(),
            fusion: None,
            spent: outcome.spent.clone(),
        }
    }

    /// Mentions that the model was asked about.
    pub fn asked(&self) -> usize {
        self.answered + self.invalid.len() + self.unfinished.len() + self.unsure.len() + self.refused.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_changes_are_counted_as_in_figure_9() {
        let changes = RankChanges::of(3, &[(1, 1), (1, 2), (2, 1), (3, 1), (3, 3), (4, 4), (9, 9)]);
        assert_eq!(changes.matrix, [[1, 1, 0], [1, 0, 0], [1, 0, 1]]);
        assert_eq!((changes.behind, changes.improved, changes.degraded), (2, 2, 1));
    }
}
