//! WikiMEL in DRIN's raw layout, with its lists of 100 candidates.

use std::collections::HashMap;

use serde_json::Value;

use super::document::Document;
use super::draft::{About, Draft, DraftEntity, DraftMention};
use super::images::ImageSource;
use super::record::{Sentence, each, not_empty};
use super::source::Source;
use super::{Description, Published};
use crate::data::record_error;
use crate::error::Result;
use crate::files;

/// Reads the folder, or the folder `wikimel` in it.
pub fn read(source: &mut Source) -> Result<Draft> {
    let outer = source.folder.clone();
    source.enter("wikimel");
    let default = [&source.folder, &outer].map(|folder| folder.join("default.jpg"));
    let parent = outer.parent().map(|folder| folder.join("default.jpg"));
    let mut draft = Draft::new(About {
        list_length: 100,
        published: Some(Published::WIKIMEL),
        default_image: default.into_iter().chain(parent).find(|path| path.is_file()),
        smallest_side: 50,
    });
    // Splits first: a folder of another format is told by them.
    let splits = source.splits("valid", |split| format!("mentions/WIKIMEL_{split}.json"))?;
    read_entities(source, &mut draft)?;
    let candidates = read_candidates(source)?;
    draft.about.list_length *= candidates.is_some() as usize;
    let images = source.images(&source.settings.mention_images, &["mentions/KVQAimgs"])?;
    for (split, path) in splits {
        let document = Document::open(&path)?;
        each(source, &document, document.object::<Sentence>()?, |key, mut record| {
            let link = record.only_link("MELBench's file is imported by `fissfuse import melbench`")?;
            let image = images.as_ref().filter(|_| !record.image.is_empty()).map(|folder| {
                // `46351-0` is a mention of image 46351.
                ImageSource::Stem(folder.join(key.split('-').next().unwrap_or(key)))
            });
            let list = match &candidates {
                Some(lists) => lists.get(key).cloned().ok_or_else(|| {
                    format!("mention `{key}` has no line in candidates-answer.tsv; remove it here or add it there")
                })?,
                None => Vec::new(),
            };
            draft.mention(
                split,
                DraftMention {
                    id: key.to_string(),
                    mention: link.mention,
                    sentence: record.sentence,
                    image: image.unwrap_or(ImageSource::None),
                    candidates: list,
                    gold: link.answer,
                },
            )
        })?;
    }
    Ok(draft)
}

/// All entities that have a name, with their texts and images.
fn read_entities(source: &mut Source, draft: &mut Draft) -> Result<()> {
    let path = source.need(&["candidates/qid2ne.json", "qid2ne.json", "entities/qid2ne.json"])?;
    let texts = match source.settings.description {
        Description::Attributes => ["entities/qid2abs.json", "qid2abs.json"],
        Description::Brief => ["entities/qid2brief.json", "qid2brief.json"],
    };
    let texts: HashMap<String, Value> = match source.find(&texts)? {
        Some(path) => Document::open(&path)?.dictionary()?.into_iter().collect(),
        None => HashMap::new(),
    };
    // Some values are no strings: DRIN casts whatever it finds.
    let text = |qid: &str| match texts.get(qid) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let images = source.images(&source.settings.entity_images, &["entities/cleaned-images"])?;
    let document = Document::open(&path)?;
    let mut count = 0;
    each(source, &document, document.object::<String>()?, |qid, name| {
        let image = images.as_ref().map_or(ImageSource::None, |folder| ImageSource::Stem(folder.join(qid)));
        count += 1;
        draft.entity(DraftEntity { qid: qid.to_string(), name, description: text(qid), image })
    })?;
    not_empty(count, source, "entity in qid2ne.json")
}

/// The list of each mention: a line holds the mention's key and its candidates, separated by tabs.
fn read_candidates(source: &mut Source) -> Result<Option<HashMap<String, Vec<String>>>> {
    const FILE: &str = "candidates/top100/candidates-answer.tsv";
    let Some(path) = source.find(&[FILE, "candidates-answer.tsv"])? else {
        return Ok(None);
    };
    let mut lists = HashMap::new();
    for (i, line) in files::read_text(&path)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut fields = line.split('\t').map(str::trim).filter(|field| !field.is_empty());
        let key = fields.next().unwrap_or_default().to_string();
        let list: Vec<String> = fields.map(str::to_string).collect();
        let reason = match (list.is_empty(), lists.contains_key(&key)) {
            (true, _) => format!("mention `{key}` has no candidate"),
            (_, true) => format!("mention `{key}` has a line already"),
            _ => {
                lists.insert(key, list);
                continue;
            }
        };
        source.skip(record_error(&path, i + 1, reason))?;
    }
    Ok(Some(lists))
}
