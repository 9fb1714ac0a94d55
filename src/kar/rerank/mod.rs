//! Re-ranking: which mentions are asked about, and what their answers make of their rankings (section 3.4).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use rand::seq::index;

use crate::data::{Dataset, Entity, Ranking};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::kar::answer::{Choice, Reading, ends_in_thought, read};
use crate::kar::debias::{Prior, over_rotations, rotated, softmax};
use crate::kar::gate::margin;
use crate::kar::instruction::{Strategy, Template};
use crate::kar::journal::Journal;
use crate::kar::model::{LanguageModel, Question, Reply, Said};
use crate::kar::types::{Outcome, Reranked, Settings, Spent, Verdict};
use crate::random::{Purpose, generator};

/// Why a mention is not asked about, or under which rotations of its options it is.
enum Plan {
    Keep(Verdict),
    Ask { rotations: usize },
}

/// Re-ranks the first K candidates of each ranking by what the model says of them. Answers are taken from the journal
/// and appended to it, if there is one. `bar` counts mentions.
pub fn rerank(
    rankings: &[Ranking],
    dataset: &Dataset,
    template: &Template,
    settings: &Settings,
    model: &mut dyn LanguageModel,
    journal: Option<&mut Journal>,
    bar: &ProgressBar,
) -> Result<Outcome> {
    settings.check()?;
    let plans = plan(rankings, settings)?;
    let mut questions = Vec::new();
    let mut spent = Spent::default();
    for (group, (ranking, plan)) in rankings.iter().zip(&plans).enumerate() {
        match plan {
            Plan::Keep(verdict) => spent.calls_saved += usize::from(*verdict == Verdict::Sure),
            Plan::Ask { rotations } => {
                for rotation in 0..*rotations {
                    questions.push(question(group, ranking, rotation, dataset, template, settings)?);
                }
            }
        }
    }
    let replies = ask(&questions, settings, model, journal, bar, &mut spent)?;
    let mut replies_of: Vec<Vec<Reply>> = vec![Vec::new(); rankings.len()];
    for (question, reply) in questions.iter().zip(replies) {
        spent.count(&reply);
        replies_of[question.group].push(reply);
    }
    let prior = settings.debias.and_then(|_| {
        let sampled = plans.iter().zip(&replies_of).filter(|(plan, _)| matches!(plan, Plan::Ask { rotations: 2.. }));
        Prior::estimate(&sampled.filter_map(|(_, replies)| letters_of(replies)).collect::<Vec<_>>())
    });
    let reranked = rankings.iter().zip(plans).zip(&replies_of).map(|((ranking, plan), replies)| match plan {
        Plan::Keep(verdict) => Reranked { order: (0..ranking.candidates.len()).collect(), verdict },
        Plan::Ask { .. } => judge(ranking, replies, dataset, settings, prior.as_ref()),
    });
    Ok(Outcome { reranked: reranked.collect(), spent, prior })
}

/// What a model would be asked about each ranking, as a text: a tokenizer can learn words from these.
pub fn instructions(rankings: &[Ranking], dataset: &Dataset, settings: &Settings) -> Result<Vec<String>> {
    let template = Template::built_in(settings.strategy)?;
    let asked = |ranking: &Ranking| {
        let prompt = question(0, ranking, 0, dataset, &template, settings)?.prompt;
        Ok([prompt.system, prompt.user, prompt.reply].join("\n"))
    };
    rankings.iter().map(asked).collect()
}

/// Options that a model would be asked about.
fn options_of(ranking: &Ranking, settings: &Settings) -> usize {
    settings.k.min(ranking.candidates.len())
}

