//! Counts of a dataset.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::images::{ImageState, states};
use super::{ImageCheck, Loaded};
use crate::data::{Entity, MentionRecord};

/// Counts of a dataset.
#[derive(Clone, Debug, Serialize)]
pub struct Statistics {
    /// Of the knowledge base.
    pub entities: EntityStatistics,
    /// Of each split, then of all mentions.
    pub splits: Vec<SplitStatistics>,
}

/// Counts of the knowledge base.
#[derive(Clone, Debug, Serialize)]
pub struct EntityStatistics {
    pub entities: usize,
    pub without_description: usize,
    pub without_image: usize,
    pub missing_images: usize,
    pub unreadable_images: usize,
    /// Images whose EXIF entry says that they are to be turned or mirrored.
    pub turned_images: usize,
    /// Mean words of a description, of those that have one.
    pub description_words: f64,
}

/// Shortest, mean and longest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lengths {
    pub least: usize,
    pub mean: f64,
    pub most: usize,
}

/// Counts of a split's mentions.
#[derive(Clone, Debug, Serialize)]
pub struct SplitStatistics {
    /// The split, or `all`.
    pub name: String,
    pub mentions: usize,
    /// Distinct sentences.
    pub sentences: usize,
    /// Distinct gold entities.
    pub gold_entities: usize,
    pub without_gold: usize,
    /// Mentions without a list of candidates.
    pub without_candidates: usize,
    /// Lengths of the lists, if there are any.
    pub candidates: Option<Lengths>,
    /// Lists with the gold entity.
    pub gold_in_list: usize,
    pub without_image: usize,
    /// Mentions whose image file is not there.
    pub missing_images: usize,
    /// Mentions whose image file is no image.
    pub unreadable_images: usize,
    /// Mentions whose image is to be turned or mirrored, as its EXIF entry says.
    pub turned_images: usize,
    /// Mentions whose text is no part of their sentence.
    pub not_in_sentence: usize,
    /// Mean words of a mention.
    pub mention_words: f64,
    /// Mean words of a mention's sentence.
    pub sentence_words: f64,
}

impl Statistics {
    /// Counts a dataset.
    pub fn of(loaded: &Loaded, check: ImageCheck) -> Statistics {
        let images = states(loaded, check);
        let entities = EntityStatistics::of(&loaded.entities, &images);
        let split = |(split, mentions): &(_, Vec<MentionRecord>)| {
            SplitStatistics::of(format!("{split}"), &mentions.iter().collect::<Vec<_>>(), &images)
        };
        let mut splits: Vec<SplitStatistics> = loaded.splits.iter().map(split).collect();
        splits.push(SplitStatistics::of("all".into(), &loaded.mentions_of_all().collect::<Vec<_>>(), &images));
        Statistics { entities, splits }
    }
}

impl EntityStatistics {
    fn of(entities: &[Entity], images: &HashMap<&str, ImageState>) -> EntityStatistics {
        let described: Vec<usize> = entities.iter().map(|e| words(&e.description)).filter(|&n| n > 0).collect();
        EntityStatistics {
            entities: entities.len(),
            without_description: entities.len() - described.len(),
            without_image: entities.iter().filter(|e| e.image.is_none()).count(),
            missing_images: in_state(entities.iter().map(|e| &e.image), images, ImageState::Missing),
            unreadable_images: in_state(entities.iter().map(|e| &e.image), images, ImageState::Unreadable),
            turned_images: in_state(entities.iter().map(|e| &e.image), images, ImageState::Turned),
            description_words: mean(described.into_iter()),
        }
    }
}

impl SplitStatistics {
    fn of(name: String, mentions: &[&MentionRecord], images: &HashMap<&str, ImageState>) -> SplitStatistics {
        let count = |what: fn(&MentionRecord) -> bool| mentions.iter().filter(|m| what(m)).count();
        let lists = mentions.iter().filter_map(|m| m.candidates.as_ref().map(Vec::len));
        let in_list = |m: &&&MentionRecord| m.gold.as_ref().is_some_and(|gold| m.listed().contains(gold));
        let with_image = || mentions.iter().map(|m| &m.image);
        SplitStatistics {
            name,
            mentions: mentions.len(),
            sentences: mentions.iter().map(|m| m.sentence.as_str()).collect::<HashSet<_>>().len(),
            gold_entities: mentions.iter().filter_map(|m| m.gold.as_deref()).collect::<HashSet<_>>().len(),
            without_gold: count(|m| m.gold.is_none()),
            without_candidates: count(|m| m.candidates.is_none()),
            candidates: lists.clone().min().zip(lists.clone().max()).map(|(least, most)| Lengths {
                least,
                mean: mean(lists),
                most,
            }),
            gold_in_list: mentions.iter().filter(in_list).count(),
            without_image: count(|m| m.image.is_none()),
            missing_images: in_state(with_image(), images, ImageState::Missing),
            unreadable_images: in_state(with_image(), images, ImageState::Unreadable),
            turned_images: in_state(with_image(), images, ImageState::Turned),
            not_in_sentence: count(|m| !m.sentence.contains(&m.mention)),
            mention_words: mean(mentions.iter().map(|m| words(&m.mention))),
            sentence_words: mean(mentions.iter().map(|m| words(&m.sentence))),
        }
    }
}

fn in_state<'a>(
    named: impl Iterator<Item = &'a Option<String>>,
    images: &HashMap<&str, ImageState>,
    state: ImageState,
) -> usize {
    named.flatten().filter(|name| images.get(name.as_str()) == Some(&state)).count()
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// The mean, 0 of nothing.
fn mean(values: impl Iterator<Item = usize>) -> f64 {
    let (count, sum) = values.fold((0usize, 0usize), |(count, sum), value| (count + 1, sum + value));
    sum as f64 / count.max(1) as f64
}
