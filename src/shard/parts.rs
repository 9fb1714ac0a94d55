//! All parts of a run, looked at before they are joined.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::part::{Checksummed, RECORD, Record, Share};
use crate::error::{Error, Result};

/// A part that is finished.
#[derive(Debug)]
pub struct Opened {
    /// Its folder.
    pub folder: PathBuf,
    /// What it is a part of.
    pub record: Record,
}

/// All parts of one run, in their order: none is missing, none is there twice, each is as it was written.
#[derive(Debug)]
pub struct Parts(Vec<Opened>);

/// Folders of parts within a folder.
pub(super) fn within(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let advice = "parts lie in the folder that was --out of the commands with --shard";
    let entries = fs::read_dir(folder).map_err(Error::io(folder, "read"));
    for entry in entries.map_err(|error| error.if_missing(advice))? {
        let path = entry.map_err(Error::io(folder, "read"))?.path();
        if path.join(RECORD).exists() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl Parts {
    /// Opens parts: each path is one, or a folder of some. Says what is wrong with them, and what to do.
    pub fn open(paths: &[PathBuf]) -> Result<Parts> {
        let mut parts: BTreeMap<usize, Opened> = BTreeMap::new();
        for folder in folders(paths)? {
            let record = Record::read(&folder)?;
            let in_words = format!("part {} of {}", record.part, record.of);
            if let Some(first) = parts.values().next()
                && let Some(difference) = record.difference(&first.record)
            {
                let first = first.folder.display();
                let reason = format!("is of another run than {first}: {difference}; name the parts of one run");
                return Err(Error::file(folder, reason));
            }
            if let Some(same) = parts.get(&record.part) {
                let same = same.folder.display();
                return Err(Error::file(folder, format!("is {in_words}, as {same} is; name one of them")));
            }
            if !record.finished {
                return Err(Error::file(folder, format!("is {in_words}, and not finished; run its task again")));
            }
            parts.insert(record.part, Opened { folder, record });
        }
        let count = parts.values().next().map_or(0, |part| part.record.of);
        let missing: Vec<usize> = (1..=count).filter(|i| !parts.contains_key(i)).collect();
        if !missing.is_empty() {
            let which = in_ranges(&missing);
            let paths = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
            let what = match missing.len() {
                1 => format!("part {which} of {count} is missing; run it with --shard {which}/{count}"),
                _ => format!("parts {which} of {count} are missing; run them with --shard i/{count}"),
            };
            return Err(Error::invalid(format!("{paths}: {what}")));
        }
        let parts = Parts(parts.into_values().collect());
        parts.check_shares()?;
        parts.0.par_iter().try_for_each(Opened::check_files)?;
        Ok(parts)
    }

    /// Fails unless the shares lie one behind the other.
    fn check_shares(&self) -> Result<()> {
        for kind in self.first().record.shares.keys() {
            let mut next = 0;
            for part in &self.0 {
                let share = part.record.shares.get(kind);
                let fits = |share: &&Share| share.from == next && share.to >= share.from && share.to <= share.of;
                let last = part.record.part == part.record.of;
                let Some(share) = share.filter(fits).filter(|share| !last || share.to == share.of) else {
                    let found = share.map_or("nothing is said of it".into(), |Share { from, to, of }| {
                        format!("it is {from} to {to} of {of}, and {next} come before it")
                    });
                    let reason = format!("its share of the {kind} does not follow that of the part before: {found}");
                    return Err(Error::file(part.folder.join(RECORD), format!("{reason}; make the parts anew")));
                };
                next = share.to;
            }
        }
        Ok(())
    }

    /// The first one; there always is one.
    pub fn first(&self) -> &Opened {
        &self.0[0]
    }

    /// All of them.
    pub fn all(&self) -> &[Opened] {
        &self.0
    }

    /// The file of this name of each part.
    pub fn files(&self, name: &str) -> Vec<PathBuf> {
        self.0.iter().map(|part| part.folder.join(name)).collect()
    }

    /// Fails if an output lies within a part, or a part within it: it would be mixed with, or replace, what is joined.
    pub fn keep_apart(&self, name: &str, out: &Path) -> Result<()> {
        let whole = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_default();
        let beside = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let out_at = if out.exists() { whole(out) } else { whole(beside).join(out.file_name().unwrap_or_default()) };
        match self.0.iter().find(|part| out_at.starts_with(whole(&part.folder)) || whole(&part.folder) == out_at) {
            None => Ok(()),
            Some(part) => {
                let part = part.folder.display();
                Err(Error::file(out, format!("{name} lies within {part}, which is joined; choose another {name}")))
            }
        }
    }

    /// What each part gives to be joined.
    pub fn results<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let read = |part: &Opened| {
            let broken = |e: serde_json::Error| Error::file(part.folder.join(RECORD), format!("is damaged: {e}"));
            T::deserialize(&part.record.result).map_err(broken)
        };
        self.0.iter().map(read).collect()
    }

    /// What the run depends on by this name.
    pub fn run(&self, name: &str) -> &Value {
        self.first().record.run.get(name).unwrap_or(&Value::Null)
    }
}

impl Opened {
    /// Fails unless all its files are as they were written.
    fn check_files(&self) -> Result<()> {
        for (name, written) in &self.record.files {
            let path = self.folder.join(name);
            let plain = Path::new(name).file_name().is_some_and(|file| file == name.as_str());
            if !plain || Checksummed::of(&path)? != *written {
                let task = format!("run part {} of {} again", self.record.part, self.record.of);
                return Err(Error::file(
                    path,
                    format!("is not what was written (its length or checksum differs); {task}"),
                ));
            }
        }
        Ok(())
    }
}

/// Ascending numbers as a list of ranges: 1, 3 to 7.
fn in_ranges(numbers: &[usize]) -> String {
    let ranges = numbers.chunk_by(|a, b| a + 1 == *b).map(|range| match range {
        [one] => one.to_string(),
        [first, last] => format!("{first}, {last}"),
        [first, .., last] => format!("{first} to {last}"),
        [] => String::new(),
    });
    ranges.collect::<Vec<_>>().join(", ")
}

/// The folders of parts that paths name, each once for each time that it is named.
fn folders(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let there = fs::metadata(path).map_err(Error::io(path, "read"))?;
        if !there.is_dir() {
            return Err(Error::file(path, "is a file; name a part's folder, or the folder of all parts"));
        }
        if path.join(RECORD).exists() {
            found.push(path.clone());
            continue;
        }
        let within = within(path)?;
        if within.is_empty() {
            let reason = format!("holds no parts (no {RECORD}, and no folder with one); --shard i/n makes them");
            return Err(Error::file(path, reason));
        }
        found.extend(within);
    }
    Ok(found)
}
