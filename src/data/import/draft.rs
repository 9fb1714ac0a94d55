//! What an importer has read, before it is written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use super::Published;
use super::images::ImageSource;
use crate::data::Split;

/// What is special about a format.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Candidates that a list is meant to hold; 0 if there are no lists.
    pub list_length: usize,
    /// What the paper says about this dataset.
    pub published: Option<Published>,
    /// The image that the format puts in the place of bad ones.
    pub default_image: Option<PathBuf>,
    /// Images with a side below this count as bad.
    pub smallest_side: u32,
}

/// A dataset in memory.
#[derive(Default)]
pub struct Draft {
    /// What is special about its format.
    pub about: About,
    entities: Vec<DraftEntity>,
    index: HashMap<String, usize>,
    mentions: [Vec<DraftMention>; 3],
    ids: [HashSet<String>; 3],
    counts: BTreeMap<&'static str, usize>,
}

/// An entity and where its image may lie.
#[derive(Debug, PartialEq)]
pub struct DraftEntity {
    pub qid: String,
    pub name: String,
    pub description: String,
    pub image: ImageSource,
}

/// A mention and where its image may lie.
#[derive(Debug, PartialEq)]
pub struct DraftMention {
    pub id: String,
    pub mention: String,
    pub sentence: String,
    pub image: ImageSource,
    pub candidates: Vec<String>,
    pub gold: String,
}

impl Draft {
    /// An empty one.
    pub fn new(about: About) -> Draft {
        Draft { about, ..Draft::default() }
    }

    /// Adds an entity; says what is wrong with it. One that is there already with the same texts is passed over.
    pub fn entity(&mut self, mut entity: DraftEntity) -> Result<(), String> {
        (entity.name, entity.description) = (tidy(entity.name), tidy(entity.description));
        if entity.qid.is_empty() || entity.name.is_empty() {
            return Err(format!("entity `{}` (`{}`) lacks its identifier or its name", entity.qid, entity.name));
        }
        if let Some(there) = self.index.get(&entity.qid).map(|&at| &self.entities[at]) {
            let reason = match (there.name == entity.name, there.description == entity.description) {
                (true, true) => return Ok(()),
                (false, _) => format!("is named `{}` and `{}`", there.name, entity.name),
                (true, false) => "has two different descriptions".into(),
            };
            return Err(format!("entity `{}` {reason}; keep one of them", entity.qid));
        }
        self.index.insert(entity.qid.clone(), self.entities.len());
        self.entities.push(entity);
        Ok(())
    }

    /// Whether there is such an entity.
    pub fn has(&self, qid: &str) -> bool {
        self.index.contains_key(qid)
    }

    /// Adds a mention; says what is wrong with it. Repeated candidates are removed.
    pub fn mention(&mut self, split: Split, mut mention: DraftMention) -> Result<(), String> {
        (mention.mention, mention.sentence) = (tidy(mention.mention), tidy(mention.sentence));
        let id = &mention.id;
        if id.is_empty() || mention.mention.is_empty() || mention.sentence.is_empty() {
            return Err(format!("mention `{id}` lacks its identifier, its text or its sentence"));
        }
        let unknown = mention.candidates.iter().chain([&mention.gold]).find(|qid| !self.has(qid));
        if let Some(qid) = unknown {
            return Err(format!("mention `{id}`: entity `{qid}` is not in the knowledge base, so it has no name"));
        }
        let before = mention.candidates.len();
        let mut seen = HashSet::new();
        mention.candidates.retain(|qid| seen.insert(qid.clone()));
        *self.counts.entry("repeated candidates removed").or_default() += before - mention.candidates.len();
        if !self.ids[split as usize].insert(id.clone()) {
            return Err(format!("mention `{id}` is there already"));
        }
        self.mentions[split as usize].push(mention);
        Ok(())
    }

    /// An identifier that no mention of the split has: the given one, or with a number behind it.
    pub fn free_id(&self, split: Split, id: &str) -> String {
        let taken = &self.ids[split as usize];
        let numbered = (1..).map(|n| format!("{id}-{n}"));
        std::iter::once(id.to_string()).chain(numbered).find(|id| !taken.contains(id)).unwrap_or_default()
    }

    /// Counts something that the report is to mention.
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Entities, mentions by split, and what was counted.
    pub fn into_parts(self) -> (Vec<DraftEntity>, [Vec<DraftMention>; 3], BTreeMap<&'static str, usize>) {
        (self.entities, self.mentions, self.counts)
    }
}

/// A text on one line: files of JSON lines could hold line breaks, but neither encoder nor reader gains by them.
fn tidy(text: String) -> String {
    let clean = !text.contains(['\n', '\r', '\t']) && text.trim().len() == text.len();
    if clean { text } else { text.replace(['\n', '\r', '\t'], " ").trim().to_string() }
}
