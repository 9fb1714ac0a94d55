//! How long it takes to score mentions against candidates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rayon::prelude::*;

use super::advice::{COPY_IN, DEVICE, ENQUEUE};
use super::sampling::Laps;
use super::synthetic::Shape;
use super::timing::Timing;
use crate::bytes::Bytes;
use crate::device::Gpu;
use crate::device::cpu::available_memory;
use crate::encoder::{Compute, Encoders};
use crate::error::{Error, Result};
use crate::model::{
    EntityIndex, GpuScorer, LinkTimes, Modality, Model, ModelConfig, PreparedSide, Scorer, Side, Source,
};
use crate::random::{Purpose, generator};
use crate::tensor::{Element, FeatureRows, Indices, Ragged, Textbook};

/// Entities prepared at a time, and mentions that are linked one after the other.
const BLOCK: usize = 256;

/// Entities that are scored at a time where all are: as many as `fissfuse eval --protocol whole-kb` takes.
const WHOLE_BLOCK: usize = 4096;

/// Lists of candidates that are drawn beforehand: drawing is no part of linking.
const LISTS: usize = 1000;

/// Parts of a run, in their order.
pub const ENCODE: &str = "encode";
/// The mentions' rows are gathered from those that are cached.
pub const FEATURES: &str = "features in";
/// The candidates are prepared, where they are not yet.
pub const ENTITIES: &str = "prepare candidates";
/// The mentions are projected and their queries formed.
pub const MENTIONS: &str = "prepare mentions";
/// Each pair is scored.
pub const SCORE: &str = "score";
/// Both of it on a device, as one graph.
pub const MENTIONS_AND_SCORE: &str = "prepare and score";

/// What is at hand when mentions arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtHand {
    /// Candidates that are prepared, and the mentions' features.
    Prepared,
    /// The candidates' features and the mentions'.
    Cold,
    /// Everything but the scores.
    All,
    /// All entities, prepared, which every mention meets, and the mentions' features.
    Whole,
}

impl AtHand {
    /// As parameters name it.
    pub fn name(self) -> &'static str {
        match self {
            AtHand::Prepared => "prepared candidates",
            AtHand::Cold => "features of candidates",
            AtHand::All => "prepared candidates and mentions",
            AtHand::Whole => "the prepared knowledge base",
        }
    }
}

/// A model with prepared entities.
pub struct LatencyBench {
    model: Model,
    scorer: Scorer,
    on_device: Option<GpuScorer>,
    index: EntityIndex,
    element: Element,
    /// Features of mentions, and of entities that are not prepared.
    mentions: Side,
    cold: Side,
    seed: u64,
}

impl LatencyBench {
    /// Draws a model and `entities` prepared entities by seed, for a device or the host. Of `shape`, lengths alone count.
    pub fn new(
        config: ModelConfig,
        shape: Shape,
        (entities, element): (usize, Element),
        seed: u64,
        gpu: Option<&Gpu>,
    ) -> Result<Self> {
        if entities == 0 {
            return Err(Error::invalid("the number of entities must be at least 1"));
        }
        let on_host = Model::new(config, seed)?;
        let scorer = Scorer::new(&on_host)?;
        let on_device = gpu.map(|gpu| GpuScorer::new(&scorer, gpu)).transpose()?;
        let model = on_host.to(gpu)?;
        let widths = model.config().widths;
        let rows = (shape.mean_tokens + shape.patches) as u64;
        let least = (entities as u64).saturating_mul(rows * (model.config().d * element.size()) as u64);
        if let Some(free) = available_memory().filter(|&free| least > free as u64) {
            let (least, free) = (Bytes(least), Bytes::of(free));
            let reason = format!("{entities} entities take {least} at least, {free} are free; give fewer, or --half");
            return Err(Error::invalid(reason));
        }
        let mut index = EntityIndex::new(&scorer, element);
        while index.len() < entities {
            let items = BLOCK.min(entities - index.len());
            let side = shape.side(items, widths, seed, 2 + index.len() as u64)?;
            index.add(&PreparedSide::new(&model, &side)?, items)?;
        }
        let mentions = shape.side(BLOCK.max(shape.mentions), widths, seed, 1)?;
        let cold = shape.side(BLOCK, widths, seed, 0)?;
        Ok(LatencyBench { model, scorer, on_device, index, element, mentions, cold, seed })
    }

    /// From now on, prepared mentions are scored by a kernel that stays on the device, if there is one, until none came for `idle`.
    pub fn keep_resident(&mut self, idle: Duration) {
        self.on_device.iter_mut().for_each(|on_device| on_device.keep_resident(idle));
    }

