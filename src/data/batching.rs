//! From mentions to batches of features: looks up each item once, orders candidates, samples negatives.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use clap::ValueEnum;
use rand::seq::{SliceRandom, index};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::dataset::{Dataset, Mention};
use super::store::FeatureStore;
use crate::error::{Error, Result};
use crate::model::Batch;
use crate::ops::Pairing;
use crate::random::{Purpose, generator};

/// What becomes of a mention whose candidates lack the gold entity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum GoldMissing {
    /// It is left out, as the paper's counts imply.
    #[default]
    Drop,
    /// In evaluation it counts as ranked behind all candidates; training leaves it out.
    Miss,
    /// The gold entity is added to the candidates.
    Inject,
}

impl fmt::Display for GoldMissing {
    /// As configurations have it.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// What a mention must have to be ranked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// What becomes of mentions whose lists lack their gold entity; nothing where no lists are read.
    pub lists: Option<GoldMissing>,
}

impl Needs {
    /// The mention's gold entity; fails, with what it lacks, if it cannot be ranked.
    pub fn check(self, mention: &Mention) -> Result<u32, &'static str> {
        match (self.lists, &mention.candidates) {
            (Some(_), None) => return Err("has no candidates; `fissfuse candidates` finds them"),
            // Behind none at all, a miss would stand first.
            (Some(GoldMissing::Miss), Some(list)) if list.is_empty() => {
                return Err("has an empty list of candidates, which `gold_missing = \"miss\"` cannot rank");
            }
            _ => {}
        }
        mention.gold.ok_or("has no `gold`, which training and evaluation need")
    }
}

/// Places of a mention's or an entity's text and image in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    pub(super) text: u32,
    pub(super) image: u32,
}

/// A mention with its candidates in their final order.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The mention's identifier.
    pub id: String,
    /// Where its features lie.
    pub item: Item,
    /// Indices of entities.
    pub candidates: Vec<u32>,
    /// Position of the gold entity among the candidates.
    pub gold: Option<u32>,
}

/// How many mentions were changed or left out on the way to samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Mentions read.
    pub mentions: usize,
    /// Mentions whose candidates lack the gold entity.
    pub gold_missing: usize,
    /// Mentions left out for that.
    pub dropped: usize,
    /// Mentions and entities without an image.
    pub without_image: usize,
}

/// Makes batches from a dataset and a store.
#[derive(Debug)]
pub struct Batcher {
    store: Arc<FeatureStore>,
    /// `Err` names what an entity lacks; it matters only if the entity is used.
    entities: Vec<Result<Item, String>>,
    entities_without_image: usize,
}

impl Batcher {
    /// Looks up the features of all entities.
    pub fn new(dataset: &Dataset, store: Arc<FeatureStore>) -> Batcher {
        let manifest = store.manifest();
        let item = |e: &super::Entity| {
            let text = manifest.entity_text(&e.name, &e.description);
            look_up(&store, &text, e.image.as_deref()).map_err(|what| format!("entity `{}`: {what}", e.qid))
        };
        let entities = dataset.entities().iter().map(item).collect();
        let entities_without_image = dataset.entities().iter().filter(|e| e.image.is_none()).count();
        Batcher { store, entities, entities_without_image }
    }

    /// The store that the features come from.
    pub fn store(&self) -> &Arc<FeatureStore> {
        &self.store
    }

    /// Number of entities without an image.
    pub fn entities_without_image(&self) -> usize {
        self.entities_without_image
    }

    /// Looks up the features of mentions and shuffles each one's candidates, once and by seed, so that ties cannot
    /// favour a gold entity that the file lists first.
    pub fn samples(&self, mentions: &[Mention], seed: u64, missing: GoldMissing) -> Result<(Vec<Sample>, Counts)> {
        samples(mentions, seed, missing, |mention| self.item_of(mention))
    }

