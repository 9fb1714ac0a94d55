//! What is kept and told of a run: an epoch's losses and metrics, and where the time went.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::data::read_records;
use crate::error::Result;
use crate::eval::Metrics;
use crate::files;

/// Time spent in each part of the loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stages {
    /// Waiting for the next batch, which is put together meanwhile.
    pub waiting: Duration,
    /// Forward, backward and AdamW, and waiting for a device to do them.
    pub steps: Duration,
    /// Of that, waiting for other ranks' gradients with nothing else to do.
    pub ranks: Duration,
    /// Ranking the validation mentions.
    pub validation: Duration,
    /// Writing checkpoints and models.
    pub files: Duration,
}

impl Stages {
    /// Name and share of the whole of each part.
    pub fn shares(&self) -> Vec<(&'static str, f64)> {
        let parts = [
            ("waiting for batches", self.waiting),
            ("steps", self.steps.saturating_sub(self.ranks)),
            ("waiting for other ranks", self.ranks),
            ("validation", self.validation),
            ("files", self.files),
        ];
        let total: Duration = parts.iter().map(|p| p.1).sum();
        let share = |part: Duration| part.as_secs_f64() / total.as_secs_f64().max(1e-9);
        // Of a single rank's run nobody wants to read that it waited for none.
        let told = parts.iter().filter(|(name, part)| *name != "waiting for other ranks" || !part.is_zero());
        told.map(|(name, part)| (*name, share(*part))).collect()
    }
}

/// What one epoch came to; a line of `train.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean over the epoch's mentions of Eq. 12.
    pub loss: f64,
    /// The same of each score.
    pub losses: Vec<(String, f64)>,
    /// On the validation mentions, if there are any.
    pub valid: Option<Metrics>,
    /// Whether this is the best epoch so far.
    pub best: bool,
    /// Training mentions per second, without validation.
    pub samples_per_second: f64,
}

/// The log's lines of the first `epochs` epochs; a run killed after it wrote a line writes that line again.
pub(super) fn read_log<T: DeserializeOwned>(path: &Path, epochs: usize) -> Result<Vec<T>> {
    if epochs == 0 {
        return Ok(Vec::new());
    }
    read_records(path)?.into_iter().map(|(_, record)| record).take(epochs).collect()
}

/// Writes a line for each epoch.
pub(super) fn write_log<T: Serialize>(path: &Path, records: &[T]) -> Result<()> {
    files::write_whole(path, |out| {
        for record in records {
            writeln!(out, "{}", serde_json::to_string(record)?)?;
        }
        Ok(())
    })
}
