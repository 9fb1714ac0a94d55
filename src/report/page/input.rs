//! What a report is made from: folders and files of runs, told apart by what is in them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::block::Block;
use super::experiment::Summary;
use super::pretraining::Pretraining;
use super::reranking::Reranking;
use super::results::Evaluation;
use super::training::Training;
use crate::error::{Error, Result};
use crate::files;
use crate::files::names;
use crate::profile::measurement::{Measurement, Measurements, SCHEMA};

/// Something of a file.
#[derive(Debug)]
pub struct From<T> {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub what: T,
}

impl<T> From<T> {
    /// The file as the user would name it.
    pub fn source(&self) -> String {
        self.path.display().to_string()
    }

    /// The last two names of its path without what all files of its kind are called: enough to tell runs apart.
    pub fn short(&self) -> String {
        let common = ["metrics", "summary", "train", "pretrain", "report"];
        let stem = self.path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let folder = self.path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        match (folder, common.contains(&stem.as_str())) {
            (Some(folder), true) => folder,
            (Some(folder), false) => format!("{folder}/{stem}"),
            (None, _) => stem,
        }
    }
}

/// All that was found, in the order in which it was named.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Logs of trainings.
    pub trainings: Vec<From<Training>>,
    /// Logs of pre-trainings.
    pub pretrainings: Vec<From<Pretraining>>,
    /// Metrics of evaluations.
    pub evaluations: Vec<From<Evaluation>>,
    /// Summaries of experiments.
    pub experiments: Vec<From<Summary>>,
    /// Reports of re-rankings.
    pub rerankings: Vec<From<Reranking>>,
    /// Measurements of `fissfuse-bench`.
    pub measurements: Vec<From<Measurements>>,
    /// Run files.
    pub runs: Vec<PathBuf>,
    /// Files that were looked at already, by whatever name.
    seen: HashSet<PathBuf>,
}

impl From<Measurements> {
    /// The heading of what is from this file.
    pub fn heading(&self) -> Block {
        let Measurements { command, date, commit, machine, .. } = &self.what;
        let source = [self.source(), date.clone(), format!("commit {commit}")].join(", ");
        Block::heading(format!("fissfuse-bench {command}: {}", machine.describe()), &source)
    }

    /// What keeps the rows that are shown from being trusted, and what the file advises.
    pub fn remarks(&self, shown: impl Fn(&Measurement) -> bool) -> Vec<Block> {
        let rows = self.what.results.iter().filter(|row| shown(row));
        let warnings = rows.flat_map(|row| row.warnings.iter().map(|warning| format!("{}: {warning}", row.label())));
        let advice = self.what.advice.iter().map(|advice| Block::text(format!("Advice: {advice}")));
        warnings.map(Block::warning).chain(advice).collect()
    }
}

/// What is looked for in a folder, for errors.
const LOOKED_FOR: &str = "train.jsonl of a training (in a folder, beside its train.json or a checkpoint), pretrain.jsonl, metrics.json of an evaluation, summary.json of an experiment, \
                          the report of a re-ranking, or measurements of fissfuse-bench";

impl Inputs {
    /// Reads folders and files. Fails at the first that holds nothing that a report shows.
    pub fn read(paths: &[PathBuf]) -> Result<Inputs> {
        let mut inputs = Inputs::default();
        for path in paths {
            let there = fs::metadata(path).map_err(Error::io(path, "read"));
            let there = there.map_err(|error| error.if_missing(&format!("a report shows {LOOKED_FOR}")))?;
            match there.is_dir() {
                true if inputs.folder(path)? => {}
                true => inputs.folders_within(path)?,
                false => inputs.named(path)?,
            }
        }
        Ok(inputs)
    }

    /// The files that were taken.
    pub fn files(&self) -> Vec<PathBuf> {
        let Inputs { trainings, pretrainings, evaluations, experiments, rerankings, measurements, runs, .. } = self;
        let of = [
            paths(trainings),
            paths(pretrainings),
            paths(evaluations),
            paths(experiments),
            paths(rerankings),
            paths(measurements),
        ];
        of.into_iter().flatten().chain(runs.iter().cloned()).collect()
    }

    /// Takes what a folder holds; says whether that is anything.
    fn folder(&mut self, folder: &Path) -> Result<bool> {
        let has = |name: &str| folder.join(name).is_file();
        if has("entities.jsonl") {
            return Err(Error::file(folder, "is a dataset and no run; give it as --data, for examples with images"));
        }
        let mut found = false;
        // A dataset's train.jsonl is of mentions, so the log is known by what stands beside it.
        if has(names::TRAIN_LOG) && [names::TRAINING, names::BEST, names::LAST].into_iter().any(has) {
            found |= self.file(&folder.join(names::TRAIN_LOG))?;
        }
        if has(names::PRETRAIN_LOG) {
            found |= self.file(&folder.join(names::PRETRAIN_LOG))?;
        }
        for name in names(folder)?.iter().filter(|name| name.ends_with(".json")) {
            found |= self.file(&folder.join(name))?;
        }
        if found && has(names::RUN) && has(names::METRICS) {
            self.take_run(folder.join(names::RUN));
        }
        Ok(found)
    }

    /// Takes what the folders in a folder hold, such as a demo's.
    fn folders_within(&mut self, folder: &Path) -> Result<()> {
        let mut found = false;
        for inner in names(folder)?.iter().map(|name| folder.join(name)) {
            found |= inner.is_dir() && !inner.join("entities.jsonl").exists() && self.folder(&inner)?;
        }
        match found {
            true => Ok(()),
            false => Err(Error::file(folder, format!("holds nothing that a report shows: neither {LOOKED_FOR}"))),
        }
    }