fn plan(rankings: &[Ranking], settings: &Settings) -> Result<Vec<Plan>> {
    let mut plans = Vec::with_capacity(rankings.len());
    for ranking in rankings {
        let too_few = options_of(ranking, settings) < 2;
        plans.push(match settings.gate {
            _ if too_few => Plan::Keep(Verdict::TooFew),
            Some(gate) if margin(ranking)? >= gate => Plan::Keep(Verdict::Sure),
            _ => Plan::Ask { rotations: 1 },
        });
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

fn question(
    group: usize,
    ranking: &Ranking,
    rotation: usize,
    dataset: &Dataset,
    template: &Template,
    settings: &Settings,
) -> Result<Question> {
    let options = options_of(ranking, settings);
    let entity = |option: usize| &dataset.entities()[ranking.candidates[option] as usize];
    let entities: Vec<&Entity> = rotated(options, rotation).map(entity).collect();
    let prompt = template.render(&ranking.mention, &entities, settings.budget)?;
    Ok(Question { mention: ranking.mention.id.clone(), group, prompt, options, answered: false })
}

/// So many answers, the first of a run, that all end within the model's thoughts stop it.
const HOPELESS: usize = 20;

fn is_unfinished(said: &Said) -> bool {
    match said {
        Said::Unfinished(_) => true,
        Said::Text(text) => ends_in_thought(text),
        _ => false,
    }
}

/// The replies to all questions, in their order.
fn ask(
    questions: &[Question],
    settings: &Settings,
    model: &mut dyn LanguageModel,
    mut journal: Option<&mut Journal>,
    bar: &ProgressBar,
    spent: &mut Spent,
) -> Result<Vec<Reply>> {
    let keys: Vec<String> = questions.iter().map(|q| q.prompt.key()).collect();
    let known = |(question, key): (&Question, &String)| match &journal {
        Some(journal) => Ok(journal.answer(key, question, settings.wanted())?.cloned()),
        None => Ok(None),
    };
    let mut replies = questions.iter().zip(&keys).map(known).collect::<Result<Vec<Option<Reply>>>>()?;
    // How many of a mention's questions are open.
    let mut open: HashMap<usize, usize> = HashMap::new();
    questions.iter().zip(&replies).for_each(|(q, r)| *open.entry(q.group).or_default() += usize::from(r.is_none()));
    bar.set_length(open.len() as u64);
    bar.set_position(open.values().filter(|&&n| n == 0).count() as u64);
    bar.reset_eta();
    let known =
        |(question, reply): (&Question, &Option<Reply>)| Question { answered: reply.is_some(), ..question.clone() };
    let asked: Vec<Question> = questions.iter().zip(&replies).map(known).collect();
    spent.from_journal = replies.iter().flatten().count();
    spent.calls = questions.len() - spent.from_journal;
    if spent.calls == 0 {
        return Ok(replies.into_iter().flatten().collect());
    }
    let start = Instant::now();
    let (mut heard, mut unfinished) = (0, 0);
    model.answer(&asked, settings.wanted(), &mut |at, reply| {
        reply.fits(&questions[at], settings.wanted()).map_err(|reason| {
            Error::invalid(format!("mention `{}`: the model's answer {reason}", questions[at].mention))
        })?;
        if let Said::Refused(reason) = &reply.said
            && !settings.skip_refused
        {
            let id = &questions[at].mention;
            return Err(Error::invalid(format!(
                "mention `{id}`: {reason}; --skip-bad keeps its old ranking and goes on"
            )));
        }
        heard += 1;
        unfinished += usize::from(is_unfinished(&reply.said));
        if (heard, unfinished) == (HOPELESS, HOPELESS) {
            return Err(Error::invalid(format!(
                "the first {HOPELESS} answers all ended within the model's thoughts; raise --max-new-tokens (now {}), or \
                 switch its thinking off, such as by --body '{{\"chat_template_kwargs\": {{\"enable_thinking\": false}}}}' \
                 or --body '{{\"reasoning_effort\": \"low\"}}'",
                settings.max_new_tokens
            )));
        }
        // What was refused or not finished is asked again by the next run, which may ask otherwise.
        let lasting = !matches!(reply.said, Said::Refused(_)) && !is_unfinished(&reply.said);
        if let Some(journal) = journal.as_mut().filter(|_| lasting) {
            let _span = crate::span!("journal");
            journal.append(&questions[at].mention, keys[at].clone(), reply.clone())?;
        }
        replies[at] = Some(reply);
        let kept = journal.as_ref().map_or("no answer is", |_| "answers are");
        interrupt::check(|| format!("{kept} kept in the journal; the same command goes on"))?;
        if let Some(left) = open.get_mut(&questions[at].group) {
            *left -= 1;
            bar.inc(u64::from(*left == 0));
        }
        Ok(())
    })?;
    spent.seconds = start.elapsed().max(Duration::from_nanos(1)).as_secs_f64();
    if replies.iter().any(Option::is_none) {
        return Err(Error::invalid(format!("{} left a question without an answer", model.identity())));
    }
    Ok(replies.into_iter().flatten().collect())
}

/// The letters' probabilities of each reply, if every one has them.
fn letters_of(replies: &[Reply]) -> Option<Vec<Vec<f64>>> {
    let letters = |reply: &Reply| match &reply.said {
        Said::Letters(logits) => Some(softmax(logits)),
        _ => None,
    };
    replies.iter().map(letters).collect()
}

fn judge(
    ranking: &Ranking,
    replies: &[Reply],
    dataset: &Dataset,
    settings: &Settings,
    prior: Option<&Prior>,
) -> Reranked {
    let options = options_of(ranking, settings);
    let kept = |verdict: Verdict| Reranked { order: (0..ranking.candidates.len()).collect(), verdict };
    if let Some(rotations) = letters_of(replies).filter(|r| !r.is_empty()) {
        let probabilities = match (rotations.as_slice(), prior) {
            ([one], Some(prior)) => prior.divided_out(one),
            ([one], None) => one.clone(),
            (all, _) => over_rotations(all),
        };
        let mut order: Vec<usize> = (0..options).collect();
        order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
        if settings.strategy == Strategy::SelectOne {
            order.truncate(1);
        }
        let verdict = Verdict::Answered { probabilities: Some(probabilities) };
        return Reranked { order: reordered(&order, ranking.candidates.len()), verdict };
    }
    match replies.iter().map(|r| &r.said).find(|said| !matches!(said, Said::Letters(_))) {
        Some(Said::Text(text)) => {
            let entity = |option: &u32| &dataset.entities()[*option as usize];
            let entities: Vec<&Entity> = ranking.candidates.iter().take(options).map(entity).collect();
            let choices: Vec<Choice> = entities.iter().map(|e| Choice { name: &e.name, qid: &e.qid }).collect();
            // A text among several rotations' letters does not fit with them.
            let reading = if replies.len() == 1 { read(text, &choices, settings.strategy) } else { Reading::Invalid };
            let named = match reading {
                Reading::Named(named) => named,
                Reading::Invalid => return kept(Verdict::Invalid(text.clone())),
                Reading::Unfinished => return kept(Verdict::Unfinished(text.clone())),
            };
            let order = reordered(&named, ranking.candidates.len());
            Reranked { order, verdict: Verdict::Answered { probabilities: None } }
        }
        Some(Said::Unfinished(text)) => kept(Verdict::Unfinished(text.clone())),
        Some(Said::Unsure(text)) => kept(Verdict::Unsure(text.clone())),
        Some(Said::Refused(reason)) => kept(Verdict::Refused(reason.clone())),
        _ => kept(Verdict::Refused("the model gave no answer".into())),
    }
}

/// The positions of a ranking with those that were named first, and the rest in their old order.
fn reordered(named: &[usize], candidates: usize) -> Vec<usize> {
    let rest = (0..candidates).filter(|at| !named.contains(at));
    named.iter().copied().chain(rest).collect()
}

#[cfg(test)]
mod tests;
