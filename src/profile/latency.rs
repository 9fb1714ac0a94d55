//! How long it takes to score mentions against prepared candidates.

use rand::Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::synthetic::Shape;
use super::{Summary, Timing};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::model::{EntityIndex, GpuScorer, Model, ModelConfig, PreparedSide, Scorer, Side};
use crate::random::{Purpose, generator};
use crate::tensor::Element;

/// Entities prepared at a time.
const BLOCK: usize = 256;

/// Latency of one batch size.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Mentions at once.
    pub mentions: usize,
    /// Candidates of each.
    pub candidates: usize,
    /// From a mention's features to its scores.
    pub seconds: Summary,
    /// Mentions per second at the median.
    pub mentions_per_second: f64,
}

/// A model with prepared entities.
pub struct LatencyBench {
    model: Model,
    scorer: Scorer,
    on_device: Option<GpuScorer>,
    index: EntityIndex,
    shape: Shape,
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
        let mut index = EntityIndex::new(&model, element);
        while index.len() < entities {
            let items = BLOCK.min(entities - index.len());
            let side = shape.side(items, model.config().widths, seed, 2 + index.len() as u64)?;
            index.add(&PreparedSide::new(&model, &side)?, items)?;
        }
        Ok(LatencyBench { scorer, on_device, model, index, shape, seed })
    }

    /// Times `runs` batches of `mentions` mentions; every mention of every run has candidates of its own.
    pub fn measure(&mut self, mentions: usize, candidates: usize, runs: usize) -> Result<Latency> {
        if mentions == 0 || candidates == 0 {
            return Err(Error::invalid("mentions and candidates must be at least 1"));
        }
        let side = self.shape.side(mentions, self.model.config().widths, self.seed, 1)?;
        let mut rng = generator(self.seed, Purpose::Benchmark, 1000);
        let mut draw =
            || (0..mentions * candidates).map(|_| rng.random_range(0..self.index.len() as u32)).collect::<Vec<u32>>();
        // Drawn beforehand: drawing is no part of linking.
        let lists: Vec<Vec<u32>> = (0..runs.min(1000)).map(|_| draw()).collect();
        let mut lists = lists.iter().cycle();
        let timing = Timing::of(runs.div_ceil(10).min(100), runs, || {
            lists.next().map(|list| self.score(&side, list, candidates)).transpose()
        })?;
        let seconds = timing.summary();
        Ok(Latency { mentions, candidates, seconds, mentions_per_second: mentions as f64 / seconds.p50 })
    }

    /// Times scoring one mention that is prepared already, against the same list again and again.
    pub fn measure_prepared(&mut self, candidates: usize, runs: usize) -> Result<Summary> {
        let side = self.shape.side(1, self.model.config().widths, self.seed, 1)?;
        let prepared = PreparedSide::new(&self.model, &side)?;
        let mut rng = generator(self.seed, Purpose::Benchmark, 1000);
        let list: Vec<u32> = (0..candidates).map(|_| rng.random_range(0..self.index.len() as u32)).collect();
        Ok(Timing::of(runs.div_ceil(10), runs, || self.score_prepared(&prepared, &list, candidates))?.summary())
    }

    /// Prepares the mentions and scores each against its list.
    fn score(&mut self, side: &Side, lists: &[u32], candidates: usize) -> Result<Vec<Vec<f32>>> {
        let prepared = PreparedSide::new(&self.model, side)?;
        self.score_prepared(&prepared, lists, candidates)
    }

    fn score_prepared(&mut self, prepared: &PreparedSide, lists: &[u32], candidates: usize) -> Result<Vec<Vec<f32>>> {
        match &mut self.on_device {
            Some(scorer) => {
                let lists = lists.chunks(candidates).enumerate();
                lists.map(|(i, list)| scorer.score(prepared.mention(i), &self.index, list)).collect()
            }
            None => {
                let lists = lists.par_chunks(candidates).enumerate();
                lists.map(|(i, list)| self.scorer.score(prepared.mention(i), &self.index, list)).collect()
            }
        }
    }
}
