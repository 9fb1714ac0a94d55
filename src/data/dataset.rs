//! The dataset layout: `entities.jsonl`, `{train,valid,test}.jsonl` and an image folder (docs/data.md).

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::batching::{GoldMissing, Needs};
use super::import::what_file;
use super::records::{read_records, record_error};
use super::tolerance::{Skipped, Tolerance};
use crate::encoder::Fingerprint;
use crate::error::{Error, Result};
use crate::files;

/// An entity of the knowledge base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    /// Its identifier, unique in the file.
    pub qid: String,
    /// Its name.
    pub name: String,
    /// What is known about it; may be empty.
    #[serde(default, deserialize_with = "or_nothing", skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its image, relative to the dataset's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// A mention as its line has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MentionRecord {
    /// Its identifier.
    pub mention_id: String,
    /// The span of the sentence that is to be linked.
    pub mention: String,
    /// The sentence.
    pub sentence: String,
    /// The image that comes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Identifiers of its candidates; nothing where no list was made. A list may be empty: then nothing was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Vec<String>>,
    /// Identifier of the right entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<String>,
}

/// A mention whose identifiers were looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct Mention {
    /// Its identifier, unique in its file.
    pub id: String,
    /// The span of the sentence that is to be linked.
    pub mention: String,
    /// The sentence.
    pub sentence: String,
    /// The image that comes with it, relative to the dataset's folder.
    pub image: Option<String>,
    /// Its candidates, as indices of entities; nothing where no list was made, which an empty list is not.
    pub candidates: Option<Vec<u32>>,
    /// The right entity.
    pub gold: Option<u32>,
}

impl MentionRecord {
    /// Its candidates, none if no list was made.
    pub fn listed(&self) -> &[String] {
        self.candidates.as_deref().unwrap_or_default()
    }
}

impl Mention {
    /// Its candidates, none if no list was made.
    pub fn listed(&self) -> &[u32] {
        self.candidates.as_deref().unwrap_or_default()
    }
}

/// One of a dataset's files of mentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    Train,
    Valid,
    Test,
}

impl Split {
    /// All three.
    pub const ALL: [Split; 3] = [Split::Train, Split::Valid, Split::Test];

    /// Name of its file.
    pub fn file(self) -> &'static str {
        ["train.jsonl", "valid.jsonl", "test.jsonl"][self as usize]
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(["train", "valid", "test"][*self as usize])
    }
}

/// A knowledge base and where its mentions lie.
#[derive(Debug)]
pub struct Dataset {
    root: PathBuf,
    entities: Vec<Entity>,
    index: HashMap<String, u32>,
    tolerance: Tolerance,
}

/// The file of entities of the dataset in folder `root`; says what there is if not a dataset.
pub fn entities_file(root: &Path) -> Result<PathBuf> {
    let path = root.join("entities.jsonl");
    let reason = match (is_there(&path), root.is_file()) {
        (true, _) => return Ok(path),
        (false, true) => what_file(root),
        (false, false) => {
            "is no dataset: it has no entities.jsonl; `fissfuse import` makes a dataset of published files \
                           (docs/importing.md)"
                .to_string()
        }
    };
    Err(Error::file(root, reason))
}