    /// Mentions whose only candidate is their gold entity, in whose place the whole knowledge base will be ranked. Fails if one
    /// has none.
    pub fn without_lists(&self, mentions: &[Mention]) -> Result<(Vec<Sample>, Counts)> {
        let mut counts = Counts { mentions: mentions.len(), ..Counts::default() };
        let needs = Needs { lists: None };
        let sample = |mention: &Mention| {
            let gold =
                needs.check(mention).map_err(|lacks| Error::invalid(format!("mention `{}`: {lacks}", mention.id)))?;
            counts.without_image += mention.image.is_none() as usize;
            Ok(Sample { id: mention.id.clone(), item: self.item_of(mention)?, candidates: vec![gold], gold: Some(0) })
        };
        let samples = mentions.iter().map(sample).collect::<Result<_>>()?;
        Ok((samples, counts))
    }

    /// Places of a mention's features.
    pub fn item_of(&self, mention: &Mention) -> Result<Item> {
        let text = self.store.manifest().mention_text(&mention.mention, &mention.sentence);
        let about = |reason: String| Error::invalid(format!("mention `{}`: {reason}", mention.id));
        look_up(&self.store, &text, mention.image.as_deref()).map_err(about)
    }

    /// Places of these entities' features.
    pub fn items(&self, entities: &[u32]) -> Result<Vec<Item>> {
        entities.iter().map(|&e| self.entities[e as usize].clone().map_err(Error::invalid)).collect()
    }

    /// A batch of samples. Each distinct entity is computed once, however many mentions list it.
    pub fn batch(&self, samples: &[Sample]) -> Result<Batch> {
        let Pairs { left, right, gold, entities } = Pairs::of(samples);
        let (mentions, pairs) = (samples.iter().map(|s| s.item).collect::<Vec<_>>(), left.len());
        let (mention, entity) = (self.side(&mentions, mentions.len())?, self.side(&self.items(&entities)?, pairs)?);
        Batch::new(mention, entity, Pairing::new(left, samples.len(), right, entities.len())?, gold)
    }

    /// A batch of some of these samples that knows its place in the batch of all: what depends on places, such as which values
    /// dropout zeroes, is for each mention and entity as it is there.
    pub fn part_of_batch(&self, samples: &[Sample], part: Range<usize>) -> Result<Batch> {
        let all = Pairs::of(samples).entities;
        let place: FxHashMap<u32, u32> = all.iter().copied().zip(0..).collect();
        let Pairs { left, right, gold, entities } = Pairs::of(&samples[part.clone()]);
        let chosen = [
            (part.start as u32..part.end as u32).collect::<Vec<_>>(),
            entities.iter().map(|entity| place[entity]).collect(),
        ];
        let items = [samples.iter().map(|s| s.item).collect::<Vec<_>>(), self.items(&all)?];
        let side = |which: usize, uses: usize| {
            let (texts, images): (Vec<u32>, Vec<u32>) = items[which].iter().map(|i| (i.text, i.image)).unzip();
            self.store.side_part([&texts, &images], &chosen[which], uses)
        };
        let (mention, entity) = (side(0, part.len())?, side(1, left.len())?);
        Batch::new(mention, entity, Pairing::new(left, part.len(), right, entities.len())?, gold)
    }

    /// Features of the stand-in for a missing image.
    pub fn missing_image(&self) -> Result<crate::model::Modality> {
        let number = self.store.image(self.store.manifest().image_key(None));
        let number =
            number.ok_or_else(|| Error::invalid("the feature store is incomplete; run `fissfuse encode` again"))?;
        self.store.images(&[number])
    }

    /// Features of items; `uses` is how often a textbook implementation would compute one of them.
    pub fn side(&self, items: &[Item], uses: usize) -> Result<crate::model::Side> {
        let texts: Vec<u32> = items.iter().map(|i| i.text).collect();
        let images: Vec<u32> = items.iter().map(|i| i.image).collect();
        self.store.side(&texts, &images, uses)
    }
}

