//! The entities of a knowledge base as a model sees them: prepared when they are needed, and kept where there is room.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::ProgressBar;

use super::ranking::index_entities;
use crate::autograd::Tape;
use crate::data::Batcher;
use crate::device::Gpu;
use crate::device::cpu::available_memory;
use crate::error::{Error, Result};
use crate::model::{Batch, EntityIndex, GpuScorer, Model, PreparedMention, PreparedSide, Scorer, Side};
use crate::ops::Pairing;
use crate::tensor::Element;

/// Bytes of prepared rows above which f16 may keep them.
const FULL_PRECISION_BYTES: usize = 256 << 20;

/// What is taken for free where the system does not say.
const UNKNOWN_MEMORY: usize = 4 << 30;

/// How prepared entities are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Percent of the free memory that they may take. Those that have no room are prepared again when they are needed again,
    /// so 0 keeps no more than are scored at a time.
    pub percent: usize,
    /// Keep rows in f32 however many there are; else large knowledge bases are kept in f16.
    pub full_precision: bool,
    /// Entities that are scored at a time, at least 1: what bounds the memory that scores take, and prepared entities where
    /// these are not kept.
    pub block: usize,
}

/// Mentions that are to be scored.
pub(super) enum Mentions<'a> {
    /// By a model that prepares each side alone.
    Prepared(Vec<PreparedMention<'a>>),
    /// The features of one mention: by a model that does not, or on a device, where both is one.
    Features(&'a Side),
}

/// A knowledge base and the model that scores its entities.
pub(super) struct Entities<'a> {
    /// Where it computes.
    model: Model,
    batcher: &'a Batcher,
    count: usize,
    block: usize,
    /// Of a model whose entities can be prepared.
    prepared: Option<Prepared>,
}

struct Prepared {
    scorer: Scorer,
    on_device: Option<GpuScorer>,
    element: Element,
    index: EntityIndex,
    /// Place in the index of each prepared entity.
    place: HashMap<u32, u32>,
    /// Entities that may stay prepared.
    room: usize,
}

impl Default for Keeping {
    /// More than half of the free memory, in half precision where there are many, and blocks whose scores of a hundred mentions
    /// take 10 MB.
    fn default() -> Keeping {
        Keeping { percent: 60, full_precision: false, block: 4096 }
    }
}

impl<'a> Entities<'a> {
    /// Prepares nothing yet. The model's weights lie on the host; `gpu` is where it shall compute, if not there.
    pub fn new(
        (model, gpu): (&Model, Option<&Gpu>),
        batcher: &'a Batcher,
        count: usize,
        keeping: Keeping,
    ) -> Result<Entities<'a>> {
        let prepares = model.config().network.prepares();
        let prepared = prepares.then(|| Prepared::new((model, gpu), batcher, count, keeping)).transpose()?;
        Ok(Entities { model: model.to(gpu)?, batcher, count, block: keeping.block.max(1), prepared })
    }

    /// The model, where it computes.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Features of all entities and of mentions.
    pub fn batcher(&self) -> &'a Batcher {
        self.batcher
    }

    /// Number of entities.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Entities that are prepared and scored at a time.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Whether entities can be prepared, without the mentions that they will be scored with.
    pub fn prepares(&self) -> bool {
        self.prepared.is_some()
    }

    /// Whether a mention that is scored once is best left to [`Entities::score`] as features.
    pub fn takes_features(&self) -> bool {
        self.prepared
            .as_ref()
            .is_none_or(|prepared| prepared.on_device.as_ref().is_some_and(|on_device| !on_device.is_resident()))
    }

    /// From now on, a kernel stays on the device until no mention came for `idle`. Fails without a device, and with a model whose
    /// mentions are not prepared.
    pub fn keep_resident(&mut self, idle: Duration) -> Result<()> {
        let refuse = |reason: String| Err(Error::invalid(format!("--resident {reason} leave it out")));
        match &mut self.prepared {
            _ if self.model.gpu().is_none() => {
                refuse("is for CUDA devices, and the CPU computes; take --device cuda, or".into())
            }
            Some(Prepared { on_device: Some(on_device), .. }) => {
                on_device.keep_resident(idle);
                Ok(())
            }
            _ => {
                let network = self.model.config().network;
                refuse(format!(
                    "keeps a kernel that scores mentions of `fissfuse` models, and this one is of `{network}`;"
                ))
            }
        }
    }

    /// Prepares those of the given entities that are not yet, if the model can. Others lose their place if there is no room.
    pub fn prepare(&mut self, entities: &[u32], bar: &ProgressBar) -> Result<()> {
        match &mut self.prepared {
            Some(prepared) => prepared.add((&self.model, self.batcher), self.count, entities, bar),
            None => Ok(()),
        }
    }

    /// Scores (mentions, kinds, entities) of mentions against entities, which are prepared if the model can.
    pub fn score(&mut self, mentions: &Mentions, entities: &[u32]) -> Result<Vec<f32>> {
        match (mentions, &mut self.prepared) {
            (Mentions::Prepared(mentions), Some(prepared)) => prepared.score(mentions, entities),
            (Mentions::Features(side), None) => self.score_in_a_batch(side, entities),
            (Mentions::Features(side), Some(prepared)) => prepared.score_features(&self.model, side, entities),
            (Mentions::Prepared(_), None) => Err(Error::shape("link", "mentions that another model prepared")),
        }
    }

    /// Fusion's vectors of prepared entities, those of all scores side by side (entities, scores * d).
    pub fn fused(&self, entities: &[u32]) -> Result<Vec<f32>> {
        let prepared = self.prepared.as_ref();
        let prepared = prepared.ok_or_else(|| Error::shape("link", "vectors of entities that are not prepared"))?;
        Ok(prepared.index.fused(&prepared.places(entities)?))
    }

    /// Scores of one mention, computed as training does.
    fn score_in_a_batch(&self, mention: &Side, entities: &[u32]) -> Result<Vec<f32>> {
        let n = entities.len();
        let side = self.batcher.side(&self.batcher.items(entities)?, n)?;
        let pairs = Pairing::new(vec![0; n], 1, (0..n as u32).collect(), n)?;
        let batch = Batch::new(mention.clone(), side, pairs, Vec::new())?;
        let tape = Tape::inference();
        let vars = self.model.parameters().bind(&tape);
        self.model.gpu().map_or(Ok(()), |gpu| batch.stage(gpu))?;
        let scores = self.model.scores(&tape, &vars, &batch, None)?;
        Ok(scores.values.tensor().to(None)?.data().to_vec())
    }
}

