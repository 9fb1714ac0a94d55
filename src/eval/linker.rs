//! Linking mentions that were never seen: encodes one, scores it against its candidates or the whole knowledge base.

use std::collections::HashMap;

use indicatif::ProgressBar;
use serde::Serialize;

use super::ranking::{finite, index_entities, order_by};
use crate::autograd::Tape;
use crate::data::{Batcher, Dataset, Mention, blank};
use crate::device::Gpu;
use crate::device::cpu::vector;
use crate::encoder::Encoders;
use crate::error::{Error, Result};
use crate::model::{Batch, EntityIndex, GpuScorer, Modality, Model, PreparedSide, Scorer, Side, mean_over_scores};
use crate::ops::Pairing;
use crate::span;
use crate::tensor::Element;
use crate::trace::{next_step, on_device};

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

/// A model, its encoders and a knowledge base.
pub struct Linker<'a> {
    /// Where it computes.
    model: Model,
    /// Of a model whose entities can be prepared.
    prepared: Option<Prepared>,
    batcher: &'a Batcher,
    dataset: &'a Dataset,
    encoders: &'a Encoders,
}

/// Entities that are prepared when first needed: on a device all at once, since the index goes there as a whole.
struct Prepared {
    scorer: Scorer,
    on_device: Option<GpuScorer>,
    index: EntityIndex,
    /// Place in the index of each prepared entity.
    place: HashMap<u32, u32>,
}

impl<'a> Linker<'a> {
    /// Prepares nothing yet. The model's weights lie on the host; `gpu` is where it shall compute, if not there.
    pub fn new(
        model: &Model,
        gpu: Option<&Gpu>,
        batcher: &'a Batcher,
        dataset: &'a Dataset,
        encoders: &'a Encoders,
    ) -> Result<Linker<'a>> {
        let prepared = match model.config().network.prepares() {
            true => Some(Prepared::new(model, gpu, batcher, dataset)?),
            false => None,
        };
        Ok(Linker { model: model.to(gpu)?, prepared, batcher, dataset, encoders })
    }

    /// Prepares those of the given entities that are not yet, if the model can; `bar` shows how far it is.
    pub fn prepare(&mut self, entities: impl Iterator<Item = u32>, bar: &ProgressBar) -> Result<()> {
        match &mut self.prepared {
            Some(prepared) => {
                let _span = (span!("prepare entities"), on_device(self.model.gpu(), "prepare entities", ""));
                prepared.add(&self.model, (self.batcher, self.dataset), entities, bar)
            }
            None => Ok(()),
        }
    }

    /// The `top` best entities of a mention: of its candidates, or of all if it has none.
    pub fn link(&mut self, mention: &Mention, top: usize, bar: &ProgressBar) -> Result<Linked> {
        next_step();
        let _span = span!("mention");
        let all = 0..self.dataset.entities().len() as u32;
        let candidates = if mention.candidates.is_empty() { all.collect() } else { mention.candidates.clone() };
        self.prepare(candidates.iter().copied(), bar)?;
        let side = self.encode(mention)?;
        let scoring = (span!("score"), on_device(self.model.gpu(), "score", ""));
        let scores = match &mut self.prepared {
            Some(prepared) => prepared.score(&PreparedSide::new(&self.model, &side)?, &candidates)?,
            None => self.score_in_a_batch(side, &candidates)?,
        };
        drop(scoring);
        let _ranking = span!("rank");
        finite(&scores, &mention.id)?;
        let kinds = self.model.config().scores();
        let similarity = mean_over_scores(&scores, kinds.len());
        let mut confidence = similarity.clone();
        vector::softmax(&mut confidence);
        let link = |i: usize| {
            let entity = &self.dataset.entities()[candidates[i] as usize];
            let score = |(k, kind): (usize, &&str)| (kind.to_string(), scores[k * candidates.len() + i].into());
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

    /// Scores (kinds, candidates) of a mention, computed as training does.
    fn score_in_a_batch(&self, mention: Side, candidates: &[u32]) -> Result<Vec<f32>> {
        let n = candidates.len();
        let entities = self.batcher.side(&self.batcher.items(candidates)?, n)?;
        let pairs = Pairing::new(vec![0; n], 1, (0..n as u32).collect(), n)?;
        let batch = Batch::new(mention, entities, pairs, Vec::new())?;
        let tape = Tape::inference();
        let vars = self.model.parameters().bind(&tape);
        self.model.gpu().map_or(Ok(()), |gpu| batch.stage(gpu))?;
        let scores = self.model.scores(&tape, &vars, &batch, None)?;
        Ok(scores.values.tensor().to(None)?.data().to_vec())
    }

    /// Features of a mention. A path of an image is relative to the dataset.
    fn encode(&self, mention: &Mention) -> Result<Side> {
        let _span = span!("encode mention");
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

impl Prepared {
    fn new(model: &Model, gpu: Option<&Gpu>, batcher: &Batcher, dataset: &Dataset) -> Result<Prepared> {
        let manifest = batcher.store().manifest();
        let rows = dataset.entities().len().saturating_mul(manifest.patches.saturating_add(manifest.max_tokens / 2));
        let full = rows.saturating_mul(4 * model.config().d) <= FULL_PRECISION_BYTES;
        let index = EntityIndex::new(model, if full { Element::F32 } else { Element::F16 });
        let (scorer, place) = (Scorer::new(model)?, HashMap::new());
        let on_device = gpu.map(|gpu| GpuScorer::new(&scorer, gpu)).transpose()?;
        Ok(Prepared { scorer, on_device, index, place })
    }

    /// Prepares the entities that are not yet.
    fn add(
        &mut self,
        model: &Model,
        (batcher, dataset): (&Batcher, &Dataset),
        entities: impl Iterator<Item = u32>,
        bar: &ProgressBar,
    ) -> Result<()> {
        let mut missing: Vec<u32> = entities.filter(|e| !self.place.contains_key(e)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.on_device.is_some() {
            missing = (0..dataset.entities().len() as u32).collect();
        }
        bar.set_length(missing.len() as u64);
        let first = self.index.len() as u32;
        index_entities(model, batcher, &missing, &mut self.index, bar)?;
        self.place.extend(missing.into_iter().zip(first..));
        Ok(())
    }

    /// Scores (kinds, candidates) of a mention against prepared candidates.
    fn score(&mut self, mention: &PreparedSide, candidates: &[u32]) -> Result<Vec<f32>> {
        let places: Vec<u32> = candidates.iter().map(|c| self.place[c]).collect();
        match &mut self.on_device {
            Some(scorer) => scorer.score(mention.mention(0), &self.index, &places),
            None => self.scorer.score(mention.mention(0), &self.index, &places),
        }
    }
}