    /// Batches of `mentions` mentions, each against `candidates` of its own. `encoders` read texts and images first; what the
    /// model scores are the drawn features all the same, whose widths fit.
    pub fn runs<'a>(
        &'a mut self,
        (mentions, candidates): (usize, usize),
        at_hand: AtHand,
        encoded: Option<&'a EncodedMentions>,
    ) -> Result<LinkRuns<'a>> {
        for (name, number) in [("mentions", mentions), ("candidates", candidates)] {
            if number == 0 {
                return Err(Error::invalid(format!("0 {name}: must be at least 1")));
            }
        }
        let of = match at_hand {
            AtHand::Cold => self.cold.text.sequences.len(),
            AtHand::Prepared | AtHand::All | AtHand::Whole => self.index.len(),
        };
        let candidates = if at_hand == AtHand::Whole { of } else { candidates };
        let mut rng = generator(self.seed, Purpose::Benchmark, 1000);
        let mut list = || (0..mentions * candidates).map(|_| rng.random_range(0..of as u32)).collect::<Vec<u32>>();
        let lists = match at_hand {
            AtHand::Whole => vec![(0..of as u32).collect()],
            _ => (0..LISTS.div_ceil(mentions)).map(|_| list()).collect(),
        };
        let prepared = match at_hand {
            AtHand::All => Some(PreparedSide::new(&self.model, &select(&self.mentions, 0..mentions as u32)?)?),
            _ => None,
        };
        Ok(LinkRuns { bench: self, mentions, candidates, at_hand, lists, prepared, encoded, run: 0 })
    }
}

/// Batches that are linked one after the other.
pub struct LinkRuns<'a> {
    bench: &'a mut LatencyBench,
    mentions: usize,
    candidates: usize,
    at_hand: AtHand,
    lists: Vec<Vec<u32>>,
    prepared: Option<PreparedSide>,
    encoded: Option<&'a EncodedMentions>,
    run: usize,
}

impl LinkRuns<'_> {
    /// Links the next batch; gives scores (kinds, candidates) of each mention, or of the whole knowledge base scores
    /// (mentions, kinds, entities) of each block of it.
    pub fn run(&mut self, laps: &mut Laps) -> Result<Vec<Vec<f32>>> {
        let LatencyBench { model, scorer, on_device, index, mentions, cold, element, .. } = &mut *self.bench;
        let list = &self.lists[self.run % self.lists.len()];
        let all = mentions.text.sequences.len();
        let first = self.run * self.mentions % all;
        self.run += 1;
        if let Some(encoded) = self.encoded {
            encoded.run(self.mentions)?;
            laps.lap(ENCODE);
        }
        let drawn;
        let side = match &self.prepared {
            Some(prepared) => prepared,
            None => {
                let side = select(mentions, (first..first + self.mentions).map(|i| (i % all) as u32))?;
                laps.lap(FEATURES);
                if let Some(on_device) =
                    on_device.as_mut().filter(|on_device| self.at_hand == AtHand::Prepared && !on_device.is_resident())
                {
                    let lists: Vec<&[u32]> = list.chunks(self.candidates).collect();
                    let scores = on_device.score_features(model, &side, index, &lists)?;
                    laps.lap(MENTIONS_AND_SCORE);
                    return Ok(scores);
                }
                drawn = PreparedSide::new(model, &side)?;
                laps.lap(MENTIONS);
                &drawn
            }
        };
        let prepared_now;
        let (index, list): (&EntityIndex, Vec<u32>) = match self.at_hand {
            AtHand::Cold => {
                let mut fresh = EntityIndex::new(scorer, *element);
                fresh.add(&PreparedSide::new(model, &select(cold, list.iter().copied())?)?, list.len())?;
                prepared_now = fresh;
                laps.lap(ENTITIES);
                (&prepared_now, (0..list.len() as u32).collect())
            }
            AtHand::Prepared | AtHand::All | AtHand::Whole => (index, list.clone()),
        };
        if self.at_hand == AtHand::Whole {
            let together: Vec<_> = (0..self.mentions).map(|m| side.mention(m)).collect();
            let blocks = list.chunks(WHOLE_BLOCK);
            let scores = match on_device {
                Some(on_device) => {
                    let pairs = blocks.flat_map(|block| together.iter().map(move |mention| (mention, block)));
                    pairs.map(|(mention, block)| on_device.score(*mention, index, block)).collect::<Result<_>>()
                }
                None => blocks.map(|block| scorer.score_together(&together, index, block)).collect(),
            }?;
            laps.lap(SCORE);
            return Ok(scores);
        }
        let lists = list.chunks(self.candidates).enumerate();
        let scores = match on_device {
            Some(on_device) => lists.map(|(i, list)| on_device.score(side.mention(i), index, list)).collect(),
            None => {
                let lists = list.par_chunks(self.candidates).enumerate();
                lists.map(|(i, list)| scorer.score(side.mention(i), index, list)).collect::<Result<Vec<_>>>()
            }
        }?;
        laps.lap(SCORE);
        Ok(scores)
    }
}

