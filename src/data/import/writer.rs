//! Putting what an importer read on disk.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::bounds::{Bounds, outside};
use super::draft::{About, Draft};
use super::images::{ImageSource, Resolved, Shelf, bring};
use super::{Format, Published, Settings};
use crate::data::audit::{ImageCheck, Loaded, Statistics};
use crate::data::{Entity, MentionRecord, Split, Tolerance};
use crate::error::Result;
use crate::files;

/// Most examples of a note.
const EXAMPLES: usize = 3;

/// The image that a format puts in the place of bad ones, where it has one.
const DEFAULT_IMAGE: &str = "images/default.jpg";

/// Something that was counted on the way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Note {
    /// What it is.
    pub what: String,
    /// How often it came.
    pub count: usize,
    /// Some that it befell.
    pub examples: Vec<String>,
}

/// What an import did.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Counts of what was written.
    pub statistics: Statistics,
    /// What the importer decided.
    pub notes: Vec<Note>,
    /// What the paper says about this dataset.
    pub published: Option<Published>,
    /// The stand-in for bad images that the format brought along.
    pub default_image: Option<&'static str>,
}

/// Writes the dataset, whole or not at all.
pub fn write(
    draft: Draft,
    format: Format,
    destination: &Path,
    settings: &Settings,
    bounds: &Bounds,
    tolerance: Tolerance,
) -> Result<Imported> {
    let takes = Takes { settings, bounds, tolerance };
    files::write_folder_whole(destination, |root| fill(draft, format, root, &takes))
}

/// Which images are taken, and from where.
struct Takes<'a> {
    settings: &'a Settings,
    bounds: &'a Bounds,
    tolerance: Tolerance,
}

fn fill(draft: Draft, format: Format, root: &Path, takes: &Takes) -> Result<Imported> {
    let settings = takes.settings;
    let About { list_length, published, default_image, smallest_side } = draft.about.clone();
    let (entities, mentions, counts) = draft.into_parts();
    let mut notes = Notes::default();
    for (what, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        notes.0.insert(what.to_string(), (count, Vec::new()));
    }

    let mut shelf = Gallery::new(root, "entities", takes, smallest_side);
    let images = shelf.take(entities.iter().map(|e| (e.qid.as_str(), &e.image)), &mut notes)?;
    let lines = entities.into_iter().zip(images).map(|(entity, image)| {
        let (qid, name, description) = (entity.qid, entity.name, entity.description);
        Entity { qid, name, description, image }
    });
    write_lines(&root.join("entities.jsonl"), lines)?;

    let mut shelf = Gallery::new(root, "mentions", takes, smallest_side);
    for (split, mentions) in Split::ALL.into_iter().zip(mentions).filter(|(_, mentions)| !mentions.is_empty()) {
        let images = shelf.take(mentions.iter().map(|m| (m.id.as_str(), &m.image)), &mut notes)?;
        let lines = mentions.into_iter().zip(images).map(|(mention, image)| {
            let mut candidates = mention.candidates;
            if list_length > 0 && !candidates.contains(&mention.gold) {
                notes.add(&format!("lists of {split} without their gold entity, as retrieved"), &mention.id);
                settings.protocol.apply(&mut candidates, mention.gold.clone(), list_length);
            }
            MentionRecord {
                mention_id: mention.id,
                mention: mention.mention,
                sentence: mention.sentence,
                image,
                candidates: (list_length > 0).then_some(candidates),
                gold: Some(mention.gold),
            }
        });
        write_lines(&root.join(split.file()), lines)?;
    }
    let default_image = match default_image {
        Some(file) => {
            files::create_folder(&root.join("images"))?;
            takes.bounds.check(&file)?;
            bring(&file, &root.join(DEFAULT_IMAGE), settings.copy)?;
            Some(DEFAULT_IMAGE)
        }
        None => None,
    };
    let notes = notes.finish();
    let about = json!({"format": format, "settings": settings, "notes": notes, "version": env!("CARGO_PKG_VERSION")});
    files::write_whole(&root.join("import.json"), |out| writeln!(out, "{about:#}"))?;
    let statistics = Statistics::of(&Loaded::read(root)?, ImageCheck::None);
    Ok(Imported { statistics, notes, published, default_image })
}

fn write_lines<T: Serialize>(path: &Path, lines: impl Iterator<Item = T>) -> Result<()> {
    files::write_whole(path, |out| {
        for line in lines {
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Notes that grow.
#[derive(Default)]
struct Notes(BTreeMap<String, (usize, Vec<String>)>);

impl Notes {
    fn add(&mut self, what: &str, example: &str) {
        let (count, examples) = match self.0.get_mut(what) {
            Some(note) => note,
            None => self.0.entry(what.to_string()).or_default(),
        };
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example.to_string());
        }
    }

    fn finish(self) -> Vec<Note> {
        self.0.into_iter().map(|(what, (count, examples))| Note { what, count, examples }).collect()
    }
}

/// The images of one kind of item.
struct Gallery<'a> {
    shelf: Shelf,
    of: &'static str,
    takes: &'a Takes<'a>,
    smallest_side: u32,
}

impl Gallery<'_> {
    fn new<'a>(root: &Path, of: &'static str, takes: &'a Takes, smallest_side: u32) -> Gallery<'a> {
        Gallery { shelf: Shelf::new(root, of, takes.settings.copy), of, takes, smallest_side }
    }

    /// Finds each item's image and brings it in; notes those that are not there or bad.
    fn take<'i>(
        &mut self,
        items: impl Iterator<Item = (&'i str, &'i ImageSource)>,
        notes: &mut Notes,
    ) -> Result<Vec<Option<String>>> {
        let items: Vec<(&str, &ImageSource)> = items.collect();
        let Takes { settings, bounds, tolerance } = *self.takes;
        let side = self.smallest_side;
        let resolve = |(_, source): &(&str, &ImageSource)| source.resolve(settings.check, side, bounds);
        let resolved: Vec<Resolved> = items.par_iter().map(resolve).collect();
        let mut images = Vec::with_capacity(items.len());
        for ((id, _), resolved) in items.into_iter().zip(resolved) {
            let bad = match resolved {
                Resolved::File(file) => {
                    images.push(Some(self.shelf.place(&file)?));
                    continue;
                }
                Resolved::None => {
                    images.push(None);
                    continue;
                }
                Resolved::Outside(file) if tolerance == Tolerance::Strict => return Err(outside(&file)),
                Resolved::Outside(_) => "image lies outside the source",
                Resolved::Missing => "image is missing",
                Resolved::Unreadable => "image is unreadable",
                Resolved::Small => "image is too small",
            };
            notes.add(&format!("{}: {bad}", self.of), id);
            images.push(None);
        }
        Ok(images)
    }
}
