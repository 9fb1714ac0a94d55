//! Re-ranking within an experiment: which rankings a language model is asked about, and what came of it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file::ExperimentFile;
use super::plan::Plan;
use super::question::{Asked, Question};
use super::run::{Options, Outcome};
use super::trial;
use crate::files::names::RUN;

/// What re-ranking did to a row.
#[derive(Debug, Serialize)]
pub struct Reranked {
    /// The row.
    pub row: String,
    /// What was asked.
    pub question: String,
    /// The seed, where the question is asked about all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What came of it.
    pub asked: Option<Asked>,
    /// Why nothing did.
    pub missing: Option<String>,
    /// Rank of each mention's right entity after it, where the question makes a row of the table.
    #[serde(skip)]
    pub ranks: Vec<(String, usize)>,
}

/// What a model answered about one ranking.
pub enum Answer {
    /// All there is.
    Asked(Box<Asked>),
    /// It is another process's or shard's.
    Elsewhere,
    /// Nothing, since what it takes is not there: no model is given, or there is no ranking to ask about.
    Unasked(String),
    /// Nothing, and why.
    Failed(String),
}

/// Where all re-rankings stand.
#[derive(Debug, Default)]
pub struct Rerankings {
    /// In the order of rows, of questions and of seeds.
    pub all: Vec<Reranked>,
    /// Folders of answers that are another process's or shard's ([`is_answered`](super::is_answered)).
    pub elsewhere: Vec<PathBuf>,
    /// How many failed here.
    pub failed: usize,
}

/// A ranking that a question is asked about.
struct Subject<'a> {
    row: &'a str,
    question: &'a Question,
    seed: u64,
    /// The number and the folder of its trial, if that is finished.
    trial: Option<(usize, PathBuf)>,
}

/// All of them, in the order of rows, of questions and of seeds.
fn subjects<'a>(
    (file, plan): (&'a ExperimentFile, &'a Plan),
    outcome: &Outcome,
    experiment: &Path,
) -> Vec<Subject<'a>> {
    let mut subjects = Vec::new();
    for (number, planned) in plan.rows.iter().enumerate() {
        let row = &planned.row.name;
        let trials = outcome.chosen[number].map(|point| plan.chosen(number, point)).unwrap_or_default();
        for question in file.rerank.iter().filter(|question| question.of.as_ref().is_none_or(|of| of == row)) {
            let seeds = if question.of.is_some() { plan.seeds.len() } else { 1 };
            for &seed in &plan.seeds[..seeds] {
                let finished = |trial: &&super::Trial| outcome.finished.contains_key(&trial.folder);
                let trial = trials.iter().find(|trial| trial.seed == seed).filter(finished);
                let trial = trial.map(|trial| (trial.number, experiment.join(&trial.folder)));
                subjects.push(Subject { row, question, seed, trial });
            }
        }
    }
    subjects
}

impl Rerankings {
    /// Asks all questions about the rankings that are there. `ask` is called with a question, a trial's folder and
    /// whether that is this process's to ask about; its error ends all.
    pub fn new<E>(
        (file, plan): (&ExperimentFile, &Plan),
        outcome: &Outcome,
        options: &Options,
        mut ask: impl FnMut(&Question, &Path, bool) -> Result<Answer, E>,
    ) -> Result<Rerankings, E> {
        let mut made = Rerankings::default();
        for Subject { row, question, seed, trial } in subjects((file, plan), outcome, options.out) {
            let (mut answer, folder) = match trial {
                Some((number, trial)) => {
                    (ask(question, &trial, options.shard.has(number))?, Some(question.folder(&trial)))
                }
                None => (Answer::Unasked("its ranking is not there".into()), None),
            };
            let mut ranks = Vec::new();
            if let (Answer::Asked(_), Some(folder), true) = (&answer, &folder, question.of.is_some()) {
                match trial::ranks(&folder.join(RUN)) {
                    Ok(read) => ranks.extend(read.into_iter().map(|(mention, rank, _)| (mention, rank))),
                    Err(error) => {
                        let why = format!("{error}; delete {} to have it made again", folder.display());
                        answer = Answer::Failed(why);
                    }
                }
            }
            made.failed += usize::from(matches!(answer, Answer::Failed(_)));
            let (asked, missing) = match answer {
                Answer::Asked(asked) => (Some(*asked), None),
                Answer::Unasked(why) | Answer::Failed(why) => (None, Some(why)),
                Answer::Elsewhere => {
                    made.elsewhere.extend(folder);
                    (None, Some("another process is to ask, or is at it".into()))
                }
            };
            let (row, seed) = (row.to_string(), question.of.as_ref().map(|_| seed));
            made.all.push(Reranked { row, question: question.name.clone(), seed, asked, missing, ranks });
        }
        Ok(made)
    }

    /// Calls `expect` with each question and the folder of each finished trial whose ranking it is about; its error ends that.
    /// Answers that are not those to the questions would make holes of what a table has.
    pub fn expect<E>(
        (file, plan): (&ExperimentFile, &Plan),
        outcome: &Outcome,
        experiment: &Path,
        expect: impl Fn(&Question, &Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let all = subjects((file, plan), outcome, experiment).into_iter();
        let mut there = all.filter_map(|Subject { question, trial, .. }| Some((question, trial?.1)));
        there.try_for_each(|(question, trial)| expect(question, &trial))
    }
}
