//! Questions to a language model about a trial's rankings; answers lie in a folder of their own within the trial's.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use super::file::folder_name;
use super::trial::{Data, expect_as_written};
use crate::data::{Dataset, Mention, Ranking, RunFile, Skipped, Tolerance};
use crate::error::{Error, Result};
use crate::eval::{self, Metrics, evaluate};
use crate::files::names::RUN;
use crate::files::{self, FolderLock};
use crate::kar::model::LanguageModel;
use crate::kar::{
    Fusion, Header, Journal, RankChanges, Report, Scoring, Settings, Strategy, Template, expect_alike, fit_weights,
    rerank, sample, write_run,
};
use crate::settings::difference;
use crate::train::TrainedModel;

/// What a language model is asked about a ranking.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Its name in the table.
    pub name: String,
    /// The row whose rankings with every seed it is asked about, which makes a row of the question's name; left out, it
    /// is asked about each row's ranking with the first seed.
    #[serde(default)]
    pub of: Option<String>,
    /// Which one fits, or the order of all.
    #[serde(default)]
    pub strategy: Strategy,
    /// Candidates that are asked about.
    #[serde(default = "five")]
    pub k: usize,
    /// Whether the answer is read off the letters' logits or is a text; left out, as the model is reached: logits of an
    /// own Llama, texts of a server.
    #[serde(default)]
    pub scoring: Option<Scoring>,
    /// Least share of the probability that the letters must have together [default: that of `fissfuse rerank`].
    #[serde(default)]
    pub least_share: Option<f64>,
    /// Whether the ranking's evidence and the model's are added, by weights that are fitted on the validation mentions: the model
    /// counts only where it is sure to help. The answer is then read off the letters' logits.
    #[serde(default)]
    pub fuse: bool,
    /// Which of several models, by the name of `--named-llm NAME=DIR`.
    #[serde(default)]
    pub llm: Option<String>,
}

fn five() -> usize {
    Settings::default().k
}

impl Question {
    /// Settings of the re-ranking.
    pub fn settings(&self, default: Scoring) -> Settings {
        let scoring = self.scoring.unwrap_or(if self.fuse { Scoring::Letters } else { default });
        let default = Settings::default();
        let least_share = self.least_share.unwrap_or(default.least_share);
        Settings { strategy: self.strategy, k: self.k, scoring, least_share, ..default }
    }

    /// Where its answers about the rankings in a trial's folder lie.
    pub(super) fn folder(&self, trial: &Path) -> PathBuf {
        trial.join(format!("rerank-{}", folder_name(&self.name)))
    }
}

/// Most validation mentions that weights are fitted on, as `fissfuse rerank` draws them.
const FITTED_ON: usize = 1000;

/// The file in a trial's folder with its rankings of the validation mentions, where weights are fitted on them.
const VALID_RUN: &str = "run-valid.jsonl";

/// The file in an answers' folder that says that all are there.
const REPORT: &str = "report.json";

/// What re-ranking did to a ranking.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// The language model.
    pub model: String,
    /// Mentions of the run file.
    pub mentions: usize,
    /// Those whose answers count; all others keep their ranking.
    pub answered: usize,
    /// Mentions with fewer candidates than were to be asked about.
    pub shorter_than_k: usize,
    /// Metrics before.
    pub before: Option<Metrics>,
    /// Metrics after.
    pub after: Option<Metrics>,
    /// How ranks changed (Fig. 9).
    pub changes: RankChanges,
    /// The weights of the ranking and of the model, where they were fitted.
    #[serde(default)]
    pub fusion: Option<Fusion>,
}

/// A language model that is opened only if there is something to ask.
pub trait Unopened {
    /// Why it cannot be opened.
    type Error: From<Error>;

    /// How it answers questions that do not say how.
    fn scoring(&self) -> Scoring;

    /// Which model it is, as it says itself once it is opened ([`LanguageModel::identity`]).
    fn identity(&self) -> Result<String, Self::Error>;

