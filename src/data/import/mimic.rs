//! The cleaned layout of MIMIC: WikiMEL, RichpediaMEL or WikiDiverse over a knowledge base, without candidate lists.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::document::Document;
use super::draft::{About, Draft, DraftEntity, DraftMention};
use super::images::ImageSource;
use super::record::{Sentence, each, not_empty, title};
use super::source::Source;
use super::{Description, Published};
use crate::error::{Error, Result};

/// An entity of `kb_entity.json`.
#[derive(Deserialize)]
struct KbEntity {
    id: u64,
    qid: String,
    entity_name: String,
    #[serde(default)]
    attr: Option<String>,
    #[serde(default)]
    desc: Option<String>,
    #[serde(default)]
    image_list: Vec<String>,
}

/// Prefixes of the files of mentions, and what the paper says of the dataset.
const PREFIXES: [(&str, Option<Published>); 3] =
    [("WIKIMEL_", Some(Published::WIKIMEL)), ("RichpediaMEL_", None), ("wiki_diverse_", Some(Published::WIKIDIVERSE))];

/// Reads the folder.
pub fn read(source: &mut Source) -> Result<Draft> {
    let kb = source.need(&["kb_entity.json"])?;
    let present = |prefix: &str| {
        ["train", "dev", "test"].iter().any(|s| source.folder.join(format!("{prefix}{s}.json")).exists())
    };
    let (prefix, published) = PREFIXES.into_iter().find(|(prefix, _)| present(prefix)).unwrap_or(PREFIXES[0]);
    let splits = source.splits("dev", |split| format!("{prefix}{split}.json"))?;
    let mut draft = Draft::new(About { published, ..About::default() });
    read_entities(source, &kb, &mut draft)?;
    let images = source.images(&source.settings.mention_images, &["mention_image", "mention_images"])?;
    for (split, path) in splits {
        let document = Document::open(&path)?;
        each(source, &document, document.list::<Sentence>()?, |_, mut record| {
            let link = record.only_link("KGMEL's regrouped files are imported by `fissfuse import kgmel`")?;
            if link.answer.eq_ignore_ascii_case("nil") {
                draft.count("mentions of entities outside the knowledge base (NIL) left out");
                return Ok(());
            }
            let image = record.jpeg().zip(images.as_ref());
            let id = draft.free_id(split, &record.id.text());
            draft.mention(
                split,
                DraftMention {
                    id,
                    mention: link.mention,
                    sentence: record.sentence,
                    image: image
                        .map_or(ImageSource::None, |(name, folder)| ImageSource::Files(vec![folder.join(name)])),
                    candidates: Vec::new(),
                    gold: link.answer,
                },
            )
        })?;
    }
    Ok(draft)
}

fn read_entities(source: &mut Source, kb: &Path, draft: &mut Draft) -> Result<()> {
    let ids: Option<HashMap<String, u64>> = match source.find(&["qid2id.json"])? {
        Some(path) => Some(Document::open(&path)?.dictionary()?.into_iter().collect()),
        None => None,
    };
    let images = source.images(&source.settings.entity_images, &["kb_image", "kb_images"])?;
    let description = source.settings.description;
    let document = Document::open(kb)?;
    let mut count = 0;
    each(source, &document, document.list::<KbEntity>()?, |_, entity| {
        if let Some(other) = ids.as_ref().and_then(|ids| ids.get(&entity.qid)).filter(|&&id| id != entity.id) {
            let (qid, id) = (&entity.qid, entity.id);
            return Err(format!(
                "entity `{qid}` has id {id} here and {other} in qid2id.json; are they of one release?"
            ));
        }
        let text = match description {
            Description::Attributes => entity.attr,
            Description::Brief => entity.desc,
        };
        let files = |folder: &PathBuf| entity.image_list.iter().map(|name| folder.join(name)).collect();
        count += 1;
        draft.entity(DraftEntity {
            qid: entity.qid,
            name: title(&entity.entity_name),
            description: text.unwrap_or_default(),
            image: images.as_ref().map_or(ImageSource::None, |folder| ImageSource::Files(files(folder))),
        })
    })?;
    not_empty(count, source, "entity in kb_entity.json")?;
    match ids.into_iter().flatten().find(|(qid, _)| !draft.has(qid)) {
        Some((qid, _)) => {
            let reason = format!("lacks entity `{qid}` of qid2id.json; is one of the two files of another release?");
            source.skip(Error::file(kb, reason))
        }
        None => Ok(()),
    }
}
