//! Texts and images of a dataset, for an encoder that is trained along with a model: what a feature store has of frozen ones.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::batching::{Counts, GoldMissing, Item, Pairs, Sample, samples};
use super::store::{Manifest, image_key, text_key};
use super::{Dataset, Mention};
use crate::error::Result;
use crate::ops::Pairing;

/// Each text and each image once, by number.
#[derive(Debug)]
pub struct Inputs {
    manifest: Manifest,
    root: PathBuf,
    texts: Vec<String>,
    /// `None` is what stands in for one that is missing.
    images: Vec<Option<Image>>,
    numbers: [HashMap<u128, u32>; 2],
    entities: Vec<Item>,
}

/// An image file.
#[derive(Debug)]
pub struct Image {
    /// Its name in the dataset's folder.
    pub name: String,
    /// What has it, or the first that does: "entity `Q42`".
    pub owner: String,
}

/// Which texts and images a batch is made of, each once however many of its items have it.
#[derive(Debug)]
pub struct InputBatch {
    /// Numbers of texts and of images.
    pub distinct: [Vec<u32>; 2],
    /// Of each mention, the places of its text and of its image among them.
    pub mentions: [Vec<u32>; 2],
    /// The same of each distinct entity.
    pub entities: [Vec<u32>; 2],
    /// Left: mention, right: entity.
    pub pairs: Pairing,
    /// The pair of each mention's gold entity.
    pub gold: Vec<u32>,
}

impl Inputs {
    /// Of a dataset's entities, as a store of this manifest would have them.
    pub fn new(dataset: &Dataset, manifest: Manifest) -> Inputs {
        let root = dataset.root().to_path_buf();
        let (texts, images, numbers) = (Vec::new(), Vec::new(), [HashMap::new(), HashMap::new()]);
        let mut inputs = Inputs { manifest, root, texts, images, numbers, entities: Vec::new() };
        let all = dataset.entities().iter();
        inputs.entities = all
            .map(|entity| {
                let text = inputs.manifest.entity_text(&entity.name, &entity.description);
                inputs.item(text, entity.image.as_deref(), ("entity", &entity.qid))
            })
            .collect();
        inputs
    }

    fn item(&mut self, text: String, image: Option<&str>, (kind, id): (&str, &str)) -> Item {
        let [texts, images] = &mut self.numbers;
        let text = *texts.entry(text_key(&text)).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() as u32 - 1
        });
        let image = *images.entry(image_key(image)).or_insert_with(|| {
            self.images.push(image.map(|name| Image { name: name.into(), owner: format!("{kind} `{id}`") }));
            self.images.len() as u32 - 1
        });
        Item { text, image }
    }

    /// Samples of mentions, as [`Batcher::samples`](super::Batcher::samples) makes them of a store.
    pub fn samples(&mut self, mentions: &[Mention], seed: u64, missing: GoldMissing) -> Result<(Vec<Sample>, Counts)> {
        samples(mentions, seed, missing, |mention| {
            let text = self.manifest.mention_text(&mention.mention, &mention.sentence);
            Ok(self.item(text, mention.image.as_deref(), ("mention", &mention.id)))
        })
    }

    /// The text of this number.
    pub fn text(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }

    /// The image of this number; `None` for the stand-in.
    pub fn image(&self, number: u32) -> Option<&Image> {
        self.images[number as usize].as_ref()
    }

    /// The folder that images are relative to.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How features are made of them.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What a batch of samples is made of.
    pub fn batch(&self, samples: &[Sample]) -> Result<InputBatch> {
        let Pairs { left, right, gold, entities } = Pairs::of(samples);
        let pairs = Pairing::new(left, samples.len(), right, entities.len())?;
        let items = [
            samples.iter().map(|sample| sample.item).collect::<Vec<_>>(),
            entities.iter().map(|&entity| self.entities[entity as usize]).collect(),
        ];
        let mut distinct = [Vec::new(), Vec::new()];
        let mut places = [HashMap::new(), HashMap::new()];
        let mut of = |which: usize, number: u32| {
            *places[which].entry(number).or_insert_with(|| {
                distinct[which].push(number);
                distinct[which].len() as u32 - 1
            })
        };
        let [mentions, entities] = items.map(|items| {
            let texts = items.iter().map(|item| of(0, item.text)).collect();
            [texts, items.iter().map(|item| of(1, item.image)).collect()]
        });
        Ok(InputBatch { distinct, mentions, entities, pairs, gold })
    }
}