impl Prepared {
    fn new(
        (model, gpu): (&Model, Option<&Gpu>),
        batcher: &Batcher,
        count: usize,
        keeping: Keeping,
    ) -> Result<Prepared> {
        let manifest = batcher.store().manifest();
        let config = model.config();
        let rows = manifest.patches.saturating_add(manifest.max_tokens / 2).saturating_mul(config.d);
        let full = keeping.full_precision || rows.saturating_mul(4 * count) <= FULL_PRECISION_BYTES;
        let element = if full { Element::F32 } else { Element::F16 };
        // Rows and logit vectors; queries, what Eq. 7 makes of them, and Fusion's vectors stay f32.
        let wide = rows.saturating_add(2 * config.heads * config.d).saturating_mul(if full { 4 } else { 2 });
        let bytes = wide.saturating_add(4 * 7 * config.d);
        let mut room = available_memory().unwrap_or(UNKNOWN_MEMORY) / 100 * keeping.percent / bytes.max(1);
        let scorer = Scorer::new(model)?;
        let on_device = gpu.map(|gpu| GpuScorer::new(&scorer, gpu)).transpose()?;
        if let Some(gpu) = gpu {
            // The largest table is that of the rows of one modality.
            let table = rows.saturating_mul(if full { 4 } else { 2 });
            room = room.min(gpu.available()? / 100 * gpu.resident_percent() / table.max(1));
        }
        let index = EntityIndex::new(&scorer, element);
        Ok(Prepared { scorer, on_device, element, index, place: HashMap::new(), room })
    }

    /// Prepares the entities that are not yet.
    fn add(
        &mut self,
        (model, batcher): (&Model, &Batcher),
        count: usize,
        entities: &[u32],
        bar: &ProgressBar,
    ) -> Result<()> {
        let lacks = |place: &HashMap<u32, u32>| -> Vec<u32> {
            entities.iter().filter(|e| !place.contains_key(e)).copied().collect()
        };
        let mut missing = lacks(&self.place);
        if missing.is_empty() {
            return Ok(());
        }
        match self.on_device.is_some() {
            // The index goes there as a whole, so it shall not grow.
            true if self.room >= count => missing = (0..count as u32).collect(),
            false if self.index.len() + missing.len() <= self.room => {}
            _ => {
                self.index = EntityIndex::new(&self.scorer, self.element);
                self.place.clear();
                missing = lacks(&self.place);
            }
        }
        bar.set_length(bar.position() + missing.len() as u64);
        let first = self.index.len() as u32;
        index_entities(model, batcher, &missing, &mut self.index, bar)?;
        self.place.extend(missing.into_iter().zip(first..));
        Ok(())
    }

    fn places(&self, entities: &[u32]) -> Result<Vec<u32>> {
        let place = |entity: &u32| self.place.get(entity).copied();
        let places: Option<Vec<u32>> = entities.iter().map(place).collect();
        places.ok_or_else(|| Error::shape("link", "entities that are not prepared"))
    }

    fn score_features(&mut self, model: &Model, mention: &Side, entities: &[u32]) -> Result<Vec<f32>> {
        let places = self.places(entities)?;
        match &mut self.on_device {
            Some(on_device) => Ok(on_device.score_features(model, mention, &self.index, &[&places])?.concat()),
            None => self.score(&[PreparedSide::new(model, mention)?.mention(0)], entities),
        }
    }

    fn score(&mut self, mentions: &[PreparedMention], entities: &[u32]) -> Result<Vec<f32>> {
        let places = self.places(entities)?;
        match &mut self.on_device {
            None => self.scorer.score_together(mentions, &self.index, &places),
            Some(scorer) => {
                let scores = mentions.iter().map(|mention| scorer.score(*mention, &self.index, &places));
                Ok(scores.collect::<Result<Vec<_>>>()?.concat())
            }
        }
    }
}
