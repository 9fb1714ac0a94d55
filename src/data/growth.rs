//! A knowledge base that grows: new entities are encoded and appended, and nothing is done again.

use std::collections::HashSet;
use std::path::Path;

use indicatif::ProgressBar;

use super::dataset::check_entity;
use super::encoding::{EncodeReport, EncodeSettings, Items, encode};
use super::store::Manifest;
use super::{Dataset, Entity, Skipped, Tolerance, parse_records, record_error};
use crate::encoder::Encoders;
use crate::error::{Error, Result};
use crate::files;

/// Encodes the entities of `file` into the store in `features`, as its manifest says, and appends them to the dataset's
/// `entities.jsonl`. Gives their number. After a kill, the same call goes on: features are written first, and those that
/// are there are not made again.
pub fn add_entities(
    (dataset, file): (&Dataset, &Path),
    encoders: &Encoders,
    features: &Path,
    tolerance: Tolerance,
    skipped: &mut Skipped,
    bar: &ProgressBar,
) -> Result<(usize, EncodeReport)> {
    let settings = EncodeSettings::of(&Manifest::read(features)?);
    let entities = read_new(dataset, file, tolerance, skipped)?;
    let new = Items { root: dataset.root(), entities: &entities, mentions: Vec::new(), part: None };
    let report = encode(&new, encoders, &settings, features, tolerance, skipped, bar)?;
    let path = dataset.root().join("entities.jsonl");
    let there = files::read(&path)?;
    files::write_whole(&path, |out| {
        out.write_all(&there)?;
        if there.last().is_some_and(|&byte| byte != b'\n') {
            out.write_all(b"\n")?;
        }
        for entity in &entities {
            serde_json::to_writer(&mut *out, entity)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })?;
    Ok((entities.len(), report))
}

fn read_new(dataset: &Dataset, file: &Path, tolerance: Tolerance, skipped: &mut Skipped) -> Result<Vec<Entity>> {
    let (mut entities, mut seen) = (Vec::new(), HashSet::new());
    for (line, record) in parse_records::<Entity>(file, &files::read_text_or_stream(file)?) {
        let checked = record.and_then(|entity| check_entity(entity).map_err(|r| record_error(file, line, r)));
        match checked {
            Ok(entity) if dataset.entity(&entity.qid).is_none() && seen.insert(entity.qid.clone()) => {
                entities.push(entity)
            }
            Ok(entity) => {
                let reason = format!("entity `{}` is in the knowledge base already", entity.qid);
                skipped.take(tolerance, record_error(file, line, reason))?;
            }
            Err(error) => skipped.take(tolerance, error)?,
        }
    }
    if entities.is_empty() {
        return Err(Error::file(file, "holds no new entity"));
    }
    Ok(entities)
}
