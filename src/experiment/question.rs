//! Re-ranking of a trial's rankings by a language model, in a folder of its own within the trial's.

use std::path::Path;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use super::file::{Question, folder_name};
use super::trial::{Data, RUN};
use crate::data::{RunFile, Skipped, Tolerance};
use crate::error::{Error, Result};
use crate::eval::Metrics;
use crate::files::{self, FolderLock};
use crate::kar::model::LanguageModel;
use crate::kar::{Header, Journal, RankChanges, Report, Scoring, Template, rerank, write_run};

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
}

/// Asks a model about the rankings of a trial's folder, or finds that it was asked; answers are kept as they come. The model
/// is opened only if there is something to ask.
pub fn ask<E: From<Error>>(
    question: &Question,
    folder: &Path,
    data: &Data,
    scoring: Scoring,
    open: impl FnOnce() -> Result<Box<dyn LanguageModel>, E>,
    bar: &ProgressBar,
) -> Result<Asked, E> {
    let out = folder.join(format!("rerank-{}", folder_name(&question.name)));
    let report = out.join("report.json");
    if report.try_exists().map_err(Error::io(&report, "look for"))? {
        let text = files::read_text_or_stream(&report)?;
        let (asked, settings): (Asked, serde_json::Value) = serde_json::from_str(&text)
            .and_then(|asked| Ok((asked, serde_json::from_str(&text)?)))
            .map_err(|e| Error::file(&report, format!("is no report of a re-ranking: {e}")))?;
        if settings["settings"] != serde_json::json!(question.settings(scoring)) {
            let reason = "is of other settings; choose another --out, or delete its folder to ask anew";
            return Err(Error::file(&report, reason).into());
        }
        return Ok(asked);
    }
    files::create_folder(&out)?;
    let _lock = FolderLock::take(&out)?;
    let settings = question.settings(scoring);
    let run = RunFile::read(&folder.join(RUN))?;
    let mut skipped = Skipped::default();
    let rankings = run.rankings(data.dataset, &data.test, Tolerance::Strict, &mut skipped)?;
    let rankings = rankings.complete(&folder.join(RUN), Tolerance::Strict, &mut skipped)?;
    let template = Template::built_in(settings.strategy)?;
    let mut model = open()?;
    let header = Header::new(&*model, &settings, &template, data.dataset, &run)?;
    let path = out.join(RUN);
    let mut journal = Journal::open(&Journal::beside(&path), &header)?;
    let outcome = rerank(&rankings, data.dataset, &template, &settings, &mut *model, Some(&mut journal), bar)?;
    write_run(&path, data.dataset, &rankings, &outcome.reranked)?;
    let made = Report::new(model.identity(), &settings, &rankings, data.test.len(), &outcome);
    files::write_whole(&report, |out| writeln!(out, "{}", serde_json::to_string_pretty(&made)?))?;
    let Report { model, mentions, answered, shorter_than_k, before, after, changes, .. } = made;
    Ok(Asked { model, mentions, answered, shorter_than_k, before, after, changes })
}
