//! The weights of a ranking and of a model, by mentions whose right entities may be looked at: those of the validation split.

use indicatif::ProgressBar;
use rand::seq::index;

use super::ask::Asking;
use super::judge::log_letters;
use super::{Plan, Subject, plan, unlike};
use crate::data::{Dataset, Ranking};
use crate::error::{Error, Result};
use crate::kar::fuse::{self, Evidence, Fusion, of_ranking};
use crate::kar::gain::LEAST_MENTIONS;
use crate::kar::instruction::Template;
use crate::kar::journal::Journal;
use crate::kar::model::{LanguageModel, Question, Reply};
use crate::kar::types::Settings;
use crate::random::{Purpose, generator};

/// Draws so many rankings of mentions with a gold entity, or all there are, in an order that says nothing.
pub fn sample(rankings: &[Ranking], mentions: usize, seed: u64) -> Vec<Ranking> {
    let eligible: Vec<&Ranking> = rankings.iter().filter(|ranking| ranking.mention.gold.is_some()).collect();
    let mut draws = generator(seed, Purpose::Fusion, 0);
    let drawn = index::sample(&mut draws, eligible.len(), mentions.min(eligible.len()));
    drawn.into_iter().map(|at| eligible[at].clone()).collect()
}

/// Fails unless all rankings of both run files have scores, or none has: weights fitted on the ones apply to the others.
pub fn expect_alike(fitted: &[Ranking], applied: &[Ranking]) -> Result<()> {
    let scored = fitted.first().is_some_and(|ranking| ranking.scores.is_some());
    let other = fitted.iter().chain(applied).find(|ranking| ranking.scores.is_some() != scored);
    other.map_or(Ok(()), |other| Err(unlike(other, scored)))
}

/// Asks a model about a [`sample`] and fits the weights by which its answers and the ranking are added. Mentions that the
/// gate lets pass, or whose gold entity is not among the first K, are not asked about: their ranks cannot change.
///
/// Fails if too few mentions are left to fit on.
pub fn fit_weights(
    rankings: &[Ranking],
    dataset: &Dataset,
    template: &Template,
    settings: &Settings,
    model: &mut dyn LanguageModel,
    journal: Option<&mut Journal>,
    bar: &ProgressBar,
) -> Result<Fusion> {
    let settings = &Settings { weights: None, ..settings.clone() };
    settings.check()?;
    settings.check_fusable()?;
    let subject = Subject { dataset, template, settings };
    let scored = rankings.first().is_some_and(|ranking| ranking.scores.is_some());
    expect_alike(rankings, &[])?;
    let right_of = |ranking: &Ranking| {
        let gold = ranking.mention.gold?;
        settings.shown(ranking).iter().position(|&at| ranking.candidates[at] == gold)
    };
    let plans = plan(rankings, settings)?;
    let with_right = rankings.iter().filter(|ranking| right_of(ranking).is_some()).count();
    let movable: Vec<(&Ranking, usize)> = rankings
        .iter()
        .zip(&plans)
        .filter(|(_, plan)| matches!(plan, Plan::Ask { .. }))
        .filter_map(|(ranking, _)| Some((ranking, right_of(ranking)?)))
        .collect();
    let too_few = |left: usize, why: String| {
        Error::invalid(format!(
            "--fuse: {left} of {} drawn mentions are left to fit weights on, and {LEAST_MENTIONS} are needed: {why}",
            rankings.len()
        ))
    };
    if movable.len() < LEAST_MENTIONS {
        let k = settings.k;
        return Err(too_few(
            movable.len(),
            format!(
                "{with_right} have their gold entity among the first {k} candidates, and the gate or a single candidate \
                 leaves out the rest; give a larger run file, raise --k, or leave out --gate"
            ),
        ));
    }
    let ask = |(group, (ranking, _)): (usize, &(&Ranking, usize))| subject.question(group, ranking, 0);
    let questions = movable.iter().enumerate().map(ask).collect::<Result<Vec<Question>>>()?;
    let mut asking = Asking::new(settings, model, journal, bar, movable.len());
    let replies: Vec<Reply> = asking.ask(&questions)?.into_iter().flatten().collect();
    let evidence = |(&(ranking, right), reply): (&(&Ranking, usize), &_)| {
        let shown = settings.shown(ranking);
        Some(Evidence { ranker: of_ranking(ranking, &shown), model: log_letters(reply)?, shown, right })
    };
    let evidence: Vec<Evidence> = movable.iter().zip(&replies).filter_map(evidence).collect();
    if evidence.len() < LEAST_MENTIONS {
        return Err(too_few(
            evidence.len(),
            format!(
                "{} answers do not begin with a letter that is likely enough; see --least-share, and what the model says \
                 with --scoring generate",
                movable.len() - evidence.len()
            ),
        ));
    }
    let fusion = fuse::fit(&evidence, rankings.len() - evidence.len(), scored)?;
    Ok(Fusion { spent: asking.spent, ..fusion })
}
