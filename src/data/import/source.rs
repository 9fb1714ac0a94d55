//! A folder that somebody published: finding its files, and saying what it is if not what was asked for.

use std::path::{Path, PathBuf};

use super::bounds::Bounds;
use super::{Format, Settings};
use crate::data::{Skipped, Split, Tolerance};
use crate::error::{Error, Result};
use crate::files;
use crate::foreign::no_text;
use crate::printable::command_line;

/// Files by which a format is recognised, in the order in which they are tried.
const MARKS: [(&str, Format); 12] = [
    ("mentions/WIKIMEL_train.json", Format::DrinWikimel),
    ("candidates/test_w_10cands.json", Format::DrinWikidiverse),
    ("test_w_10cands.json", Format::DrinWikidiverse),
    ("kb_entity.json", Format::Mimic),
    ("mapping/ids_split_mappings.json", Format::Kgmel),
    ("dataset/mapping/ids_split_mappings.json", Format::Kgmel),
    ("data/dataset/mapping/ids_split_mappings.json", Format::Kgmel),
    ("Wikidata-MEL.json", Format::Melbench),
    ("Richpedia-MEL.json", Format::Melbench),
    ("WIKIMEL_train.jsonl", Format::Fissfuse),
    ("WIKIDIVERSE_train.jsonl", Format::Fissfuse),
    ("mentions/train.json", Format::Wikidiverse),
];

/// Endings of archives.
const ARCHIVES: [&str; 7] = ["zip", "gz", "tgz", "tar", "bz2", "xz", "7z"];

/// What is imported, and how.
pub struct Source<'a> {
    pub folder: PathBuf,
    pub settings: &'a Settings,
    /// Where files may lie.
    pub bounds: Bounds,
    format: Format,
    tolerance: Tolerance,
    skipped: &'a mut Skipped,
}

impl<'a> Source<'a> {
    /// Opens the folder of a dataset, or the folder of a file in it.
    pub fn open(
        format: Format,
        path: &Path,
        settings: &'a Settings,
        tolerance: Tolerance,
        skipped: &'a mut Skipped,
    ) -> Result<Source<'a>> {
        let metadata = std::fs::metadata(path).map_err(Error::io(path, "read"));
        let metadata =
            metadata.map_err(|e| e.if_missing("give the folder of a published dataset (docs/importing.md)"))?;
        if !metadata.is_dir() {
            return Err(Error::file(path, what_file(path)));
        }
        // What some formats keep beside the folder; links by these names may lead anywhere, and are not followed.
        let beside = match format {
            Format::Kgmel => Some("KB"),
            Format::DrinWikimel | Format::DrinWikidiverse => Some("default.jpg"),
            _ => None,
        };
        let around = path.canonicalize().map_err(Error::io(path, "read"))?;
        let beside = beside.and_then(|name| Some(around.parent()?.join(name)));
        let named = [&settings.mention_images, &settings.entity_images].into_iter().flatten().map(PathBuf::as_path);
        let bounds = Bounds::new(named.chain([path]), beside, settings.allow_outside);
        Ok(Source { folder: path.to_path_buf(), settings, bounds, format, tolerance, skipped })
    }

    /// Goes into a folder of that name, if there is one: some archives hold several datasets.
    pub fn enter(&mut self, name: &str) {
        let inner = self.folder.join(name);
        if inner.is_dir() {
            self.folder = inner;
        }
    }

    /// The first of these files that exists; it must lie within the bounds.
    pub fn find(&self, names: &[&str]) -> Result<Option<PathBuf>> {
        let found = names.iter().map(|name| self.folder.join(name)).find(|path| path.exists());
        found.map(|path| self.bounds.check(&path).map(|()| path)).transpose()
    }

    /// The first of these files; an error says what stands in its place.
    pub fn need(&self, names: &[&str]) -> Result<PathBuf> {
        self.find(names)?.ok_or_else(|| self.lacks(names))
    }

    /// The error that none of these files is there; says what stands in their place.
    pub fn lacks(&self, names: &[&str]) -> Error {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        // Archives often unpack into a folder of their own.
        let inner = entries.map(|entry| entry.path()).find(|inner| names.iter().any(|name| inner.join(name).exists()));
        let instead = inner.map_or_else(|| self.instead(), |inner| format!("; give the folder {}", inner.display()));
        Error::file(&self.folder, format!("has no {}{instead}", names.join(" or ")))
    }

    /// The files of the splits, of which one at least must exist; `name` makes a file's name of a split's.
    pub fn splits(&self, valid: &str, name: impl Fn(&str) -> String) -> Result<Vec<(Split, PathBuf)>> {
        let names = ["train", valid, "test"].map(name);
        self.need(&[&names[0], &names[1], &names[2]])?;
        let files = Split::ALL.into_iter().zip(names.iter().map(|name| self.folder.join(name)));
        let files = files.filter(|(_, path)| path.exists());
        files.map(|(split, path)| self.bounds.check(&path).map(|()| (split, path))).collect()
    }

    /// A folder of images: the one the user names, or the first of these that exists.
    pub fn images(&self, named: &Option<PathBuf>, names: &[&str]) -> Result<Option<PathBuf>> {
        if named.is_some() { Ok(named.clone()) } else { self.find(names) }
    }

    /// Stops at an error, or notes it and goes on.
    pub fn skip(&mut self, error: Error) -> Result<()> {
        self.skipped.take(self.tolerance, error)
    }

    /// What the folder seems to hold instead.
    fn instead(&self) -> String {
        let other = |(mark, format): &(&str, Format)| *format != self.format && self.folder.join(mark).exists();
        if let Some((mark, format)) = MARKS.iter().find(|mark| other(mark)) {
            let folder = self.folder.display().to_string();
            let command = command_line(["fissfuse", "import", format.name(), &folder, "DST"]);
            return format!("; its {mark} is of another format: `{command}`");
        }
        if self.folder.join("entities.jsonl").exists() && self.folder.join("train.jsonl").exists() {
            return "; it is in fissfuse's own layout already, and needs no import".into();
        }
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let found = entries.map(|entry| entry.path()).find_map(|path| advice(&path).map(|what| (path, what)));
        let named = |(path, what): (PathBuf, &str)| {
            format!("; {} {what}", path.file_name().unwrap_or_default().to_string_lossy())
        };
        found.map_or("; see docs/importing.md for the files of each format".into(), named)
    }
}

/// What to do with a file that nobody can import as it is, by its ending.
fn advice(path: &Path) -> Option<&'static str> {
    let ending = path.extension()?.to_str()?.to_lowercase();
    match ending.as_str() {
        _ if ARCHIVES.contains(&ending.as_str()) => Some("is an archive; unpack it and give the folder"),
        "mp4" => Some(
            "is one of DRIN's archives in disguise; restore it with DRIN's dataset/data_tools.py, unpack it and \
             import the folder",
        ),
        "npy" => Some("is a preprocessed feature of DRIN, of which no text can be made; import DRIN's raw data"),
        "h5" | "h5py" | "hdf5" => Some("is HDF5 and holds images only; the text lies in JSON files beside it"),
        _ => None,
    }
}

/// What a file is that stands where a folder is due.
pub fn what_file(path: &Path) -> String {
    let mut head = [0; 16];
    let regular = files::expect_regular(path).is_ok();
    let file = if regular { std::fs::File::open(path).ok() } else { None };
    let read = file.and_then(|mut file| std::io::Read::read(&mut file, &mut head).ok()).unwrap_or(0);
    let by_content = no_text(&head[..read]);
    let what = advice(path).or(by_content).unwrap_or("is a file; give the folder that holds the dataset");
    what.to_string()
}