impl LinkRuns<'_> {
    /// What a device takes to score a batch, part by part, of so many runs that are not those of [`LinkRuns::run`]: its mentions
    /// one after the other. Nothing on the host, nor where the candidates are prepared within a run or are all entities, nor by a
    /// kernel that stays.
    pub fn parts_of_device(&mut self, runs: usize) -> Result<Vec<(&'static str, Timing)>> {
        let LatencyBench { model, on_device, index, mentions, .. } = &mut *self.bench;
        let is_taken_apart = |on_device: &&mut GpuScorer| {
            matches!(self.at_hand, AtHand::Prepared | AtHand::All) && !on_device.is_resident()
        };
        let Some(on_device) = on_device.as_mut().filter(is_taken_apart) else {
            return Ok(Vec::new());
        };
        let all = mentions.text.sequences.len();
        let drawn;
        let side = match &self.prepared {
            Some(prepared) => prepared,
            None => {
                drawn = PreparedSide::new(model, &select(mentions, (0..self.mentions).map(|i| (i % all) as u32))?)?;
                &drawn
            }
        };
        let batch = |run: usize| -> Result<LinkTimes> {
            let mut sum = LinkTimes::default();
            for (i, list) in self.lists[run % self.lists.len()].chunks(self.candidates).enumerate() {
                sum += on_device.times(side.mention(i), index, list)?;
            }
            Ok(sum)
        };
        let times = (0..runs).map(batch).collect::<Result<Vec<_>>>()?;
        let part = |name: &'static str, of: fn(&LinkTimes) -> f64| -> Result<(&'static str, Timing)> {
            Ok((name, Timing::new(times.iter().map(of).collect())?))
        };
        Ok(vec![
            part(ENQUEUE, |times| times.enqueue)?,
            part(COPY_IN, |times| times.copy_in)?,
            part(DEVICE, |times| times.device)?,
        ])
    }
}

/// Rows of some items of a side.
fn select(side: &Side, items: impl IntoIterator<Item = u32>) -> Result<Side> {
    let items: Vec<u32> = items.into_iter().collect();
    let modality = |of: &Modality| -> Result<Modality> {
        let ranges = || items.iter().map(|&item| of.sequences.range(item as usize));
        let rows = ranges().flat_map(|range| range.start as u32..range.end as u32).collect::<Indices>();
        let textbook = Textbook { sequences: items.len(), length: of.sequences.textbook().length };
        let rows_of = |source: &Source, rows: Indices| {
            let stored = source.stored().ok_or_else(|| Error::invalid("features that are not stored"))?;
            Ok::<_, Error>(FeatureRows::new(Arc::clone(&stored.table), rows).into())
        };
        Ok(Modality {
            tokens: rows_of(&of.tokens, rows)?,
            sequences: Ragged::new(ranges().map(|range| range.len()), textbook)?,
            global: rows_of(&of.global, items.iter().copied().collect())?,
        })
    };
    Ok(Side { text: modality(&side.text)?, image: modality(&side.image)? })
}

/// Texts and images that encoders read with each batch: the same text and pixels drawn at random for each mention.
pub struct EncodedMentions {
    encoders: Encoders,
    text: String,
    max_tokens: usize,
    pixels: Vec<f32>,
}

impl EncodedMentions {
    /// Opens the encoders of a folder. The text is so many short words that the mean length is reached.
    pub fn open(folder: &Path, shape: &Shape, compute: &Compute) -> Result<EncodedMentions> {
        let encoders = Encoders::open(&folder.into(), compute.clone())?;
        let mut rng = generator(0, Purpose::Benchmark, 6);
        let size = encoders.image.as_ref().map_or(0, |encoder| encoder.processor().size());
        let pixels = (0..3 * size * size).map(|_| rng.random_range(-2.0..2.0)).collect();
        let text = vec!["a"; shape.mean_tokens.saturating_sub(2).max(1)].join(" ");
        Ok(EncodedMentions { encoders, text, max_tokens: shape.max_tokens, pixels })
    }

    /// Tells these encoders from others.
    pub fn identity(&self) -> String {
        let Encoders { text, image, .. } = &self.encoders;
        let (text, image) = (text.iter().map(|e| e.identity()), image.iter().map(|e| e.identity()));
        text.chain(image).collect::<Vec<_>>().join(", ")
    }

    fn run(&self, mentions: usize) -> Result<()> {
        if let Some(encoder) = &self.encoders.text {
            encoder.encode_texts(&vec![self.text.as_str(); mentions], self.max_tokens)?;
        }
        if let Some(encoder) = &self.encoders.image {
            encoder.encode_images(&vec![self.pixels.clone(); mentions])?;
        }
        Ok(())
    }
}
