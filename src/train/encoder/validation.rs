//! The encoder as it stands, written as the directory that it will be used as; and validation with it, by the way that
//! `encode` and `eval` take.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;

use super::super::checkpoint::EncoderState;
use super::{EncoderRun, of_what_is_read};
use crate::data::{Batcher, FeatureStore, Items, Manifest, Skipped, encode};
use crate::device::DeviceChoice;
use crate::encoder::{Compute, Encoders, Precision};
use crate::error::Result;
use crate::eval::{Metrics, evaluate};
use crate::files::TemporaryFolder;
use crate::model::Model;

/// Names in the temporary folder.
const ENCODER: &str = "encoder";
const FEATURES: &str = "features";

/// An encoder that was written, and what a model does with its features.
pub struct Candidate {
    folder: TemporaryFolder,
    /// How its features are made.
    pub manifest: Manifest,
    /// On the mentions to validate with, if there are any that can be judged.
    pub valid: Option<Metrics>,
}

impl Candidate {
    /// Keeps the encoder's directory in the place of the one before.
    pub fn keep(&self, to: &Path) -> Result<()> {
        self.folder.hand_over(ENCODER, to)
    }
}

impl EncoderRun<'_> {
    /// Writes the encoder within the run's folder, and validates the model with its features.
    pub(in crate::train) fn validate(&self, run: &Path, model: &Model, encoder: &EncoderState) -> Result<Candidate> {
        let folder = TemporaryFolder::within(run)?;
        let directory = folder.path().join(ENCODER);
        self.files.write(&encoder.weights.merged()?, Precision::F32, &directory)?;
        let paths = of_what_is_read(self.files.written(&directory), self.model.reads());
        let open = |compute: &Compute| Encoders::open(&paths, compute);
        // Where a device's kernels do not take its sizes, the CPU does.
        let (encoders, _) = Compute::open(DeviceChoice::Auto, model.gpu().cloned(), self.encode.precision, open)?;
        let manifest = self.encode.manifest(&encoders);
        let valid = match self.valid.is_empty() {
            true => None,
            false => self.metrics(&encoders, &folder.path().join(FEATURES), model)?,
        };
        Ok(Candidate { folder, manifest, valid })
    }

    /// `None` if no mention has its gold entity among its candidates, or whatever leaves none to be judged.
    fn metrics(&self, encoders: &Encoders, features: &Path, model: &Model) -> Result<Option<Metrics>> {
        let mentions = self.valid.clone();
        let listed: BTreeSet<u32> =
            mentions.iter().flat_map(|mention| mention.listed().iter().chain(&mention.gold)).copied().collect();
        let entities: Vec<_> = listed.iter().map(|&entity| self.dataset.entities()[entity as usize].clone()).collect();
        let items = Items { root: self.dataset.root(), entities: &entities, mentions, part: None };
        let (mut skipped, bar) = (Skipped::default(), ProgressBar::hidden());
        encode(&items, encoders, &self.encode, features, self.tolerance, &mut skipped, &bar)?;
        skipped.0.iter().for_each(|error| self.leave_out(error));
        let batcher = Batcher::new(self.dataset, Arc::new(FeatureStore::open(features)?));
        let (samples, _) = batcher.samples(&self.valid, self.train.seed, self.train.gold_missing)?;
        if samples.is_empty() {
            return Ok(None);
        }
        Ok(Some(evaluate(model, &batcher, &samples, &bar)?.mean))
    }
}

/// The place of the encoder's directory in a run's folder.
pub(in crate::train) fn directory(run: &Path) -> PathBuf {
    run.join(ENCODER)
}
