//! Giving every mention of a dataset its list of candidates.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::{Generator, Scratch};
use crate::data::audit::Recall;
use crate::data::import::Protocol;
use crate::data::{Dataset, Mention, MentionRecord, Skipped, Split, Tolerance, parse_record, record_error};
use crate::error::Result;
use crate::files;

/// How lists are made.
#[derive(Clone, Copy, Debug)]
pub struct ListSettings {
    /// Candidates of a list.
    pub top: usize,
    /// What becomes of lists without their gold entity.
    pub protocol: Protocol,
    /// Whether lists that are there already may be replaced.
    pub replace: bool,
    /// What to do with bad records; those that are passed over stay in the file as they are.
    pub tolerance: Tolerance,
}

/// What was done for a split.
#[derive(Clone, Debug, Serialize)]
pub struct ListReport {
    /// Recall of the lists as they were retrieved, of mentions with a gold entity.
    pub recall: Recall,
    /// Mentions that were given a list.
    pub mentions: usize,
    /// Lists that the gold entity was put into.
    pub injected: usize,
    /// Copy of the file as it was, where lists were replaced.
    pub kept: Option<PathBuf>,
}

/// A line of a file of mentions.
enum Line {
    /// A mention whose list is to be made.
    Mention(Value, Mention),
    /// Anything else, kept as it is.
    Other(String),
}

/// Finds candidates for all mentions of a dataset and writes its splits anew: all of them or none.
pub fn write_lists(
    dataset: &Dataset,
    settings: ListSettings,
    skipped: &mut Skipped,
    bar: &ProgressBar,
) -> Result<Vec<ListReport>> {
    let splits: Vec<Split> = Split::ALL.into_iter().filter(|&split| dataset.has(split)).collect();
    let read: Vec<Vec<Line>> =
        splits.iter().map(|&split| read(dataset, split, settings, skipped)).collect::<Result<_>>()?;
    bar.set_length(read.iter().map(|lines| lines.len() as u64).sum());
    let generator = Generator::new(dataset.entities());
    let (mut reports, mut files) = (Vec::new(), Vec::new());
    for (split, lines) in splits.into_iter().zip(read) {
        let (report, text) = make(dataset, &generator, split, lines, settings, bar);
        reports.push(report);
        files.push((path(dataset, split), text.into_bytes()));
    }
    if settings.replace {
        for (report, (path, _)) in reports.iter_mut().zip(&files) {
            report.kept = Some(keep(path)?);
        }
    }
    files::write_together(files)?;
    Ok(reports)
}

/// Copies a file to the first free name beside it.
fn keep(path: &Path) -> Result<PathBuf> {
    let beside = |ending: String| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let endings = [String::from(".bak")].into_iter().chain((2..).map(|n| format!(".bak{n}")));
    let free = endings.map(beside).find(|name| !name.exists()).unwrap_or_default();
    let lists = files::read(path)?;
    files::write_whole(&free, |out| out.write_all(&lists))?;
    Ok(free)
}

fn path(dataset: &Dataset, split: Split) -> PathBuf {
    dataset.root().join(split.file())
}

fn read(dataset: &Dataset, split: Split, settings: ListSettings, skipped: &mut Skipped) -> Result<Vec<Line>> {
    let path = path(dataset, split);
    let text = files::read_text(&path)?;
    let mut lines = Vec::new();
    for (i, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let refuse = |reason: String| record_error(&path, i + 1, reason);
        let parsed = parse_record::<MentionRecord>(&path, i + 1, text).and_then(|mut record| {
            if !std::mem::take(&mut record.candidates).is_empty() && !settings.replace {
                let reason = format!("mention `{}` has candidates already; --replace replaces them", record.mention_id);
                return Err(refuse(reason));
            }
            let mention = dataset.mention(record).map_err(refuse)?;
            Ok(Line::Mention(parse_record(&path, i + 1, text)?, mention))
        });
        match parsed {
            Ok(line) => lines.push(line),
            Err(error) => {
                skipped.take(settings.tolerance, error)?;
                lines.push(Line::Other(text.to_string()));
            }
        }
    }
    Ok(lines)
}

fn make(
    dataset: &Dataset,
    generator: &Generator,
    split: Split,
    lines: Vec<Line>,
    settings: ListSettings,
    bar: &ProgressBar,
) -> (ListReport, String) {
    let find = |scratch: &mut Scratch, line: &Line| match line {
        Line::Other(_) => Vec::new(),
        Line::Mention(_, mention) => {
            bar.inc(1);
            generator.find(&mention.mention, &mention.sentence, settings.top, scratch)
        }
    };
    let found: Vec<Vec<u32>> = lines.par_iter().map_init(Scratch::default, find).collect();
    let (mut positions, mut injected, mut mentions, mut text) = (Vec::new(), 0, 0, String::new());
    for (line, mut list) in lines.into_iter().zip(found) {
        let mut record = match line {
            Line::Other(line) => {
                text.push_str(&line);
                text.push('\n');
                continue;
            }
            Line::Mention(record, mention) => {
                mentions += 1;
                if let Some(gold) = mention.gold {
                    let position = list.iter().position(|&candidate| candidate == gold).map(|at| at + 1);
                    settings.protocol.apply(&mut list, gold, settings.top);
                    injected += (position.is_none() && list.contains(&gold)) as usize;
                    positions.push(position);
                }
                record
            }
        };
        let qids = list.iter().map(|&entity| dataset.entities()[entity as usize].qid.clone().into()).collect();
        record["candidates"] = Value::Array(qids);
        text.push_str(&record.to_string());
        text.push('\n');
    }
    (ListReport { recall: Recall::of(split, &positions), mentions, injected, kept: None }, text)
}
