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
    fn all<'a>(chosen: impl Iterator<Item = &'a Chosen>) -> Vec<AtLetter> {
        let mut all: Vec<AtLetter> = Vec::new();
        for Chosen { options, right, letter: chosen } in chosen {
            for at in all.len()..*options {
                all.push(AtLetter { letter: letter(at), right: 0, found: 0, chosen: 0 });
            }
            all[*right].right += 1;
            all[*right].found += usize::from(right == chosen);
            all[*chosen].chosen += 1;
        }
        all
    }
}

/// A mention that kept its old ranking although the model was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unanswered {
    /// The mention.
    pub mention_id: String,
    /// The invalid answer, or why there is none.
    pub answer: String,
}

/// What became of a mention: all that a report is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fate {
    /// The mention.
    pub mention_id: String,
    /// Number of its candidates.
    pub candidates: usize,
    /// The gold entity's rank before and after, if the mention has one, ...
    pub ranks: Option<(usize, usize)>,
    /// ... and whether it is none of the candidates.
    pub lacks_gold: bool,
    /// Why its ranking is as it is, without probabilities.
    pub verdict: Verdict,
    /// What the model chose, if its answer counts and the right entity was an option.
    pub chosen: Option<Chosen>,
}

/// What a model chose among so many options, and which was right: letters from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    options: usize,
    right: usize,
    letter: usize,
}

impl Fate {
    /// Of each ranking.
    pub fn all(rankings: &[Ranking], reranked: &[Reranked]) -> Vec<Fate> {
        rankings.iter().zip(reranked).map(|(ranking, reranked)| Fate::of(ranking, reranked)).collect()
    }

    fn of(ranking: &Ranking, reranked: &Reranked) -> Fate {
        let ranks = || {
            let before = ranking.rank(0..ranking.candidates.len())?;
            Some((before, ranking.rank(reranked.order.iter().copied())?))
        };
        let chosen = |Choice { shown, letter }: &Choice| {
            let right = shown.iter().position(|&at| Some(ranking.candidates[at]) == ranking.mention.gold)?;
            Some(Chosen { options: shown.len(), right, letter: *letter })
        };
        let verdict = match &reranked.verdict {
            Verdict::Answered { .. } => Verdict::Answered { probabilities: None },
            verdict => verdict.clone(),
        };
        Fate {
            mention_id: ranking.mention.id.clone(),
            candidates: ranking.candidates.len(),
            ranks: ranks(),
            lacks_gold: ranking.lacks_gold(),
            verdict,
            chosen: reranked.choice.as_ref().and_then(chosen),
        }
    }
}

/// All there is to say about a re-ranking.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
        let report =
            Report::of((model, settings), &Fate::all(rankings, &outcome.reranked), split, outcome.spent.clone());
        Report {
            letter_prior: outcome.prior.as_ref().map(|prior| prior.letters().to_vec()),
            debias_sample: outcome.sample.clone(),
            ..report
        }
    }

    /// Of what became of mentions. It knows of no prior and of no fusion.
    pub fn of((model, settings): (String, &Settings), fates: &[Fate], split: usize, spent: Spent) -> Report {
        let ranked: Vec<((usize, usize), bool)> =
            fates.iter().filter_map(|fate| Some((fate.ranks?, !fate.lacks_gold))).collect();
        let ranks: Vec<(usize, usize)> = ranked.iter().map(|(ranks, _)| *ranks).collect();
        let metrics = |which: &dyn Fn((usize, usize)) -> usize| {
            let ranks: Vec<(usize, bool)> = ranked.iter().map(|(ranks, found)| (which(*ranks), *found)).collect();
            (!ranks.is_empty()).then(|| Metrics::with_misses(&ranks))
        };
        let count = |wanted: &dyn Fn(&Fate) -> bool| fates.iter().filter(|fate| wanted(fate)).count();
        let listed = |text: &dyn Fn(&Verdict) -> Option<&String>| {
            let one = |fate: &Fate| {
                Some(Unanswered { mention_id: fate.mention_id.clone(), answer: text(&fate.verdict)?.clone() })
            };
            fates.iter().filter_map(one).collect::<Vec<_>>()
        };
        let sure = fates.iter().filter(|fate| fate.verdict == Verdict::Sure);
        let sure: Vec<(usize, bool)> = sure.filter_map(|fate| Some((fate.ranks?.0, !fate.lacks_gold))).collect();
        let k = settings.k;
        Report {
            model,
            settings: settings.clone(),
            mentions: fates.len(),
            not_in_run: split.saturating_sub(fates.len()),
            answered: count(&|fate| matches!(fate.verdict, Verdict::Answered { .. })),
            sure: count(&|fate| fate.verdict == Verdict::Sure),
            sure_and_right: (!sure.is_empty()).then(|| Metrics::with_misses(&sure).hits1),
            weightless: count(&|fate| fate.verdict == Verdict::Weightless),
            too_few: count(&|fate| fate.verdict == Verdict::TooFew),
            shorter_than_k: count(&|fate| fate.candidates < k),
            invalid: listed(&|verdict| match verdict {
                Verdict::Invalid(answer) => Some(answer),
                _ => None,
            }),
            unfinished: listed(&|verdict| match verdict {
                Verdict::Unfinished(answer) => Some(answer),
                _ => None,
            }),
            unsure: listed(&|verdict| match verdict {
                Verdict::Unsure(answer) => Some(answer),
                _ => None,
            }),
            refused: listed(&|verdict| match verdict {
                Verdict::Refused(reason) => Some(reason),
                _ => None,
            }),
            with_gold: ranks.len(),
            without_gold: fates.len() - ranks.len(),
            gold_missing: count(&|fate| fate.lacks_gold),
            before: metrics(&|(before, _)| before),
            after: metrics(&|(_, after)| after),
            note: format!("Only the first {k} candidates are re-ranked: H@k cannot change for k >= {k}."),
            changes: RankChanges::of(k, &ranks),
            by_letter: AtLetter::all(fates.iter().filter_map(|fate| fate.chosen.as_ref())),
            letter_prior: None,
            debias_sample: None,
            fusion: None,
            spent,
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
