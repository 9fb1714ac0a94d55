//! The FissFuse authors' own files: JSON lines, with images in HDF5.

use std::path::PathBuf;

use serde::Deserialize;

use super::Published;
use super::draft::{About, Draft, DraftEntity, DraftMention};
use super::images::ImageSource;
use super::record::not_empty;
use super::source::Source;
use crate::data::{read_records, record_error};
use crate::error::{Error, Result};

#[derive(Deserialize)]
struct AuthorsEntity {
    qid: String,
    name: String,
    #[serde(default)]
    desc: Option<String>,
}

#[derive(Deserialize)]
struct AuthorsMention {
    mention_id: String,
    mentions: String,
    sentence: String,
    #[serde(default, rename = "imgPath")]
    image: String,
    candidates: Vec<String>,
    #[serde(default, alias = "gold")]
    answer: Option<String>,
}

/// Reads the folder. A record without `answer` has its gold entity as its first candidate.
pub fn read(source: &mut Source) -> Result<Draft> {
    let (prefix, published, list_length) = match source.find(&["WIKIDIVERSE_train.jsonl", "WIKIDIVERSE_test.jsonl"])? {
        Some(_) => ("WIKIDIVERSE", Published::WIKIDIVERSE, 10),
        None => ("WIKIMEL", Published::WIKIMEL, 100),
    };
    let splits = source.splits("valid", |split| format!("{prefix}_{split}.jsonl"))?;
    let entities = source.need(&["entities.jsonl"])?;
    let settings = source.settings;
    let folders = [
        source.images(&settings.mention_images, &["mention_image"])?,
        source.images(&settings.entity_images, &["entity_image"])?,
    ];
    if let (Some(file), [None, None]) = (source.find(&["wikimel_image.h5", "image.h5py"])?, &folders) {
        let reason = "holds the images as HDF5; unpack it as docs/importing.md shows, so that mention_image/ and \
                      entity_image/ stand beside it";
        return Err(Error::file(file, reason));
    }
    let [mention_images, entity_images] = folders;
    let stem = |folder: &Option<PathBuf>, name: &str| match (folder, name) {
        (Some(folder), name) if !name.is_empty() => ImageSource::Stem(folder.join(name)),
        _ => ImageSource::None,
    };
    let mut draft = Draft::new(About { published: Some(published), list_length, ..About::default() });
    let mut count = 0;
    for (line, record) in read_records::<AuthorsEntity>(&entities)? {
        let added = record.and_then(|AuthorsEntity { qid, name, desc }| {
            count += 1;
            let image = stem(&entity_images, &qid);
            let entity = DraftEntity { qid, name, description: desc.unwrap_or_default(), image };
            draft.entity(entity).map_err(|reason| record_error(&entities, line, reason))
        });
        added.or_else(|error| source.skip(error))?;
    }
    not_empty(count, source, "entity in entities.jsonl")?;
    for (split, path) in splits {
        for (line, record) in read_records::<AuthorsMention>(&path)? {
            let added = record.and_then(|record| {
                let name = record.image.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or_default();
                let gold = record.answer.or_else(|| record.candidates.first().cloned()).unwrap_or_default();
                let mention = DraftMention {
                    image: stem(&mention_images, name),
                    id: record.mention_id,
                    mention: record.mentions,
                    sentence: record.sentence,
                    candidates: record.candidates,
                    gold,
                };
                draft.mention(split, mention).map_err(|reason| record_error(&path, line, reason))
            });
            added.or_else(|error| source.skip(error))?;
        }
    }
    Ok(draft)
}
