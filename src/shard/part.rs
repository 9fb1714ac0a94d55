//! A part while it is made, and the record of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::Xxh3;

use super::Shard;
use crate::error::{Error, Result};
use crate::files;

/// Name of the record in a part's folder.
pub(super) const RECORD: &str = "part.json";

/// Version of the record.
const FORMAT: u32 = 1;

/// What a result depends on, by name: parts of one run agree in all of it.
pub type Run = Map<String, Value>;

/// A part's share of some items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Number of the first.
    pub from: usize,
    /// Number behind the last.
    pub to: usize,
    /// How many there are.
    pub of: usize,
}

/// A file as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksummed {
    bytes: u64,
    checksum: String,
}

/// What a part is a part of, and what it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the record.
    pub format: u32,
    /// The command whose work it is.
    pub command: String,
    /// Its number, from 1.
    pub part: usize,
    /// Number of all parts.
    pub of: usize,
    /// Whether all of it was done.
    pub finished: bool,
    /// What the result depends on.
    pub run: Run,
    /// Its share of each kind of item.
    pub shares: BTreeMap<String, Share>,
    /// What was written for it, by name.
    pub files: BTreeMap<String, Checksummed>,
    /// What is to be joined beside the files, as the command likes.
    pub result: Value,
}

/// Hash of what a reader gives until its end, read piece by piece.
pub fn checksum_of(reader: &mut impl Read) -> io::Result<String> {
    let (mut hash, mut piece) = (Xxh3::new(), vec![0; 1 << 20]);
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(format!("{:032x}", hash.digest128())),
            n => hash.update(&piece[..n]),
        }
    }
}

impl Checksummed {
    /// A file as it is, read piece by piece.
    pub fn of(path: &Path) -> Result<Checksummed> {
        files::expect_regular(path)?;
        let mut file = fs::File::open(path).map_err(Error::io(path, "open"))?;
        let bytes = file.metadata().map_err(Error::io(path, "read"))?.len();
        Ok(Checksummed { bytes, checksum: checksum_of(&mut file).map_err(Error::io(path, "read"))? })
    }
}

impl Record {
    /// Reads the record in a part's folder.
    pub(super) fn read(folder: &Path) -> Result<Record> {
        let path = folder.join(RECORD);
        let text = files::read_text(&path)?;
        let value: Value = serde_json::from_str(&text).map_err(|e| no_record(&path, e))?;
        match value["format"].as_u64() {
            Some(format) if format != u64::from(FORMAT) => {
                Err(Error::file(&path, format!("has format {format}, this version reads {FORMAT}; make the part anew")))
            }
            _ => serde_json::from_value(value).map_err(|e| no_record(&path, e)),
        }
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(RECORD);
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(&path, e.to_string()))?;
        files::write_whole(&path, |out| writeln!(out, "{text}"))
    }

    /// Names the first thing in which another part's run differs.
    pub(super) fn difference(&self, other: &Record) -> Option<String> {
        // Of two objects, the first entry that differs.
        fn differs(what: &str, own: &Value, others: &Value) -> String {
            if let (Value::Object(a), Value::Object(b)) = (own, others)
                && let Some(key) = a.keys().chain(b.keys()).find(|key| a.get(*key) != b.get(*key))
            {
                let value = |of: &Map<String, Value>| of.get(key).cloned().unwrap_or_default();
                return differs(&format!("{what}.{key}"), &value(a), &value(b));
            }
            format!("{what} is {own} here and {others} there")
        }
        if self.command != other.command {
            return Some(format!("it is of `{}`, and the other of `{}`", self.command, other.command));
        }
        if self.of != other.of {
            return Some(format!("it is one of {} parts, and the other one of {}", self.of, other.of));
        }
        let names = self.run.keys().chain(other.run.keys());
        let value = |run: &'_ Run, name: &str| run.get(name).cloned().unwrap_or_default();
        let mut names = names.map(|name| (name, value(&self.run, name), value(&other.run, name)));
        names.find(|(_, own, others)| own != others).map(|(name, own, others)| differs(name, &own, &others))
    }
}

/// Whether a part's folder holds its record and nothing else.
fn is_empty_but_for_record(folder: &Path) -> Result<bool> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder, "read"))? {
        if entry.map_err(Error::io(folder, "read"))?.file_name() != RECORD {
            return Ok(false);
        }
    }
    Ok(true)
}

fn no_record(path: &Path, error: serde_json::Error) -> Error {
    Error::file(path, format!("is no record of a part ({error}); make the part anew"))
}

/// A part that is being made.
#[derive(Debug)]
pub struct Part {
    folder: PathBuf,
    shard: Shard,
    record: Record,
}

impl Part {
    /// Begins a part of a command's work in its folder within `out`, or begins it again. Until it is finished, nobody takes it
    /// for one.
    ///
    /// Fails if parts of another run lie there.
    pub fn begin(out: &Path, command: &str, shard: Shard, run: Run) -> Result<Part> {
        let record = Record {
            format: FORMAT,
            command: command.to_string(),
            part: shard.index(),
            of: shard.count(),
            finished: false,
            run,
            shares: BTreeMap::new(),
            files: BTreeMap::new(),
            result: Value::Null,
        };
        files::create_folder(out)?;
        for there in super::parts::within(out)? {
            // Of a part that is written at this moment, nothing is known yet.
            let Ok(other) = Record::read(&there) else { continue };
            // One that was begun and wrote nothing, such as one that was refused, is nobody's loss.
            if !other.finished && is_empty_but_for_record(&there)? {
                continue;
            }
            if let Some(difference) = record.difference(&other) {
                let reason = format!("{} is of another run: {difference}", there.display());
                return Err(Error::file(out, format!("{reason}; remove it, or choose another --out")));
            }
        }
        let part = Part { folder: out.join(shard.folder()), shard, record };
        files::create_folder(&part.folder)?;
        part.record.write(&part.folder)?;
        Ok(part)
    }

    /// Where what is written for it goes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its share of so many items, which begins at a multiple of `unit`.
    pub fn share(&mut self, what: &str, items: usize, unit: usize) -> std::ops::Range<usize> {
        let range = self.shard.range(items, unit);
        self.record.shares.insert(what.to_string(), Share { from: range.start, to: range.end, of: items });
        range
    }

    /// Notes that all of it is done: these files are there, and this is to be joined beside them.
    pub fn finish(mut self, files: &[String], result: Value) -> Result<PathBuf> {
        for name in files {
            self.record.files.insert(name.clone(), Checksummed::of(&self.folder.join(name))?);
        }
        (self.record.result, self.record.finished) = (result, true);
        self.record.write(&self.folder)?;
        Ok(self.folder)
    }
}
