//! Batches put together of a feature store, as training has it done while the step before runs.

use std::sync::Arc;

use rand::seq::index;
use tempfile::TempDir;

use super::scale::{Lengths, write_world};
use super::simulation::{Images, Simulation};
use crate::data::{Batcher, Dataset, FeatureStore, GoldMissing, Mention, Sample, Skipped, Split, Tolerance};
use crate::error::{Error, Result};
use crate::model::{Batch, Widths};
use crate::random::{Purpose, generator};

/// Widths of the stored features: batches are made of row numbers, whatever the rows hold.
const WIDTH: usize = 8;

/// Batches that are made in turn, each of other mentions.
const BATCHES: usize = 8;

/// Sizes of the batches and of what they are taken from.
#[derive(Clone, Copy, Debug)]
pub struct BatchSizes {
    /// Entities of the knowledge base.
    pub entities: usize,
    /// Mentions of a batch.
    pub mentions: usize,
    /// Candidates of each, drawn from all entities.
    pub candidates: usize,
    /// Tokens of a text, patches of an image.
    pub lengths: Lengths,
    /// Draws everything.
    pub seed: u64,
}

/// Puts batches together.
pub struct Batches {
    batcher: Batcher,
    samples: Vec<Sample>,
    mentions: usize,
    next: usize,
    _folder: TempDir,
}

impl Batches {
    /// Writes a simulated dataset and its feature store into a temporary folder, and opens them.
    pub fn simulated(of: BatchSizes) -> Result<Batches> {
        let BatchSizes { entities, mentions, candidates, lengths, seed } = of;
        if candidates > entities || mentions == 0 || candidates == 0 {
            let reason = format!("{mentions} mentions with {candidates} of {entities} entities each make no batch");
            return Err(Error::invalid(reason));
        }
        let folder = tempfile::tempdir().map_err(Error::io(std::env::temp_dir(), "create"))?;
        let root = folder.path().join("world");
        // Seven of ten are mentions to train on.
        let simulation =
            Simulation { entities, mentions: (BATCHES * mentions * 10).div_ceil(7) + 3, images: Images::Named, seed };
        let widths = Widths { text: WIDTH, text_global: WIDTH, image: WIDTH, image_global: WIDTH };
        write_world(&root, simulation, lengths, widths, 1)?;
        let mut skipped = Skipped::default();
        let dataset = Dataset::open(&root.join("data"), Tolerance::Strict, &mut skipped)?;
        let store = FeatureStore::open(&root.join("parts").join("part-1-of-1"))?;
        let batcher = Batcher::new(&dataset, Arc::new(store));
        let mut drawn = dataset.mentions(Split::Train, &mut skipped)?;
        drawn.truncate(BATCHES * mentions);
        for (number, mention) in drawn.iter_mut().enumerate() {
            draw_candidates(mention, entities, candidates, seed, number as u64);
        }
        let (samples, _) = batcher.samples(&drawn, seed, GoldMissing::Drop)?;
        Ok(Batches { batcher, samples, mentions, next: 0, _folder: folder })
    }

    /// The next mentions' batch, with everything that depends on which mentions and entities it has.
    pub fn put_together(&mut self) -> Result<Batch> {
        let batches = self.samples.len() / self.mentions;
        let at = self.next % batches * self.mentions;
        self.next += 1;
        self.batcher.batch(&self.samples[at..at + self.mentions])
    }
}

/// Gives a mention its gold entity and others.
fn draw_candidates(mention: &mut Mention, entities: usize, candidates: usize, seed: u64, number: u64) {
    let mut rng = generator(seed, Purpose::Benchmark, number);
    let drawn = index::sample(&mut rng, entities, candidates).into_iter().map(|entity| entity as u32);
    let others = drawn.filter(|&entity| Some(entity) != mention.gold).take(candidates - 1);
    mention.candidates = Some(others.chain(mention.gold).collect());
}
