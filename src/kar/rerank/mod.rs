//! Re-ranking: which mentions are asked about, and what their answers make of their rankings (section 3.4).

mod ask;
mod fit;
mod judge;

use std::ops::Range;

use indicatif::ProgressBar;
use rand::seq::index;

use self::ask::Asking;
pub use self::fit::{expect_alike, fit_weights, sample};
use self::judge::{judge, kept, letters_of};
use crate::data::{Dataset, Entity, Ranking};
use crate::error::{Error, Result};
use crate::kar::debias::{Prior, Sample, rotated};
use crate::kar::gate::margin;
use crate::kar::instruction::Template;
use crate::kar::journal::Journal;
use crate::kar::model::{LanguageModel, Question, Reply};
use crate::kar::types::{Outcome, Reranked, Settings, Verdict};
use crate::random::{Purpose, generator};

/// Why a mention is not asked about, or under which rotations of its options it is.
enum Plan {
    Keep(Verdict),
    Ask { rotations: usize },
}

impl Plan {
    fn is_sample(&self) -> bool {
        matches!(self, Plan::Ask { rotations: 2.. })
    }
}

/// What questions are made of and answers are read by.
#[derive(Clone, Copy)]
struct Subject<'a> {
    dataset: &'a Dataset,
    template: &'a Template,
    settings: &'a Settings,
}

impl Subject<'_> {
    /// The question about a ranking whose options are rotated so far.
    fn question(&self, group: usize, ranking: &Ranking, rotation: usize) -> Result<Question> {
        let shown = self.settings.shown(ranking);
        let entity = |letter: usize| &self.dataset.entities()[ranking.candidates[shown[letter]] as usize];
        let entities: Vec<&Entity> = rotated(shown.len(), rotation).map(entity).collect();
        let prompt = self.template.render(&ranking.mention, &entities, self.settings.budget)?;
        Ok(Question { mention: ranking.mention.id.clone(), group, prompt, options: shown.len(), answered: false })
    }
}

/// Re-ranks the first K candidates of each ranking by what the model says of them. Answers are taken from the journal
/// and appended to it, if there is one. `bar` counts mentions.
///
/// Fails if the mentions on which the letters' prior is estimated say that it makes the ranking worse, unless the settings
/// allow that.
pub fn rerank(
    rankings: &[Ranking],
    dataset: &Dataset,
    template: &Template,
    settings: &Settings,
    model: &mut dyn LanguageModel,
    journal: Option<&mut Journal>,
    bar: &ProgressBar,
) -> Result<Outcome> {
    rerank_share((rankings, 0..rankings.len()), dataset, template, settings, model, journal, bar)
}

/// The same of a share of the rankings, whose new ones are those that all together give, to the bit: the model sees what else
/// is asked. Mentions on which the letters' prior is estimated are asked about wherever they stand.
pub fn rerank_share(
    (rankings, share): (&[Ranking], Range<usize>),
    dataset: &Dataset,
    template: &Template,
    settings: &Settings,
    model: &mut dyn LanguageModel,
    journal: Option<&mut Journal>,
    bar: &ProgressBar,
) -> Result<Outcome> {
    settings.check()?;
    let plans = plan(rankings, settings)?;
    let subject = Subject { dataset, template, settings };
    let here = |group: usize, plan: &Plan| share.contains(&group) || plan.is_sample();
    let asked =
        plans.iter().enumerate().filter(|(at, plan)| matches!(plan, Plan::Ask { .. }) && here(*at, plan)).count();
    let mut asking = Asking::new(settings, model, journal, bar, asked);
    let mut replies: Vec<Vec<Reply>> = vec![Vec::new(); rankings.len()];
    // What shows the letters' prior goes first: it may say that nothing else need be asked.
    let mut about = |wanted: &dyn Fn(&Plan) -> bool, replies: &mut Vec<Vec<Reply>>| -> Result<()> {
        let mut questions = Vec::new();
        for (group, (ranking, plan)) in rankings.iter().zip(&plans).enumerate().filter(|(_, (_, plan))| wanted(plan)) {
            let Plan::Ask { rotations } = plan else { continue };
            for rotation in 0..*rotations {
                questions
                    .push(Question { answered: !here(group, plan), ..subject.question(group, ranking, rotation)? });
            }
        }
        let answers = asking.ask(&questions)?;
        questions.iter().zip(answers).for_each(|(question, reply)| replies[question.group].extend(reply));
        Ok(())
    };
    about(&Plan::is_sample, &mut replies)?;
    let sampled: Vec<(&Ranking, &[Reply])> = rankings
        .iter()
        .zip(&replies)
        .zip(&plans)
        .filter_map(|((ranking, replies), plan)| plan.is_sample().then_some((ranking, replies.as_slice())))
        .collect();
    let (prior, sample) = prior_of(&sampled, subject)?;
    if let Some(sample) = sample.as_ref().filter(|_| !settings.allow_worse) {
        sample.check()?;
    }
    about(&|plan| !plan.is_sample(), &mut replies)?;
    let mut spent = asking.spent;
    let plans: Vec<Plan> = plans.into_iter().skip(share.start).take(share.len()).collect();
    let (rankings, replies) = (&rankings[share.clone()], &replies[share]);
    spent.calls_saved = plans.iter().filter(|plan| matches!(plan, Plan::Keep(Verdict::Sure))).count();
    let reranked = rankings.iter().zip(plans).zip(replies).map(|((ranking, plan), replies)| match plan {
        Plan::Keep(verdict) => kept(ranking, verdict),
        Plan::Ask { .. } => judge(ranking, replies, subject, prior.as_ref()),
    });
    Ok(Outcome { reranked: reranked.collect::<Vec<Reranked>>(), spent, prior, sample })
}