    /// Takes a file that the user named.
    fn named(&mut self, path: &Path) -> Result<()> {
        match self.file(path)? {
            true => Ok(()),
            false => Err(Error::file(path, format!("is nothing that a report shows, which is {LOOKED_FOR}"))),
        }
    }

    /// Takes a file if it is one of ours.
    fn file(&mut self, path: &Path) -> Result<bool> {
        if !self.seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())) {
            return Ok(true);
        }
        let text = files::read_text_or_stream(path)?;
        if text.trim().is_empty() {
            return Err(Error::file(path, "is empty: its run wrote nothing yet"));
        }
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            return self.lines(path, &text);
        }
        let value = crate::fields::parse_json(path, &text)?;
        let has = |key: &str| value.get(key).is_some();
        expect_known_schema(path, &value)?;
        if has("program") && has("results") {
            self.measurements.push(parsed(path, "measurements", &text)?);
        } else if has("rows") && has("seeds") && has("title") {
            self.experiments.push(parsed(path, "summary of an experiment", &text)?);
        } else if has("changes") && has("before") && has("after") {
            self.rerankings.push(parsed(path, "report of a re-ranking", &text)?);
        } else if has("split") && (has("mean") || has("run")) {
            self.evaluations.push(parsed(path, "metrics of an evaluation", &text)?);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes a file of lines: a training's log, or a run file.
    fn lines(&mut self, path: &Path, text: &str) -> Result<bool> {
        let first: Option<Value> = text.lines().find_map(|line| serde_json::from_str(line).ok());
        let has = |key: &str| first.as_ref().is_some_and(|first| first.get(key).is_some());
        if has("epoch") && has("losses") {
            let what = Training::parse(path, text)?;
            self.trainings.push(From { path: path.to_path_buf(), what });
        } else if has("epoch") && has("text_to_image_loss") {
            let what = Pretraining::parse(path, text)?;
            self.pretrainings.push(From { path: path.to_path_buf(), what });
        } else if has("mention_id") && (has("candidates") || has("links")) {
            self.take_run(path.to_path_buf());
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn take_run(&mut self, run: PathBuf) {
        let same = |other: &PathBuf| fs::canonicalize(other).ok() == fs::canonicalize(&run).ok();
        if !self.runs.iter().any(same) {
            self.runs.push(run);
        }
    }
}

fn paths<T>(files: &[From<T>]) -> Vec<PathBuf> {
    files.iter().map(|file| file.path.clone()).collect()
}

/// Names in a folder, in their order.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io(folder, "read"))?;
        // What has no name in UTF-8 is none of ours.
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// Fails at a file of a later version of this program.
fn expect_known_schema(path: &Path, value: &Value) -> Result<()> {
    match value.get("schema") {
        None => Ok(()),
        Some(schema) if schema.as_u64().is_some_and(|schema| (1..=SCHEMA).contains(&schema)) => Ok(()),
        Some(schema) => {
            let version = value.get("version").and_then(Value::as_str).unwrap_or("another");
            let reason = format!(
                "is of schema {schema}, and this program reads up to {SCHEMA}; make the report by version {version}, \
                 which wrote it, or a later one"
            );
            Err(Error::file(path, reason))
        }
    }
}

fn parsed<T: DeserializeOwned>(path: &Path, what: &str, text: &str) -> Result<From<T>> {
    let parsed = serde_json::from_str(text);
    parsed
        .map(|what| From { path: path.to_path_buf(), what })
        .map_err(|e| Error::file(path, format!("looks like {what}, but cannot be read: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Inputs, String> {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| files::write_new(&folder.path().join(name), text.as_bytes()).unwrap());
        Inputs::read(&[folder.path().to_path_buf()]).map_err(|e| e.to_string())
    }

    const EPOCH: &str =
        r#"{"epoch":1,"loss":2.0,"losses":[["S1T",2.0]],"valid":null,"best":true,"samples_per_second":1}"#;

    #[test]
    fn a_folder_is_known_by_its_files() {
        let found = read(&[("train.jsonl", EPOCH), ("train.json", "{}")]).unwrap();
        assert_eq!((found.trainings.len(), found.trainings[0].what.epochs.len()), (1, 1));
        let found = read(&[("model/train.jsonl", EPOCH), ("model/train.json", "{}"), ("data/entities.jsonl", "{}")]);
        assert_eq!(found.unwrap().trainings[0].short(), "model");
    }

    #[test]
    fn what_is_no_run_is_named_with_what_to_do() {
        for (files, says) in [
            (&[("a.txt", "x")][..], "holds nothing that a report shows: neither train.jsonl"),
            (&[("entities.jsonl", "{}")], "is a dataset and no run; give it as --data"),
            (&[("train.jsonl", "\n"), ("train.json", "{}")], "train.jsonl: is empty: its run wrote nothing yet"),
            (
                &[("bench.json", r#"{"schema":2,"program":"fissfuse-bench","version":"9.0","results":[]}"#)],
                "by version 9.0",
            ),
            (&[("metrics.json", r#"{"split":"test","mean":{}}"#)], "looks like metrics of an evaluation, but cannot"),
            (&[("summary.json", r#"{"title":"#)], "is no JSON: it ends in line 1"),
        ] {
            let error = read(files).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
