//! What stands on both sides of a split, and what gives the answer away.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::Loaded;
use super::images::contents;
use crate::data::{MentionRecord, Split};

/// Mentions of a split that share something with an earlier split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// What they share.
    pub what: &'static str,
    /// Their split.
    pub split: Split,
    /// The earlier split.
    pub with: Split,
    /// How many mentions of the split.
    pub mentions: usize,
    /// Of how many.
    pub of: usize,
}

/// Compares the splits pairwise by image, sentence, and mention with gold entity.
pub fn shared(loaded: &Loaded) -> Vec<Shared> {
    let contents = contents(loaded);
    let image = |m: &MentionRecord| m.image.as_deref().and_then(|name| contents.get(name).copied());
    let (images, sentences, pairs) = (
        compare(loaded, "image", image),
        compare(loaded, "sentence", |m| Some(&m.sentence)),
        compare(loaded, "mention and gold entity", |m| m.gold.as_ref().map(|gold| (&m.mention, gold))),
    );
    [images, sentences, pairs].concat()
}

fn compare<'a, K: std::hash::Hash + Eq>(
    loaded: &'a Loaded,
    what: &'static str,
    key: impl Fn(&'a MentionRecord) -> Option<K>,
) -> Vec<Shared> {
    let keys: Vec<HashSet<K>> = loaded.splits.iter().map(|(_, ms)| ms.iter().filter_map(&key).collect()).collect();
    let mut found = Vec::new();
    for (later, (split, mentions)) in loaded.splits.iter().enumerate() {
        for (earlier, (with, _)) in loaded.splits[..later].iter().enumerate() {
            let mine = mentions.iter().filter_map(&key).filter(|key| keys[earlier].contains(key)).count();
            found.push(Shared { what, split: *split, with: *with, mentions: mine, of: mentions.len() });
        }
    }
    found
}

/// Texts that hold the identifier that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GivenAway {
    /// Entities whose name or description holds their own identifier.
    pub entity_texts: usize,
    /// Mentions whose sentence holds the identifier of their gold entity.
    pub sentences: usize,
    /// Mentions whose own identifier holds it.
    pub mention_ids: usize,
}

impl GivenAway {
    /// Of all entities and mentions. Identifiers that are names (WikiDiverse's titles) are passed over: texts hold them.
    pub fn of(loaded: &Loaded) -> GivenAway {
        let given = |e: &&crate::data::Entity| holds(&e.name, &e.qid) || holds(&e.description, &e.qid);
        let golds = || loaded.mentions_of_all().filter_map(|m| m.gold.as_deref().map(|gold| (m, gold)));
        GivenAway {
            entity_texts: loaded.entities.iter().filter(given).count(),
            sentences: golds().filter(|(m, gold)| holds(&m.sentence, gold)).count(),
            mention_ids: golds().filter(|(m, gold)| holds(&m.mention_id, gold)).count(),
        }
    }
}

/// Whether a text holds an identifier of a letter and a number, as a word.
fn holds(text: &str, qid: &str) -> bool {
    let number = qid.strip_prefix(|c: char| c.is_ascii_alphabetic()).unwrap_or("");
    let is_code = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_code
        && text.match_indices(qid).any(|(at, _)| {
            let outside = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
            outside(text[..at].chars().next_back()) && outside(text[at + qid.len()..].chars().next())
        })
}

/// Entities whose name and description another one has too.
pub fn indistinguishable(loaded: &Loaded) -> usize {
    let mut count: HashMap<(&str, &str), usize> = HashMap::new();
    for entity in &loaded.entities {
        *count.entry((&entity.name, &entity.description)).or_default() += 1;
    }
    count.into_values().filter(|&n| n > 1).sum()
}
