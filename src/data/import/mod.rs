//! Importers: what the field publishes, read into the dataset layout (docs/importing.md).
//!
//! One file per format reads a draft of the dataset; the writer puts it on disk, whole or not at all.

mod authors;
mod bounds;
mod document;
mod draft;
mod drin_wikimel;
mod images;
mod kgmel;
mod melbench;
mod mimic;
mod published;
mod record;
mod source;
mod wikidiverse;
mod writer;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use published::Published;
use source::Source;
pub(super) use source::what_file;
pub use writer::{Imported, Note};

use super::audit::ImageCheck;
use super::{Protocol, Skipped, Tolerance};
use crate::error::Result;

/// A format that the field publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// WikiMEL as in DRIN's raw data.
    DrinWikimel,
    /// WikiDiverse with 10 candidates, as in DRIN's raw data.
    DrinWikidiverse,
    /// WikiDiverse as published: passages, no candidates.
    Wikidiverse,
    /// WikiMEL, RichpediaMEL or WikiDiverse as cleaned by MIMIC's authors.
    Mimic,
    /// WikiMEL, WikiDiverse or RichpediaMEL as KGMEL's authors regrouped MIMIC's files.
    Kgmel,
    /// Wikidata-MEL or Richpedia-MEL of MELBench.
    Melbench,
    /// The JSON lines of the FissFuse authors.
    Fissfuse,
}

impl Format {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::DrinWikimel => "drin-wikimel",
            Format::DrinWikidiverse => "drin-wikidiverse",
            Format::Wikidiverse => "wikidiverse",
            Format::Mimic => "mimic",
            Format::Kgmel => "kgmel",
            Format::Melbench => "melbench",
            Format::Fissfuse => "fissfuse",
        }
    }
}

/// Which of a format's texts becomes an entity's description.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Description {
    /// The attributes of Wikidata, which DRIN and MIMIC encode.
    #[default]
    Attributes,
    /// The introduction of the Wikipedia page, or Wikidata's description.
    Brief,
}

/// What stays together when a format without splits is split 7:2:1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SplitUnit {
    /// Nothing: mentions of one sentence may come into different splits, as in the published WikiMEL.
    #[default]
    Mention,
    /// The mentions of a sentence.
    Sentence,
}

/// How to import.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Settings {
    /// What becomes of lists without their gold entity.
    pub protocol: Protocol,
    /// Which text describes an entity.
    pub description: Description,
    /// What a split keeps together.
    pub unit: SplitUnit,
    /// Draws the split; without it, the file's order is kept.
    pub seed: Option<u64>,
    /// Of a folder with several datasets, which.
    pub dataset: Option<String>,
    /// Folder of the mentions' images, if not where the format has it.
    pub mention_images: Option<PathBuf>,
    /// Folder of the entities' images, if not where the format has it.
    pub entity_images: Option<PathBuf>,
    /// Copy images instead of hard-linking them.
    pub copy: bool,
    /// How closely images are looked at.
    pub check: ImageCheck,
    /// Take files from outside the source folder too, where its files name them or its links lead there.
    pub allow_outside: bool,
}

/// Reads `source` and writes the dataset `destination`, whole or not at all.
pub fn import(
    format: Format,
    source: &Path,
    destination: &Path,
    settings: &Settings,
    tolerance: Tolerance,
    skipped: &mut Skipped,
) -> Result<Imported> {
    let mut source = Source::open(format, source, settings, tolerance, skipped)?;
    let draft = match format {
        Format::DrinWikimel => drin_wikimel::read(&mut source),
        Format::DrinWikidiverse => wikidiverse::read_with_candidates(&mut source),
        Format::Wikidiverse => wikidiverse::read_passages(&mut source),
        Format::Mimic => mimic::read(&mut source),
        Format::Kgmel => kgmel::read(&mut source),
        Format::Melbench => melbench::read(&mut source),
        Format::Fissfuse => authors::read(&mut source),
    }?;
    writer::write(draft, format, destination, settings, &source.bounds, tolerance)
}