/// The letters' prior by mentions that were asked under every rotation, and what they say of it.
fn prior_of(sampled: &[(&Ranking, &[Reply])], subject: Subject) -> Result<(Option<Prior>, Option<Sample>)> {
    let letters = |&(ranking, replies)| Some(((ranking, replies), letters_of(replies)?));
    let (known, samples): (Vec<(&Ranking, &[Reply])>, Vec<_>) = sampled.iter().filter_map(letters).unzip();
    let prior = Prior::estimate(&samples);
    // As all other mentions are re-ranked: by one answer, less the prior.
    let change = |(ranking, replies): &(&Ranking, &[Reply])| {
        let before = ranking.rank(0..ranking.candidates.len())?;
        let after = ranking.rank(judge(ranking, &replies[..1], subject, prior.as_ref()).order.into_iter())?;
        Some(1.0 / after as f64 - 1.0 / before as f64)
    };
    let sample = Sample::new(&samples, &known.iter().filter_map(change).collect::<Vec<f64>>())?;
    Ok((prior, sample))
}

/// What a model would be asked about each ranking, as a text: a tokenizer can learn words from these.
pub fn instructions(rankings: &[Ranking], dataset: &Dataset, settings: &Settings) -> Result<Vec<String>> {
    let template = &Template::built_in(settings.strategy)?;
    let subject = Subject { dataset, template, settings };
    let asked = |ranking: &Ranking| {
        let prompt = subject.question(0, ranking, 0)?.prompt;
        Ok([prompt.system, prompt.user, prompt.reply].join("\n"))
    };
    rankings.iter().map(asked).collect()
}

fn plan(rankings: &[Ranking], settings: &Settings) -> Result<Vec<Plan>> {
    let mut plans = Vec::with_capacity(rankings.len());
    let weights = settings.weights.as_ref();
    for ranking in rankings {
        let too_few = settings.k.min(ranking.candidates.len()) < 2;
        plans.push(match settings.gate {
            _ if too_few => Plan::Keep(Verdict::TooFew),
            Some(gate) if margin(ranking)? >= gate => Plan::Keep(Verdict::Sure),
            _ if weights.is_some_and(|weights| weights.model == 0.0) => Plan::Keep(Verdict::Weightless),
            _ => Plan::Ask { rotations: 1 },
        });
        if let (Some(Plan::Ask { .. }), Some(weights)) = (plans.last(), weights)
            && weights.scored != ranking.scores.is_some()
        {
            return Err(unlike(ranking, weights.scored));
        }
    }
    if let Some(share) = settings.debias {
        let full = |i: &usize| matches!(plans[*i], Plan::Ask { .. }) && rankings[*i].candidates.len() >= settings.k;
        let eligible: Vec<usize> = (0..plans.len()).filter(full).collect();
        let samples = (eligible.len() as f64 * share).ceil() as usize;
        let mut rng = generator(settings.seed, Purpose::Debias, 0);
        for drawn in index::sample(&mut rng, eligible.len(), samples.min(eligible.len())) {
            plans[eligible[drawn]] = Plan::Ask { rotations: settings.k };
        }
    }
    Ok(plans)
}

/// A ranking has scores, or none, where the others that weights are fitted on or applied to are otherwise.
fn unlike(ranking: &Ranking, others_scored: bool) -> Error {
    let (own, others) = if others_scored { ("no `scores`", "have them") } else { ("`scores`", "have none") };
    Error::invalid(format!(
        "mention `{}`: the run file has {own} for it, where others {others}; --fuse needs them for all mentions of both run \
         files, or for none",
        ranking.mention.id
    ))
}

#[cfg(test)]
mod tests;
