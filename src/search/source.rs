//! Where a first stage's vectors are: what collects them where they have to be collected first.

use std::sync::Arc;

use super::on_device::placed;
use super::{Candidates, Flat, Int8Builder};
use crate::device::Gpu;
use crate::error::Result;

/// What finds the entities of a list.
#[derive(Clone, Debug, Default)]
pub enum Source {
    /// A scan of all vectors in f32, which are collected for it.
    #[default]
    Scan,
    /// A scan of all vectors in 8-bit integers, for which they are collected.
    ScanInt8,
    /// Something that holds the vectors of this model and this knowledge base, in the entities' order.
    Held(Arc<dyn Candidates>),
}

/// The vectors of all entities, on their way to what finds the nearest of them.
#[derive(Debug)]
pub enum Collector {
    /// Into a scan in f32, of this width.
    Flat(Vec<f32>, usize),
    /// Into a scan in 8-bit integers.
    Int8(Int8Builder),
    /// What has them already.
    Held(Arc<dyn Candidates>),
}

impl Collector {
    /// For `count` vectors of `width` numbers.
    pub fn new(source: &Source, count: usize, width: usize) -> Collector {
        match source {
            Source::Scan => Collector::Flat(Vec::with_capacity(count * width), width),
            Source::ScanInt8 => Collector::Int8(Int8Builder::new(width)),
            Source::Held(held) => Collector::Held(held.clone()),
        }
    }

    /// Whether what comes of it is a scan in f32, which others are compared with.
    pub fn is_exact(&self) -> bool {
        matches!(self, Collector::Flat(..))
    }

    /// Takes the vectors (n, width) that follow. Fails if they are no whole rows.
    pub fn add(&mut self, vectors: &[f32]) -> Result<()> {
        match self {
            Collector::Flat(all, _) => all.extend(vectors),
            Collector::Int8(builder) => builder.add(vectors)?,
            Collector::Held(_) => {}
        }
        Ok(())
    }

    /// What finds the nearest of all that were added.
    /// A scan is on the device, if there is one with room for it.
    pub fn finish(self, gpu: Option<&Gpu>) -> Result<Arc<dyn Candidates>> {
        match self {
            Collector::Flat(vectors, width) => placed(Flat::new(vectors, width)?, gpu),
            Collector::Int8(builder) => placed(builder.finish()?, gpu),
            Collector::Held(held) => Ok(held),
        }
    }
}
