//! Asking a model, from where a journal stops.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::error::{Error, Result};
use crate::interrupt;
use crate::kar::answer::ends_in_thought;
use crate::kar::journal::Journal;
use crate::kar::model::{LanguageModel, Question, Reply, Said};
use crate::kar::types::{Scoring, Settings, Spent};

/// So many answers, the first of a run, that all end within the model's thoughts stop it.
const HOPELESS: usize = 20;

/// A model that is asked, once or several times.
pub struct Asking<'a> {
    pub settings: &'a Settings,
    pub model: &'a mut dyn LanguageModel,
    pub journal: Option<&'a mut Journal>,
    /// Counts mentions.
    pub bar: &'a ProgressBar,
    /// What all of it took.
    pub spent: Spent,
    /// Answers that were heard, and how many of them were unfinished.
    heard: (usize, usize),
}

impl<'a> Asking<'a> {
    /// Begins to ask about so many mentions.
    pub fn new(
        settings: &'a Settings,
        model: &'a mut dyn LanguageModel,
        journal: Option<&'a mut Journal>,
        bar: &'a ProgressBar,
        mentions: usize,
    ) -> Asking<'a> {
        bar.set_length(mentions as u64);
        bar.set_position(0);
        Asking { settings, model, journal, bar, spent: Spent::default(), heard: (0, 0) }
    }

    /// The replies to all questions, in their order; none to those that count as answered elsewhere.
    pub fn ask(&mut self, questions: &[Question]) -> Result<Vec<Option<Reply>>> {
        let Asking { settings, model, journal, bar, spent, heard } = self;
        let wanted = settings.wanted();
        let keys: Vec<String> = questions.iter().map(|q| q.prompt.key()).collect();
        let known = |(question, key): (&Question, &String)| match &journal {
            Some(journal) if !question.answered => Ok(journal.answer(key, question, wanted)?.cloned()),
            _ => Ok(None),
        };
        let mut replies = questions.iter().zip(&keys).map(known).collect::<Result<Vec<Option<Reply>>>>()?;
        // How many of a mention's questions are open.
        let mut open: HashMap<usize, usize> = HashMap::new();
        let here = |question: &Question| !question.answered;
        let of_here = questions.iter().zip(&replies).filter(|(question, _)| here(question));
        of_here.for_each(|(q, r)| *open.entry(q.group).or_default() += usize::from(r.is_none()));
        bar.inc(open.values().filter(|&&n| n == 0).count() as u64);
        bar.reset_eta();
        let known = |(question, reply): (&Question, &Option<Reply>)| Question {
            answered: question.answered || reply.is_some(),
            ..question.clone()
        };
        let asked: Vec<Question> = questions.iter().zip(&replies).map(known).collect();
        let from_journal = replies.iter().flatten().count();
        spent.from_journal += from_journal;
        let wanted_here = questions.iter().filter(|question| here(question)).count();
        spent.calls += wanted_here - from_journal;
        if from_journal < wanted_here {
            let start = Instant::now();
            model.answer(&asked, wanted, &mut |at, reply| {
                check(&questions[at], &reply, settings)?;
                heard.0 += 1;
                heard.1 += usize::from(is_unfinished(&reply.said));
                if *heard == (HOPELESS, HOPELESS) {
                    return Err(Error::invalid(hopeless(settings)));
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
            spent.seconds += start.elapsed().max(Duration::from_nanos(1)).as_secs_f64();
        }
        if questions.iter().zip(&replies).any(|(question, reply)| here(question) && reply.is_none()) {
            return Err(Error::invalid(format!("{} left a question without an answer", model.identity())));
        }
        replies.iter().flatten().for_each(|reply| spent.count(reply));
        Ok(replies)
    }
}

/// Fails if this is no answer to the question, or a refusal that ends the run.
fn check(question: &Question, reply: &Reply, settings: &Settings) -> Result<()> {
    let id = &question.mention;
    reply
        .fits(question, settings.wanted())
        .map_err(|reason| Error::invalid(format!("mention `{id}`: the model's answer {reason}")))?;
    match &reply.said {
        Said::Refused(reason) if !settings.skip_refused => {
            Err(Error::invalid(format!("mention `{id}`: {reason}; --skip-bad keeps its old ranking and goes on")))
        }
        _ => Ok(()),
    }
}

fn is_unfinished(said: &Said) -> bool {
    match said {
        Said::Unfinished(_) => true,
        Said::Text(text) => ends_in_thought(text),
        _ => false,
    }
}

/// What to do about a model that does nothing but think.
fn hopeless(settings: &Settings) -> String {
    let longer = match settings.scoring {
        Scoring::Generate => format!("raise --max-new-tokens (now {})", settings.max_new_tokens),
        Scoring::Letters => "let it think to its end with --scoring generate and a large --max-new-tokens".into(),
    };
    format!(
        "the first {HOPELESS} answers all ended within the model's thoughts; {longer}, or switch its thinking off, such as \
         by --body '{{\"chat_template_kwargs\": {{\"enable_thinking\": false}}}}' or --body '{{\"reasoning_effort\": \"low\"}}'"
    )
}