    /// Opens it.
    fn open(&self) -> Result<Box<dyn LanguageModel>, Self::Error>;
}

/// Asks a model about the rankings of a trial's folder, or finds that it was asked; answers are kept as they come. `None` if
/// answers are missing and another process is at it, or is to be: not `mine`.
///
/// Fails if the answers that are there are another model's or of other settings.
pub fn ask<M: Unopened>(
    question: &Question,
    (folder, mine): (&Path, bool),
    data: &Data,
    model: &M,
    bar: &ProgressBar,
) -> Result<Option<Asked>, M::Error> {
    let mut settings = question.settings(model.scoring());
    let out = question.folder(folder);
    let there = || answered(question, folder, Some(model));
    if let Some(asked) = there()? {
        return Ok(Some(asked));
    }
    if !mine {
        return Ok(None);
    }
    let Some(_lock) = FolderLock::free_new(&out)? else { return Ok(None) };
    // Another process may have ended since it was looked for.
    if let Some(asked) = there()? {
        return Ok(Some(asked));
    }
    let (run, rankings) = rankings_of(&folder.join(RUN), data.dataset, &data.test)?;
    let others = if question.fuse { Some(validation(folder, data)?) } else { None };
    others.as_deref().map_or(Ok(()), |others| expect_alike(others, &rankings))?;
    let template = Template::built_in(settings.strategy)?;
    let mut model = model.open()?;
    let header = Header::new(&*model, &settings, &template, data.dataset, &run)?;
    let path = out.join(RUN);
    let mut journal = Journal::open(&Journal::beside(&path), &header)?;
    let mut fit = |others: &[Ranking]| {
        fit_weights(others, data.dataset, &template, &settings, &mut *model, Some(&mut journal), bar)
    };
    let fusion = others.as_deref().map(&mut fit).transpose()?;
    settings.weights = fusion.as_ref().map(|fusion| fusion.weights.clone());
    let outcome = rerank(&rankings, data.dataset, &template, &settings, &mut *model, Some(&mut journal), bar)?;
    write_run(&path, data.dataset, &rankings, &outcome.reranked)?;
    let mut made = Report::new(model.identity(), &settings, &rankings, data.test.len(), &outcome);
    made.fusion = fusion;
    let finished = Finished { report: &made, run: RunFile::read(&path)?.checksum() };
    files::write_whole(&out.join(REPORT), |out| writeln!(out, "{}", serde_json::to_string_pretty(&finished)?))?;
    let Report { model, mentions, answered, shorter_than_k, before, after, changes, fusion, .. } = made;
    Ok(Some(Asked { model, mentions, answered, shorter_than_k, before, after, changes, fusion }))
}

/// A run file and its rankings.
fn rankings_of(path: &Path, dataset: &Dataset, mentions: &[Mention]) -> Result<(RunFile, Vec<Ranking>)> {
    let (run, mut skipped) = (RunFile::read(path)?, Skipped::default());
    let rankings = run.rankings(dataset, mentions, Tolerance::Strict, &mut skipped)?;
    let rankings = rankings.complete(path, Tolerance::Strict, &mut skipped)?;
    Ok((run, rankings))
}

/// Validation mentions on which weights are fitted, as the trial's model ranks them: it is asked if it has not been.
fn validation(folder: &Path, data: &Data) -> Result<Vec<Ranking>> {
    let path = folder.join(VALID_RUN);
    if !path.exists() {
        let (samples, _) = data.samples(&data.valid, 0)?;
        if samples.is_empty() {
            return Err(Error::invalid(
                "the dataset has no valid.jsonl, on whose mentions the weights of `fuse` are fitted",
            ));
        }
        let trained = TrainedModel::read(folder)?;
        let evaluation = evaluate(&trained.model, data.batcher, &samples, &ProgressBar::hidden())?;
        eval::write_run(&path, data.dataset, &samples, &evaluation)?;
    }
    let (_, rankings) = rankings_of(&path, data.dataset, &data.valid)?;
    Ok(sample(&rankings, FITTED_ON, 0))
}

