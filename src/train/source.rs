//! What a run's steps compute on: features of a store, or texts and images for an encoder that is trained along.

use super::config::TrainSettings;
use super::encoder::{EncoderRun, Prepared};
use super::part::Part;
use crate::data::{Batcher, Manifest, Sample};
use crate::device::Gpu;
use crate::error::Result;
use crate::model::Batch;
use crate::span;

/// Where the features of a run come from.
pub enum Features<'a> {
    /// From a store.
    Stored(&'a Batcher),
    /// From an encoder that is trained along.
    Trained(Box<EncoderRun<'a>>),
}

impl<'a> From<&'a Batcher> for Features<'a> {
    fn from(batcher: &'a Batcher) -> Features<'a> {
        Features::Stored(batcher)
    }
}

impl Features<'_> {
    /// How they are made: of an encoder that is trained along, before it is.
    pub fn manifest(&self) -> &Manifest {
        match self {
            Features::Stored(batcher) => batcher.store().manifest(),
            Features::Trained(run) => run.manifest(),
        }
    }

    /// The encoder that is trained along, if one is.
    pub(super) fn encoder(&self) -> Option<&EncoderRun<'_>> {
        match self {
            Features::Stored(_) => None,
            Features::Trained(run) => Some(run),
        }
    }
}

/// What batches are made of.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub features: &'a Features<'a>,
    pub train: &'a [Sample],
    pub settings: &'a TrainSettings,
    pub gpu: Option<&'a Gpu>,
    /// From 0.
    pub epoch: usize,
    /// Whether it matters where in a batch a mention stands.
    pub noisy: bool,
}

/// What a step computes on.
pub(super) enum Ready {
    /// Features.
    Batch(Box<Batch>),
    /// Texts and images, whose features the step computes.
    Inputs(Box<Prepared>),
}

impl Source<'_> {
    /// This rank's part of the batch of these training samples, on its way to the device.
    pub fn batch(&self, part: Part) -> Result<Ready> {
        let _span = span!("batch");
        let number = |i: usize| (self.epoch * self.train.len() + i) as u64;
        let sample = |&i: &usize| of_epoch(&self.train[i], self.settings, number(i));
        let samples = |members: &[usize]| members.iter().map(sample).collect::<Vec<_>>();
        let batcher = match self.features {
            Features::Stored(batcher) => batcher,
            Features::Trained(run) => return Ok(Ready::Inputs(Box::new(run.prepare(&samples(part.members()))?))),
        };
        let batch = match self.noisy && !part.is_whole() {
            true => batcher.part_of_batch(&samples(part.batch), part.start..part.end)?,
            false => batcher.batch(&samples(part.members()))?,
        };
        if let Some(gpu) = self.gpu {
            batch.stage(gpu)?;
        }
        Ok(Ready::Batch(Box::new(batch)))
    }
}

/// A training sample as an epoch has it, where it is the one of this number.
pub(super) fn of_epoch(sample: &Sample, settings: &TrainSettings, number: u64) -> Sample {
    match settings.negatives {
        0 => sample.clone(),
        negatives => sample.with_negatives(negatives, settings.seed, number),
    }
}