/// Whether a file is there, as far as is known: one that cannot be looked at is named by whoever goes on to read it.
fn is_there(path: &Path) -> bool {
    !matches!(path.metadata(), Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
}

impl Dataset {
    /// Reads the knowledge base of the dataset in folder `root`.
    pub fn open(root: &Path, tolerance: Tolerance, skipped: &mut Skipped) -> Result<Dataset> {
        files::complete(root)?;
        let path = entities_file(root)?;
        let mut dataset = Dataset { root: root.to_path_buf(), entities: Vec::new(), index: HashMap::new(), tolerance };
        let mut line_of: HashMap<String, usize> = HashMap::new();
        for (line, record) in read_records::<Entity>(&path)? {
            let checked = record.and_then(|entity| check_entity(entity).map_err(|r| record_error(&path, line, r)));
            match checked {
                Ok(entity) => match line_of.get(&entity.qid) {
                    Some(first) => {
                        let reason = format!("entity `{}` stands in line {first} already", entity.qid);
                        skipped.take(tolerance, record_error(&path, line, reason))?;
                    }
                    None => {
                        line_of.insert(entity.qid.clone(), line);
                        dataset.index.insert(entity.qid.clone(), dataset.entities.len() as u32);
                        dataset.entities.push(entity);
                    }
                },
                Err(error) => skipped.take(tolerance, error)?,
            }
        }
        if dataset.entities.is_empty() {
            return Err(Error::file(&path, "holds no entity"));
        }
        tracing::debug!("{}: {} entities", path.display(), dataset.entities.len());
        Ok(dataset)
    }

    /// The dataset's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All entities, in the order of the file.
    pub fn entities(&self) -> &[Entity] {
        &self.entities
    }

    /// Index of the entity with this identifier.
    pub fn entity(&self, qid: &str) -> Option<u32> {
        self.index.get(qid).copied()
    }

    /// A checksum over the dataset's files of entities and mentions (not its images).
    pub fn checksum(&self) -> Result<String> {
        let files = ["entities.jsonl"].into_iter().chain(Split::ALL.map(Split::file));
        Ok(Fingerprint::of(&self.root, &files.collect::<Vec<_>>())?.as_str().to_string())
    }

    /// A checksum over the entities that were read, in their order.
    pub fn entities_checksum(&self) -> String {
        let mut hash = Xxh3::new();
        for Entity { qid, name, description, image } in &self.entities {
            for text in [qid, name, description, image.as_deref().unwrap_or_default()] {
                hash.update(&(text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
        }
        format!("{:032x}", hash.digest128())
    }

    /// Whether the dataset has this file of mentions.
    pub fn has(&self, split: Split) -> bool {
        is_there(&self.root.join(split.file()))
    }

    /// Reads the mentions of a split.
    pub fn mentions(&self, split: Split, skipped: &mut Skipped) -> Result<Vec<Mention>> {
        Ok(self.numbered(split, skipped)?.into_iter().map(|(_, mention)| mention).collect())
    }

    /// Reads the mentions of a split that can be ranked: those that have a right entity and, where `lists` says what becomes of
    /// those whose lists lack it, a list that can be ranked.
    pub fn ranked_mentions(
        &self,
        split: Split,
        lists: Option<GoldMissing>,
        skipped: &mut Skipped,
    ) -> Result<Vec<Mention>> {
        let path = self.root.join(split.file());
        let numbered = self.numbered(split, skipped)?;
        let needs = Needs { lists };
        let (mut ranked, mut first) = (Vec::new(), None);
        for (line, mention) in numbered {
            let Err(lacks) = needs.check(&mention) else {
                ranked.push(mention);
                continue;
            };
            let reason = format!("mention `{}`: {lacks}", mention.id);
            first.get_or_insert_with(|| format!("in line {line}, {reason}"));
            skipped.take(self.tolerance, record_error(&path, line, reason))?;
        }
        match first.filter(|_| ranked.is_empty()) {
            Some(first) => Err(Error::file(&path, format!("holds no mention that can be ranked: the first, {first}"))),
            None => Ok(ranked),
        }
    }

    /// The mentions of a split, with their lines.
    fn numbered(&self, split: Split, skipped: &mut Skipped) -> Result<Vec<(usize, Mention)>> {
        let path = self.root.join(split.file());
        let mut mentions = Vec::new();
        let mut line_of: HashMap<String, usize> = HashMap::new();
        let records = read_records::<MentionRecord>(&path);
        for (line, record) in records.map_err(|error| error.if_missing(&self.other_splits(split)))? {
            let mention = record.and_then(|r| self.mention(r).map_err(|reason| record_error(&path, line, reason)));
            match mention {
                Ok(mention) => match line_of.insert(mention.id.clone(), line) {
                    Some(first) => {
                        let reason = format!("mention `{}` stands in line {first} already", mention.id);
                        skipped.take(self.tolerance, record_error(&path, line, reason))?;
                    }
                    None => mentions.push((line, mention)),
                },
                Err(error) => skipped.take(self.tolerance, error)?,
            }
        }
        if mentions.is_empty() {
            return Err(Error::file(&path, "holds no mention"));
        }
        tracing::debug!("{}: {} mentions", path.display(), mentions.len());
        Ok(mentions)
    }

    /// What to do without a split's file.
    fn other_splits(&self, split: Split) -> String {
        let there: Vec<String> = Split::ALL.into_iter().filter(|&s| self.has(s)).map(|s| s.to_string()).collect();
        let there = if there.is_empty() { "none".to_string() } else { there.join(" and ") };
        format!("it is to hold the mentions of `{split}`, and of such files the dataset has {there} (docs/data.md)")
    }

    /// Looks up a record's identifiers; says what is wrong with it.
    pub fn mention(&self, record: MentionRecord) -> Result<Mention, String> {
        let MentionRecord { mention_id, mention, sentence, image, candidates, gold } = record;
        if mention_id.is_empty() {
            return Err("`mention_id` is empty".into());
        }
        if mention.trim().is_empty() {
            return Err(format!("mention `{mention_id}`: `mention` is empty"));
        }
        if sentence.trim().is_empty() {
            return Err(format!("mention `{mention_id}`: `sentence` is empty"));
        }
        if image.as_deref() == Some("") {
            return Err(format!("mention `{mention_id}`: {NO_IMAGE}"));
        }
        let look_up = |qid: &str, what: &str| {
            self.entity(qid).ok_or_else(|| {
                format!(
                    "mention `{mention_id}`: {what} `{qid}` is no entity of entities.jsonl; add it or remove it here"
                )
            })
        };
        let mut seen = HashSet::new();
        let mut candidate = |qid: &String| {
            let index = look_up(qid, "candidate")?;
            match seen.insert(index) {
                true => Ok(index),
                false => Err(format!("mention `{mention_id}`: candidate `{qid}` is listed twice")),
            }
        };
        let candidates = candidates.map(|list| list.iter().map(&mut candidate).collect()).transpose()?;
        let gold = gold.map(|qid| look_up(&qid, "gold")).transpose()?;
        Ok(Mention { id: mention_id, mention, sentence, image, candidates, gold })
    }
}

const NO_IMAGE: &str = "`image` is empty; leave it out where there is none";

/// What a field says, or nothing if it says null.
fn or_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(field: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(field)?.unwrap_or_default())
}

pub(super) fn check_entity(entity: Entity) -> Result<Entity, String> {
    if entity.qid.is_empty() {
        return Err("`qid` is empty".into());
    }
    if entity.name.trim().is_empty() {
        return Err(format!("entity `{}`: `name` is empty", entity.qid));
    }
    if entity.image.as_deref() == Some("") {
        return Err(format!("entity `{}`: {NO_IMAGE}", entity.qid));
    }
    Ok(entity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTITIES: &str = r#"{"qid":"Q1","name":"one"}
{"qid":"Q2","name":"two","description":"2","image":"images/2.png"}
"#;

    fn folder(entities: &str, train: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("entities.jsonl"), entities).unwrap();
        std::fs::write(folder.path().join("train.jsonl"), train).unwrap();
        folder
    }

    fn mention(rest: &str) -> String {
        format!(r#"{{"mention_id":"m","mention":"x","sentence":"x y",{rest}}}"#)
    }

    #[test]
    fn reads_what_the_layout_allows() {
        let text = format!("{}\n\n", mention(r#""candidates":["Q2","Q1"],"gold":"Q1","extra":1,"image":null"#));
        let bare = r#"{"qid":"Q3","name":"three","description":null,"image":null}"#;
        let folder = folder(&format!("{ENTITIES}{bare}\n"), &text);
        let dataset = Dataset::open(folder.path(), Tolerance::Strict, &mut Skipped::default()).unwrap();
        let mentions = dataset.mentions(Split::Train, &mut Skipped::default()).unwrap();
        assert_eq!((mentions[0].candidates.as_deref(), mentions[0].gold), (Some(&[1, 0][..]), Some(0)));
        assert!(!dataset.has(Split::Test) && dataset.entities()[2].description.is_empty());
    }

    #[test]
    fn a_bad_record_is_named_or_skipped() {
        for (bad, says) in [
            (mention(r#""candidates":["Q3"]"#), "train.jsonl:2: mention `m`: candidate `Q3` is no entity"),
            (mention(r#""gold":"Q9""#), "gold `Q9` is no entity"),
            (mention(r#""candidates":["Q1","Q1"]"#), "`Q1` is listed twice"),
            (r#"{"mention_id":"m","mention":"x","sentence":" "}"#.into(), "`sentence` is empty"),
            (r#"{"mention_id":"m""#.into(), "is no valid record"),
            (r#"{"mention_id":"m","mention":"x"}"#.into(), "missing field `sentence`"),
            (mention(r#""candidates":7"#), "invalid type"),
            (mention(r#""image":"""#), "`image` is empty"),
            (r#"{"mention_id":"first","mention":"x","sentence":"y"}"#.into(), "stands in line 1 already"),
        ] {
            let good = r#"{"mention_id":"first","mention":"x","sentence":"y"}"#;
            let folder = folder(ENTITIES, &format!("{good}\n{bad}\n"));
            let open = |tolerance| Dataset::open(folder.path(), tolerance, &mut Skipped::default()).unwrap();
            let strict = open(Tolerance::Strict).mentions(Split::Train, &mut Skipped::default()).unwrap_err();
            assert!(strict.to_string().contains(says), "{strict}");
            let mut skipped = Skipped::default();
            assert_eq!(open(Tolerance::Skip).mentions(Split::Train, &mut skipped).unwrap().len(), 1);
            assert!(skipped.0.len() == 1 && skipped.0[0].to_string().contains(says));
        }
    }

    #[test]
    fn a_repeated_entity_is_refused() {
        let folder = folder(&format!("{ENTITIES}{{\"qid\":\"Q1\",\"name\":\"again\"}}"), "");
        let error = Dataset::open(folder.path(), Tolerance::Strict, &mut Skipped::default()).unwrap_err();
        assert!(error.to_string().contains("entities.jsonl:3: entity `Q1` stands in line 1"), "{error}");
    }
}