/// Fails if the answers about the rankings of a trial's folder, if all are there, are of other settings or another model than the
/// one that is given, if one is.
pub fn expect_own<M: Unopened>(question: &Question, folder: &Path, model: Option<&M>) -> Result<(), M::Error> {
    Kept::own(question, folder, model).map(drop)
}

/// How a run file of answers comes back.
const FROM_JOURNAL: &str = "delete it: the same command makes it again from the journal beside it";

/// What was answered about the rankings of a trial's folder, if all answers are there: by this model, or with none by whatever
/// model. Fails if they are another model's or of other settings.
pub fn answered<M: Unopened>(question: &Question, folder: &Path, model: Option<&M>) -> Result<Option<Asked>, M::Error> {
    let Some(kept) = Kept::own(question, folder, model)? else { return Ok(None) };
    let run = question.folder(folder).join(RUN);
    match (run.try_exists().map_err(Error::io(&run, "look for"))?, model) {
        (true, _) => {
            // Older reports say nothing of it.
            kept.run.as_ref().map_or(Ok(()), |checksum| expect_as_written(&run, checksum, FROM_JOURNAL))?;
            Ok(Some(kept.asked))
        }
        // The journal still has the answers that it is made of.
        (false, Some(_)) => Ok(None),
        (false, None) => {
            let reason = "is gone, though its report is there; the same command with the language model makes it again";
            Err(Error::file(run, reason).into())
        }
    }
}

/// Whether a folder of answers has them all.
pub fn is_answered(answers: &Path) -> bool {
    [RUN, REPORT].iter().all(|file| answers.join(file).exists())
}

/// What a report says of finished answers.
#[derive(Deserialize)]
struct Kept {
    #[serde(flatten)]
    asked: Asked,
    settings: Settings,
    /// Checksum of the run file.
    #[serde(default)]
    run: Option<String>,
}

/// What is written of finished answers.
#[derive(Serialize)]
struct Finished<'a> {
    #[serde(flatten)]
    report: &'a Report,
    run: String,
}

impl Kept {
    /// Of the answers about the rankings in a trial's folder, if all are there. Fails if they are none to this question as it is
    /// asked now.
    fn own<M: Unopened>(question: &Question, trial: &Path, model: Option<&M>) -> Result<Option<Kept>, M::Error> {
        let path = question.folder(trial).join(REPORT);
        let Some(kept) = Kept::read(&path)? else { return Ok(None) };
        let other = |what: &str, instead: &str| {
            let reason = format!("is of {what}; {instead}, choose another --out, or delete its folder to ask anew");
            Err(Error::file(&path, reason).into())
        };
        if let Some(model) = model {
            let (before, given) = (&kept.asked.model, model.identity()?);
            if *before != given {
                let what = format!("another language model, {before}, and not of {given}");
                return other(&what, "give the model that answered again");
            }
        }
        let scoring = model.map_or(kept.settings.scoring, Unopened::scoring);
        let (before, now) = (kept.asked.fusion.is_some(), question.fuse);
        let fuse = if before == now { String::new() } else { format!("fuse was {before} and is now {now}") };
        let differing = [difference(&kept.settings, &question.settings(scoring)), fuse];
        let differing: Vec<String> = differing.into_iter().filter(|what| !what.is_empty()).collect();
        match differing.is_empty() {
            true => Ok(Some(kept)),
            false => other(&format!("other settings: {}", differing.join(", ")), "go back to those"),
        }
    }

    fn read(path: &Path) -> Result<Option<Kept>> {
        if !path.try_exists().map_err(Error::io(path, "look for"))? {
            return Ok(None);
        }
        let text = files::read_text_or_stream(path)?;
        let mut kept: Kept = serde_json::from_str(&text)
            .map_err(|e| Error::file(path, format!("is no report of a re-ranking: {e}; delete it to ask anew")))?;
        // Weights are no setting but what came of one.
        kept.settings.weights = None;
        Ok(Some(kept))
    }
}
