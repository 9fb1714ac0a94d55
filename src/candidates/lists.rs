//! Giving every mention of a dataset its list of candidates.

use std::ops::Range;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Generator, Scratch};
use crate::data::audit::Recall;
use crate::data::{Dataset, Mention, MentionRecord, Protocol, Skipped, Split, Tolerance, parse_record, record_error};
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
    /// A mention whose list is to be made, and where it stands in the line.
    Mention(String, Place, Mention),
    /// Anything else, kept as it is.
    Other(String),
}

/// Where a line's list stands, or where one is put.
enum Place {
    Value(Range<usize>),
    Behind(usize),
}

/// What of a line is replaced. Everything else stays as it is to the byte: a number that is read and written may change.
#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow, default, deserialize_with = "even_null")]
    candidates: Option<&'a RawValue>,
}

/// A value as it stands there, `null` among them.
fn even_null<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl Place {
    /// In a line that holds an object with something in it.
    fn of(text: &str) -> Option<Place> {
        let listed: Listed = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
        match listed.candidates {
            None => text.rfind('}').map(Place::Behind),
            Some(raw) => {
                let from = raw.get().as_ptr() as usize - text.as_ptr() as usize;
                Some(Place::Value(from..from + raw.get().len()))
            }
        }
    }

    /// The line with this list.
    fn filled(&self, text: &str, list: &str) -> String {
        match self {
            Place::Value(range) => [&text[..range.start], list, &text[range.end..]].concat(),
            Place::Behind(at) => [text[..*at].trim_end(), ",\"candidates\":", list, &text[*at..]].concat(),
        }
    }
}

/// What was made of a split's lines, or of a share of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Made {
    /// The split.
    pub split: Split,
    /// Of each mention with a gold entity, its place in the list as retrieved, from 1, if it is in it.
    pub positions: Vec<Option<usize>>,
    /// Mentions that were given a list.
    pub mentions: usize,
    /// Lists that the gold entity was put into.
    pub injected: usize,
    /// The lines.
    #[serde(skip)]
    pub text: String,
}

impl Made {
    /// Adds what was made of the lines that follow.
    pub fn append(&mut self, next: Made) {
        self.positions.extend(next.positions);
        self.mentions += next.mentions;
        self.injected += next.injected;
        self.text.push_str(&next.text);
    }

    fn report(&self) -> ListReport {
        let (mentions, injected) = (self.mentions, self.injected);
        ListReport { recall: Recall::of(self.split, &self.positions), mentions, injected, kept: None }
    }
}

/// Finds candidates for all mentions of a dataset and writes its splits anew: all of them or none.
pub fn write_lists(
    dataset: &Dataset,
    settings: ListSettings,
    skipped: &mut Skipped,
    bar: &ProgressBar,
) -> Result<Vec<ListReport>> {
    let made = make_lists(dataset, settings, |lines| 0..lines, skipped, bar)?;
    replace_splits(dataset.root(), made, settings.replace)
}

/// Finds candidates for a share of the lines of a dataset's splits, of which there are so many; nothing is written.
pub fn make_lists(
    dataset: &Dataset,
    settings: ListSettings,
    share: impl FnOnce(usize) -> Range<usize>,
    skipped: &mut Skipped,
    bar: &ProgressBar,
) -> Result<Vec<Made>> {
    let splits: Vec<Split> = Split::ALL.into_iter().filter(|&split| dataset.has(split)).collect();
    let read: Vec<Vec<Line>> =
        splits.iter().map(|&split| read(dataset, split, settings, skipped)).collect::<Result<_>>()?;
    let share = share(read.iter().map(Vec::len).sum());
    bar.set_length(share.len() as u64);
    let generator = Generator::new(dataset.entities());
    let mut first = 0;
    let made = splits.into_iter().zip(read).map(|(split, mut lines)| {
        let within = |at: usize| at.saturating_sub(first).min(lines.len());
        let range = within(share.start)..within(share.end);
        first += lines.len();
        make(dataset, &generator, split, lines.drain(range).collect(), settings, bar)
    });
    Ok(made.collect())
}

/// Writes the splits of the dataset in a folder anew: all of them or none. With `keep_old`, copies of the files as they were lie
/// beside them.
pub fn replace_splits(root: &Path, made: Vec<Made>, keep_old: bool) -> Result<Vec<ListReport>> {
    let mut reports: Vec<ListReport> = made.iter().map(Made::report).collect();
    let files: Vec<(PathBuf, Vec<u8>)> =
        made.into_iter().map(|made| (root.join(made.split.file()), made.text.into_bytes())).collect();
    let mut kept = Vec::new();
    let paths: Vec<PathBuf> = files.iter().filter(|_| keep_old).map(|(path, _)| path.clone()).collect();
    let replaced = paths.iter().try_for_each(|path| {
        kept.push((path, keep(path)?));
        Ok(())
    });
    if let Err(error) = replaced.and_then(|()| files::write_together(files)) {
        forget(root, &kept);
        return Err(error);
    }
    for (report, (_, copy)) in reports.iter_mut().zip(kept) {
        report.kept = Some(copy);
    }
    Ok(reports)
}

