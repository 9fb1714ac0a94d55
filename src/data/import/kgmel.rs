//! KGMEL: MIMIC's datasets with all mentions of an image in one record, and the splits in a file of their own.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Published;
use super::document::{Document, Record};
use super::draft::{About, Draft, DraftEntity, DraftMention};
use super::images::ImageSource;
use super::record::{Id, Link, Sentence, each, not_empty, title};
use super::source::Source;
use crate::data::{Split, record_error};
use crate::error::{Error, Result};
use crate::files;

/// The published datasets, and what the paper says of them.
const DATASETS: [(&str, Option<Published>); 3] =
    [("WikiMEL", Some(Published::WIKIMEL)), ("WikiDiverse", Some(Published::WIKIDIVERSE)), ("RichpediaMEL", None)];

/// The records of each split of a dataset, in `mapping/ids_split_mappings.json`.
#[derive(Deserialize)]
struct Splits {
    #[serde(default)]
    train: Vec<Id>,
    #[serde(default, alias = "valid", alias = "dev")]
    val: Vec<Id>,
    #[serde(default)]
    test: Vec<Id>,
}

/// Reads a dataset of the repository, whose folder `data/dataset` is the source, or lies in it.
pub fn read(source: &mut Source) -> Result<Draft> {
    source.enter("data");
    source.enter("dataset");
    let (name, path) = dataset(source)?;
    let splits = read_splits(source, &name)?;
    let published = DATASETS.iter().find(|(known, _)| *known == name).and_then(|(_, published)| *published);
    let mut draft = Draft::new(About { published, ..About::default() });
    let mut knowledge = Knowledge::read(source, &name, &mut draft)?;
    let blank = mapping::<Vec<Id>>(source, "ids_blank_image.json", &name)?.unwrap_or_default();
    let blank: HashSet<String> = blank.iter().map(Id::text).collect();
    let images = source.images(&source.settings.mention_images, &[&format!("image/{name}")])?;
    let (mut seen, mut count) = (HashSet::new(), 0);
    let document = Document::open(&path)?;
    each(source, &document, document.list::<Sentence>()?, |_, mut record| {
        let id = record.id.text();
        if !seen.insert(id.clone()) {
            return Err(format!("record `{id}` is there already"));
        }
        let links = record.links()?;
        let split = match splits.get(&id) {
            Some(Some(split)) => *split,
            // The error about its splits says so.
            Some(None) => return Ok(()),
            None => {
                draft.count("records of no split left out");
                return Ok(());
            }
        };
        let blank = blank.contains(&id);
        let image = match (record.jpeg(), &images) {
            (Some(name), Some(folder)) if !blank => ImageSource::Files(vec![folder.join(name)]),
            _ => ImageSource::None,
        };
        let alone = links.len() == 1;
        // One bad mention does not take the record's others with it.
        let add = |(i, link): (usize, Link)| {
            if link.answer.trim().is_empty() || link.answer.eq_ignore_ascii_case("nil") {
                draft.count("mentions of entities outside the knowledge base (NIL) left out");
                return Ok(());
            }
            if blank {
                draft.count("mentions whose image is known to be blank");
            }
            count += 1;
            knowledge.require(&link, &mut draft)?;
            draft.mention(
                split,
                DraftMention {
                    id: if alone { id.clone() } else { format!("{id}-{i}") },
                    mention: link.mention,
                    sentence: record.sentence.clone(),
                    image: image.clone(),
                    candidates: Vec::new(),
                    gold: link.answer,
                },
            )
        };
        let added: Vec<Result<(), String>> = links.into_iter().enumerate().map(add).collect();
        added.into_iter().collect()
    })?;
    not_empty(count, source, "mention of a record that a split names")?;
    let absent = splits.keys().filter(|id| !seen.contains(*id)).count();
    (0..absent).for_each(|_| draft.count("identifiers of splits without a record"));
    Ok(draft)
}

/// Name and file of the dataset: the one that the user names, or the only one that is there.
fn dataset(source: &Source) -> Result<(String, PathBuf)> {
    let file = |name: &str| format!("{name}.json");
    let there = |name: &&str| source.folder.join(file(name)).exists();
    let names: Vec<&str> = match &source.settings.dataset {
        Some(name) => vec![name],
        None => DATASETS.iter().map(|(name, _)| *name).filter(there).collect(),
    };
    match names[..] {
        [name] => Ok((name.to_string(), source.need(&[&file(name)])?)),
        [] => {
            let names = DATASETS.map(|(name, _)| file(name));
            Err(source.lacks(&names.each_ref().map(String::as_str)))
        }
        _ => Err(Error::file(&source.folder, format!("holds {}: name one of them by --dataset", names.join(", ")))),
    }
}

/// The split of each record; none for records that stand in two, which is an error that may be skipped.
fn read_splits(source: &mut Source, name: &str) -> Result<HashMap<String, Option<Split>>> {
    const FILE: &str = "ids_split_mappings.json";
    let path = source.need(&[&format!("mapping/{FILE}"), FILE])?;
    let found = mapping::<Splits>(source, FILE, name)?;
    let ids = found.map_or(Default::default(), |Splits { train, val, test }| [train, val, test]);
    let mut splits: HashMap<String, Option<Split>> = HashMap::new();
    for (split, ids) in Split::ALL.into_iter().zip(ids) {
        for id in ids.iter().map(Id::text) {
            match splits.insert(id.clone(), Some(split)) {
                None => {}
                Some(Some(there)) if there == split => {}
                Some(there) => {
                    splits.insert(id.clone(), None);
                    let first = there.map_or("two others".to_string(), |there| there.to_string());
                    let reason = format!("record {id} of {name} is in {first} and in {split}; leave it in one of them");
                    source.skip(Error::file(&path, reason))?;
                }
            }
        }
    }
    match splits.is_empty() {
        true => Err(Error::file(&path, format!("names no record of {name} under train, val or test"))),
        false => Ok(splits),
    }
}

