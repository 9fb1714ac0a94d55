//! A dataset as its files have it, with nothing refused.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::data::dataset::{check_entity, entities_file};
use crate::data::{Entity, MentionRecord, Split, read_records, record_error};
use crate::error::{Error, Result};

/// All records of a dataset that can be parsed.
#[derive(Debug)]
pub struct Loaded {
    /// The dataset's folder.
    pub root: PathBuf,
    /// Entities with distinct identifiers.
    pub entities: Vec<Entity>,
    /// Place of each identifier.
    pub index: HashMap<String, u32>,
    /// The mentions of each split that exists.
    pub splits: Vec<(Split, Vec<MentionRecord>)>,
    /// What is wrong with the others.
    pub bad: Vec<Error>,
}

impl Loaded {
    /// Reads a dataset. Fails only if there is none.
    pub fn read(root: &Path) -> Result<Loaded> {
        let path = entities_file(root)?;
        let mut loaded = Loaded {
            root: root.to_path_buf(),
            entities: Vec::new(),
            index: HashMap::new(),
            splits: Vec::new(),
            bad: Vec::new(),
        };
        for (line, record) in read_records::<Entity>(&path)? {
            let checked = record.and_then(|entity| check_entity(entity).map_err(|r| record_error(&path, line, r)));
            match checked {
                Ok(entity) if loaded.index.contains_key(&entity.qid) => {
                    loaded.bad.push(record_error(&path, line, format!("entity `{}` stands there twice", entity.qid)));
                }
                Ok(entity) => {
                    loaded.index.insert(entity.qid.clone(), loaded.entities.len() as u32);
                    loaded.entities.push(entity);
                }
                Err(error) => loaded.bad.push(error),
            }
        }
        for split in Split::ALL {
            let path = root.join(split.file());
            if path.exists() {
                let mentions = loaded.mentions(&path)?;
                loaded.splits.push((split, mentions));
            }
        }
        if loaded.splits.is_empty() {
            return Err(Error::file(root, "has neither train.jsonl, valid.jsonl nor test.jsonl"));
        }
        Ok(loaded)
    }

    fn mentions(&mut self, path: &Path) -> Result<Vec<MentionRecord>> {
        let (mut mentions, mut ids) = (Vec::new(), HashSet::new());
        for (line, record) in read_records::<MentionRecord>(path)? {
            match record {
                Ok(mention) => {
                    if !ids.insert(mention.mention_id.clone()) {
                        let reason = format!("mention `{}` stands there twice", mention.mention_id);
                        self.bad.push(record_error(path, line, reason));
                    }
                    if mention.mention.trim().is_empty() || mention.sentence.trim().is_empty() {
                        let reason = format!("mention `{}` has an empty text or sentence", mention.mention_id);
                        self.bad.push(record_error(path, line, reason));
                    }
                    mentions.push(mention);
                }
                Err(error) => self.bad.push(error),
            }
        }
        Ok(mentions)
    }

    /// All mentions.
    pub fn mentions_of_all(&self) -> impl Iterator<Item = &MentionRecord> {
        self.splits.iter().flat_map(|(_, mentions)| mentions)
    }
}