/// Removes the copies of files that were not replaced after all. Where the replacement may still come, or a file cannot be
/// compared with its copy, the copy stays.
fn forget(folder: &Path, kept: &[(&PathBuf, PathBuf)]) {
    if files::complete(folder).is_err() {
        return;
    }
    for (path, copy) in kept {
        let same = std::fs::read(path).is_ok_and(|now| std::fs::read(copy).is_ok_and(|before| now == before));
        if same && let Err(error) = std::fs::remove_file(copy) {
            tracing::warn!("{}: a copy of a file that was not replaced, cannot be removed: {error}", copy.display());
        }
    }
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

fn read(dataset: &Dataset, split: Split, settings: ListSettings, skipped: &mut Skipped) -> Result<Vec<Line>> {
    let path = dataset.root().join(split.file());
    let text = files::read_text(&path)?;
    let mut lines = Vec::new();
    for (i, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let refuse = |reason: String| record_error(&path, i + 1, reason);
        let parsed = parse_record::<MentionRecord>(&path, i + 1, text).and_then(|mut record| {
            if record.candidates.take().is_some() && !settings.replace {
                let reason = format!("mention `{}` has candidates already; --replace replaces them", record.mention_id);
                return Err(refuse(reason));
            }
            let mention = dataset.mention(record).map_err(refuse)?;
            let place = Place::of(text).ok_or_else(|| refuse("is no valid record: no object".into()))?;
            Ok(Line::Mention(text.to_string(), place, mention))
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
) -> Made {
    let find = |scratch: &mut Scratch, line: &Line| match line {
        Line::Other(_) => Vec::new(),
        Line::Mention(_, _, mention) => {
            bar.inc(1);
            generator.find(&mention.mention, &mention.sentence, settings.top, scratch)
        }
    };
    let found: Vec<Vec<u32>> = lines.par_iter().map_init(Scratch::default, find).collect();
    let (mut positions, mut injected, mut mentions, mut text) = (Vec::new(), 0, 0, String::new());
    for (line, mut list) in lines.into_iter().zip(found) {
        let (record, place) = match line {
            Line::Other(line) => {
                text.push_str(&line);
                text.push('\n');
                continue;
            }
            Line::Mention(record, place, mention) => {
                mentions += 1;
                if let Some(gold) = mention.gold {
                    let position = list.iter().position(|&candidate| candidate == gold).map(|at| at + 1);
                    settings.protocol.apply(&mut list, gold, settings.top);
                    injected += (position.is_none() && list.contains(&gold)) as usize;
                    positions.push(position);
                }
                (record, place)
            }
        };
        let qids: Vec<&str> = list.iter().map(|&entity| &dataset.entities()[entity as usize].qid[..]).collect();
        text.push_str(&place.filled(&record, &json!(qids).to_string()));
        text.push('\n');
    }
    Made { split, positions, mentions, injected, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gets_its_list_and_keeps_everything_else_to_the_byte() {
        let number = r#""n": 12345678901234567890123,"x":1.0000000000000000001, "\u0061":"\u00e4""#;
        for (line, filled) in [
            (format!("{{{number} }} "), format!("{{{number},\"candidates\":[1]}} ")),
            (format!("{{\"candidates\" : [\"Q1\", \"Q2\"] ,{number}}}"), format!("{{\"candidates\" : [1] ,{number}}}")),
            (format!("\u{feff}{{{number},\"candidates\":null}}"), format!("\u{feff}{{{number},\"candidates\":[1]}}")),
            (
                format!("{{\"o\":{{\"candidates\":2}},{number}}}"),
                format!("{{\"o\":{{\"candidates\":2}},{number},\"candidates\":[1]}}"),
            ),
        ] {
            assert_eq!(Place::of(&line).unwrap().filled(&line, "[1]"), filled);
        }
        assert!(Place::of("[]").is_none());
    }

    #[test]
    fn copies_of_files_that_were_not_replaced_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [("a", "old"), ("b", "new"), ("b.bak", "old")] {
            std::fs::write(path(name), text).unwrap();
        }
        let (a, b) = (path("a"), path("b"));
        let kept = [(&a, keep(&a).unwrap()), (&b, path("b.bak"))];
        std::fs::write(path(".replacing.json"), "damaged").unwrap();
        forget(folder.path(), &kept);
        assert!(path("a.bak").exists(), "what may yet be replaced is kept");
        std::fs::remove_file(path(".replacing.json")).unwrap();
        forget(folder.path(), &kept);
        assert!(!path("a.bak").exists() && path("b.bak").exists());
    }
}