/// What a file of `mapping/` says about a dataset; nothing if there is no such file.
fn mapping<T: DeserializeOwned>(source: &Source, file: &str, name: &str) -> Result<Option<T>> {
    let Some(path) = source.find(&[&format!("mapping/{file}"), file])? else {
        return Ok(None);
    };
    let mut others = Vec::new();
    for Record { key, value, .. } in Document::open(&path)?.object::<T>()? {
        if key == name {
            return value.map(Some);
        }
        others.push(key);
    }
    Err(Error::file(&path, format!("says nothing of {name}, but of {}", others.join(", "))))
}

/// What is known about entities besides their identifiers.
struct Knowledge {
    /// Names and descriptions of `QID2Label.tsv`.
    texts: HashMap<String, (String, String)>,
    images: Option<PathBuf>,
    /// Names of entities that only the records of mentions name.
    named: HashMap<String, String>,
}

impl Knowledge {
    /// Reads the texts, and adds the entities that `qids_candidate.json` lists for the dataset.
    fn read(source: &mut Source, name: &str, draft: &mut Draft) -> Result<Knowledge> {
        let texts = read_texts(source)?;
        let images = source.images(&source.settings.entity_images, &["../KB/image", "KB/image"])?;
        let knowledge = Knowledge { texts, images, named: HashMap::new() };
        for qid in mapping::<Vec<String>>(source, "qids_candidate.json", name)?.unwrap_or_default() {
            let Some((name, description)) = knowledge.texts.get(&qid) else {
                draft.count("entities of qids_candidate.json without a name in QID2Label.tsv left out");
                continue;
            };
            let entity = knowledge.entity(&qid, name.clone(), description.clone());
            if let Err(reason) = draft.entity(entity) {
                source.skip(Error::file(&source.folder, reason))?;
            }
        }
        Ok(knowledge)
    }

    /// Adds the entity of a mention, if it is not there yet: its record names it where nothing else does.
    fn require(&mut self, link: &Link, draft: &mut Draft) -> Result<(), String> {
        let (qid, name) = (&link.answer, title(&link.entity));
        if draft.has(qid) {
            if self.named.get(qid).is_some_and(|first| *first != name) {
                draft.count("mentions whose record names their entity otherwise than an earlier one, which counts");
            }
            return Ok(());
        }
        if let Some((name, description)) = self.texts.get(qid) {
            return draft.entity(self.entity(qid, name.clone(), description.clone()));
        }
        draft.count("entities that only the records of their mentions name");
        self.named.insert(qid.clone(), name.clone());
        draft.entity(self.entity(qid, name, String::new()))
    }

    fn entity(&self, qid: &str, name: String, description: String) -> DraftEntity {
        let image = self.images.as_ref().map(|folder| ImageSource::Stem(folder.join(format!("{qid}_0"))));
        DraftEntity { qid: qid.to_string(), name, description, image: image.unwrap_or(ImageSource::None) }
    }
}

/// Names and descriptions: lines of an identifier, a name and a description, separated by tabs.
fn read_texts(source: &mut Source) -> Result<HashMap<String, (String, String)>> {
    let mut texts: HashMap<String, (String, String)> = HashMap::new();
    let Some(path) = source.find(&["../KB/QID2Label.tsv", "KB/QID2Label.tsv", "QID2Label.tsv"])? else {
        return Ok(texts);
    };
    for (i, line) in files::read_text(&path)?.lines().enumerate() {
        let mut fields = line.splitn(3, '\t').map(unquoted);
        let [qid, name, description] = [(); 3].map(|()| fields.next().unwrap_or_default());
        // pandas, which reads the file for KGMEL, knows such entities as `nan`.
        if name.trim().is_empty() {
            continue;
        }
        match texts.get(&qid) {
            None => {
                texts.insert(qid, (name, description));
            }
            Some(there) if *there == (name, description) => {}
            Some(_) => {
                let reason = format!("entity `{qid}` stands in an earlier line with other texts; keep one of them");
                source.skip(record_error(&path, i + 1, reason))?;
            }
        }
    }
    Ok(texts)
}

/// A field as pandas reads it: quotes around it go, doubled ones in it are single.
fn unquoted(field: &str) -> String {
    let inner = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner.filter(|inner| !inner.replace("\"\"", "").contains('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => field.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_of_fields_are_those_of_pandas() {
        for (field, text) in [
            ("plain", "plain"),
            ("\"Heroes\"", "Heroes"),
            ("\"\"\"Heroes\"\" (song)\"", "\"Heroes\" (song)"),
            ("\"a\" and \"b\"", "\"a\" and \"b\""),
            ("12\" disc", "12\" disc"),
            ("\"", "\""),
            ("\"\"", ""),
        ] {
            assert_eq!(unquoted(field), text, "{field}");
        }
    }
}