/// Samples of mentions, each with the places that `item_of` gives it; see [`Batcher::samples`].
pub(super) fn samples(
    mentions: &[Mention],
    seed: u64,
    missing: GoldMissing,
    mut item_of: impl FnMut(&Mention) -> Result<Item>,
) -> Result<(Vec<Sample>, Counts)> {
    let mut counts = Counts { mentions: mentions.len(), ..Counts::default() };
    let mut samples = Vec::with_capacity(mentions.len());
    let needs = Needs { lists: Some(missing) };
    for (index, mention) in mentions.iter().enumerate() {
        let gold =
            needs.check(mention).map_err(|lacks| Error::invalid(format!("mention `{}`: {lacks}", mention.id)))?;
        let mut candidates = mention.listed().to_vec();
        counts.without_image += mention.image.is_none() as usize;
        if !candidates.contains(&gold) {
            counts.gold_missing += 1;
            match missing {
                GoldMissing::Drop => {
                    counts.dropped += 1;
                    continue;
                }
                GoldMissing::Miss => {}
                GoldMissing::Inject => candidates.push(gold),
            }
        }
        candidates.shuffle(&mut generator(seed, Purpose::CandidateOrder, index as u64));
        let item = item_of(mention)?;
        let gold = candidates.iter().position(|&c| c == gold).map(|at| at as u32);
        samples.push(Sample { id: mention.id.clone(), item, candidates, gold });
    }
    Ok((samples, counts))
}

/// Pairs of mentions and candidates.
#[derive(Default)]
pub(super) struct Pairs {
    /// The mention of each pair, and its candidate's place among the entities.
    pub left: Vec<u32>,
    pub right: Vec<u32>,
    /// The pair of each mention's gold entity.
    pub gold: Vec<u32>,
    /// Each entity once, in the order in which they come.
    pub entities: Vec<u32>,
}

impl Pairs {
    pub fn of(samples: &[Sample]) -> Pairs {
        let mut place: FxHashMap<u32, u32> = FxHashMap::default();
        let Pairs { mut left, mut right, mut gold, mut entities } = Pairs::default();
        for (mention, sample) in samples.iter().enumerate() {
            gold.extend(sample.gold.map(|at| left.len() as u32 + at));
            for &candidate in &sample.candidates {
                let next = entities.len() as u32;
                right.push(*place.entry(candidate).or_insert_with(|| {
                    entities.push(candidate);
                    next
                }));
                left.push(mention as u32);
            }
        }
        Pairs { left, right, gold, entities }
    }
}

fn look_up(store: &FeatureStore, text: &str, image: Option<&str>) -> Result<Item, String> {
    let lacks = |what: &str| format!("the feature store lacks its {what}; run `fissfuse encode` again");
    let manifest = store.manifest();
    Ok(Item {
        text: store.text(manifest.text_key(text)).ok_or_else(|| lacks("text"))?,
        image: store.image(manifest.image_key(image)).ok_or_else(|| lacks("image"))?,
    })
}

impl Sample {
    /// The sample with at most `negatives` candidates besides the gold one, drawn by seed and epoch.
    pub fn with_negatives(&self, negatives: usize, seed: u64, draw: u64) -> Sample {
        let Some(gold) = self.gold.filter(|_| negatives.saturating_add(1) < self.candidates.len()) else {
            return self.clone();
        };
        let mut rng = generator(seed, Purpose::Negatives, draw);
        let mut kept: Vec<usize> = index::sample(&mut rng, self.candidates.len() - 1, negatives)
            .into_iter()
            .map(|i| if i < gold as usize { i } else { i + 1 })
            .chain([gold as usize])
            .collect();
        kept.sort_unstable();
        Sample {
            candidates: kept.iter().map(|&i| self.candidates[i]).collect(),
            gold: kept.iter().position(|&i| i == gold as usize).map(|i| i as u32),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampled_negatives_keep_the_gold_one_and_repeat_nothing() {
        let item = Item { text: 0, image: 0 };
        let sample = Sample { id: "m".into(), item, candidates: (100..120).collect(), gold: Some(7) };
        for draw in 0..50 {
            let small = sample.with_negatives(4, 3, draw);
            assert_eq!(small.candidates.len(), 5);
            assert_eq!(small.candidates[small.gold.unwrap() as usize], 107);
            assert!(small.candidates.windows(2).all(|w| w[0] < w[1]));
        }
        assert_ne!(sample.with_negatives(4, 3, 0).candidates, sample.with_negatives(4, 3, 1).candidates);
        assert_eq!(sample.with_negatives(19, 3, 0).candidates, sample.candidates);
    }
}
