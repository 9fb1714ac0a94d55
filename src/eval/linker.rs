//! Linking mentions that were never seen: encodes one, scores it against its candidates or the whole knowledge base.

use std::collections::HashMap;

use indicatif::ProgressBar;
use serde::Serialize;

use super::ranking::{finite, index_entities, order_by};
use crate::data::{Batcher, Dataset, Mention, blank};
use crate::device::Gpu;
use crate::device::cpu::vector;
use crate::encoder::Encoders;
use crate::error::{Error, Result};
use crate::model::{EntityIndex, FissFuse, GpuScorer, Modality, PreparedSide, Scorer, Side, mean_over_scores};
use crate::tensor::Element;

/// Bytes of prepared rows above which an index keeps f16.
const FULL_PRECISION_BYTES: usize = 256 << 20;

/// An entity that a mention may refer to.
#[derive(Clone, Debug, Serialize)]
pub struct Link {
    /// The entity's identifier.
    pub qid: String,
    /// Its name.
    pub name: String,
    /// Mean of the scores (Eq. 11).
    pub score: f32,
    /// Softmax of the mean score over all entities that were considered.
    pub confidence: f32,
    /// Each score by its name.
    pub scores: serde_json::Map<String, serde_json::Value>,
}

/// A mention with its entities, best first.
#[derive(Clone, Debug, Serialize)]
pub struct Linked {
    /// The mention's identifier.
    pub mention_id: String,
    /// The span that was linked.
    pub mention: String,
    /// Entities, best first.
    pub links: Vec<Link>,
}

/// A model, its encoders and a knowledge base whose entities are prepared when first needed: on a device all at once, since
/// the index goes there as a whole.
pub struct Linker<'a> {
    /// Where it computes.
    model: FissFuse,
    scorer: Scorer,
    on_device: Option<GpuScorer>,
    batcher: &'a Batcher,
    dataset: &'a Dataset,
    encoders: &'a Encoders,
    index: EntityIndex,
    /// Place in the index of each prepared entity.
    place: HashMap<u32, u32>,
}

impl<'a> Linker<'a> {
    /// Prepares nothing yet. The model's weights lie on the host; `gpu` is where it shall compute, if not there.
    pub fn new(
        model: &FissFuse,
        gpu: Option<&Gpu>,
        batcher: &'a Batcher,
        dataset: &'a Dataset,
        encoders: &'a Encoders,
    ) -> Result<Linker<'a>> {
        let manifest = batcher.store().manifest();
        let rows = dataset.entities().len().saturating_mul(manifest.patches.saturating_add(manifest.max_tokens / 2));
        let full = rows.saturating_mul(4 * model.config().d) <= FULL_PRECISION_BYTES;
        let index = EntityIndex::new(model, if full { Element::F32 } else { Element::F16 });
        let (scorer, place) = (Scorer::new(model)?, HashMap::new());
        let on_device = gpu.map(|gpu| GpuScorer::new(&scorer, gpu)).transpose()?;
        Ok(Linker { model: model.to(gpu)?, scorer, on_device, batcher, dataset, encoders, index, place })
    }

    /// Prepares those of the given entities that are not yet; `bar` shows how far it is.
    pub fn prepare(&mut self, entities: impl Iterator<Item = u32>, bar: &ProgressBar) -> Result<()> {
        let mut missing: Vec<u32> = entities.filter(|e| !self.place.contains_key(e)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.on_device.is_some() {
            missing = (0..self.dataset.entities().len() as u32).collect();
        }
        bar.set_length(missing.len() as u64);
        let first = self.index.len() as u32;
        index_entities(&self.model, self.batcher, &missing, &mut self.index, bar)?;
        self.place.extend(missing.into_iter().zip(first..));
        Ok(())
    }

    /// The `top` best entities of a mention: of its candidates, or of all if it has none.
    pub fn link(&mut self, mention: &Mention, top: usize, bar: &ProgressBar) -> Result<Linked> {
        let all = 0..self.dataset.entities().len() as u32;
        let candidates = if mention.candidates.is_empty() { all.collect() } else { mention.candidates.clone() };
        self.prepare(candidates.iter().copied(), bar)?;
        let prepared = PreparedSide::new(&self.model, &self.encode(mention)?)?;
        let places: Vec<u32> = candidates.iter().map(|c| self.place[c]).collect();
        let scores = match &mut self.on_device {
            Some(scorer) => scorer.score(prepared.mention(0), &self.index, &places)?,
            None => self.scorer.score(prepared.mention(0), &self.index, &places)?,
        };
        finite(&scores, &mention.id)?;
        let kinds = self.scorer.kinds();
        let similarity = mean_over_scores(&scores, kinds.len());
        let mut confidence = similarity.clone();
        vector::softmax(&mut confidence);
        let link = |i: usize| {
            let entity = &self.dataset.entities()[candidates[i] as usize];
            let score = |(k, kind): (usize, &crate::model::ScoreKind)| {
                (kind.label().to_string(), scores[k * candidates.len() + i].into())
            };
            Link {
                qid: entity.qid.clone(),
                name: entity.name.clone(),
                score: similarity[i],
                confidence: confidence[i],
                scores: kinds.iter().enumerate().map(score).collect(),
            }
        };
        let links = order_by(&similarity).into_iter().take(top).map(link).collect();
        Ok(Linked { mention_id: mention.id.clone(), mention: mention.mention.clone(), links })
    }

    /// Features of a mention. A path of an image is relative to the dataset.
    fn encode(&self, mention: &Mention) -> Result<Side> {
        let manifest = self.batcher.store().manifest();
        let one = |mut encoded: Vec<crate::encoder::Encoded>| {
            encoded.pop().ok_or_else(|| Error::invalid("the encoder gave nothing"))
        };
        let text = manifest.mention_text(&mention.mention, &mention.sentence);
        let text = match &self.encoders.text {
            Some(encoder) => one(encoder.encode_texts(&[&text], manifest.max_tokens)?)?,
            None => blank(),
        };
        let image = match (&mention.image, &self.encoders.image) {
            (None, _) | (_, None) => self.batcher.missing_image()?,
            (Some(name), Some(encoder)) => {
                let pixels = encoder
                    .prepare(&self.dataset.root().join(name), self.batcher.store().manifest().exif_orientation)?;
                let image = one(encoder.encode_images(&[pixels])?)?;
                Modality::single(&image.tokens, manifest.widths.image, &image.global)?
            }
        };
        Ok(Side { text: Modality::single(&text.tokens, manifest.widths.text, &text.global)?, image })
    }
}
