//! Re-ranking within an experiment: which rankings a language model is asked about, and what came of it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file::ExperimentFile;
use super::plan::Plan;
use super::question::{Asked, Question, REPORT};
use super::run::{Options, Outcome};

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
    /// Where the answers lie, if there is a ranking to ask about.
    #[serde(skip)]
    pub folder: Option<PathBuf>,
}

/// What a model answered about one ranking.
pub enum Answer {
    /// All there is.
    Asked(Box<Asked>),
    /// It is another process's or shard's.
    Elsewhere,
    /// Nothing, and why.
    Failed(String),
}

/// Where all re-rankings stand.
#[derive(Debug, Default)]
pub struct Rerankings {
    /// In the order of rows, of questions and of seeds.
    pub all: Vec<Reranked>,
    /// Reports that are another process's or shard's.
    pub elsewhere: Vec<PathBuf>,
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
        for (number, planned) in plan.rows.iter().enumerate() {
            let name = &planned.row.name;
            let trials = outcome.chosen[number].map(|point| plan.chosen(number, point)).unwrap_or_default();
            for question in file.rerank.iter().filter(|question| question.of.as_ref().is_none_or(|of| of == name)) {
                let seeds = if question.of.is_some() { plan.seeds.len() } else { 1 };
                for &seed in &plan.seeds[..seeds] {
                    let finished = |trial: &&super::Trial| outcome.finished.contains_key(&trial.folder);
                    let trial = trials.iter().find(|trial| trial.seed == seed).filter(finished);
                    let folder = trial.map(|trial| options.out.join(&trial.folder));
                    let answer = match (&folder, trial) {
                        (Some(folder), Some(trial)) => ask(question, folder, options.shard.has(trial.number))?,
                        _ => Answer::Failed("its ranking is not there".into()),
                    };
                    let folder = folder.map(|folder| question.folder(&folder));
                    let (asked, missing) = match answer {
                        Answer::Asked(asked) => (Some(*asked), None),
                        Answer::Failed(why) => (None, Some(why)),
                        Answer::Elsewhere => {
                            made.elsewhere.extend(folder.as_ref().map(|folder| folder.join(REPORT)));
                            (None, Some("another process is to ask, or is at it".into()))
                        }
                    };
                    let (row, seed) = (name.clone(), question.of.as_ref().map(|_| seed));
                    made.all.push(Reranked { row, question: question.name.clone(), seed, asked, missing, folder });
                }
            }
        }
        Ok(made)
    }

    /// How many came to nothing here.
    pub fn failed(&self) -> usize {
        self.all.iter().filter(|reranked| reranked.missing.is_some()).count() - self.elsewhere.len()
    }
}
