//! Checkpoints: everything a run needs to go on as if it had never stopped, and the weights that link mentions.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::TrainSettings;
use crate::data::Manifest;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::eval::Metrics;
use crate::model::{FissFuse, ModelConfig, Parameters};
use crate::ops::Moments;
use crate::settings::difference;
use crate::tensor::safetensors::{Reader, Writer};

/// Where a run stands. Every random draw is a function of the seed and of these counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs completed.
    pub epoch: usize,
    /// Batches of the current epoch that are done.
    pub batch: usize,
    /// Optimizer steps of the whole run.
    pub step: u64,
    /// Sums of each score's loss over the current epoch's mentions.
    pub loss_sums: Vec<f64>,
    /// Mentions of the current epoch that are done.
    pub mentions: usize,
    /// The best epoch so far (from 1) and its metrics.
    pub best: Option<(usize, Metrics)>,
}

/// What stands in the header of a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    config: ModelConfig,
    settings: TrainSettings,
    manifest: Manifest,
    dataset: String,
    progress: Progress,
}

/// A run at one moment.
#[derive(Debug)]
pub struct Checkpoint {
    /// Weights and their configuration.
    pub model: FissFuse,
    /// AdamW's moments of each parameter.
    pub moments: Vec<Moments>,
    /// Where the run stands.
    pub progress: Progress,
}

/// What a checkpoint must agree with to be resumed or written.
#[derive(Clone, Copy, Debug)]
pub struct RunIdentity<'a> {
    /// Settings of training.
    pub settings: &'a TrainSettings,
    /// How the features were made.
    pub manifest: &'a Manifest,
    /// Checksum of the dataset.
    pub dataset: &'a str,
}

impl Checkpoint {
    /// The same with weights and moments in a device's memory, or with `None` in the host's.
    pub fn to(&self, gpu: Option<&Gpu>) -> Result<Checkpoint> {
        let moments = self.moments.iter().map(|m| m.to(gpu)).collect::<Result<_>>()?;
        Ok(Checkpoint { model: self.model.to(gpu)?, moments, progress: self.progress.clone() })
    }

    /// Writes everything, whole or not at all.
    pub fn write(&self, path: &Path, run: RunIdentity) -> Result<()> {
        // What lies on a device is fetched before anything is written.
        let parameters = self.model.parameters().to(None)?;
        let all: Vec<Moments> = self.moments.iter().map(|m| m.to(None)).collect::<Result<_>>()?;
        let mut writer = Writer::default();
        parameters.write(&mut writer, "parameter.");
        for ((name, _), moments) in parameters.iter().zip(&all) {
            writer.tensor(format!("first.{name}"), &moments.first);
            writer.tensor(format!("second.{name}"), &moments.second);
        }
        writer.metadata(&Header {
            config: self.model.config().clone(),
            settings: run.settings.clone(),
            manifest: run.manifest.clone(),
            dataset: run.dataset.to_string(),
            progress: self.progress.clone(),
        })?;
        writer.write(path)
    }

    /// Reads a checkpoint of this very run; the number of epochs alone may differ.
    pub fn resume(path: &Path, config: &ModelConfig, run: RunIdentity) -> Result<Checkpoint> {
        let reader = Reader::open(path)?;
        let header: Header = reader.metadata()?;
        let refuse = |what: String| {
            let reason =
                format!("belongs to another run: {what}; give the settings it was started with, or another --out");
            Err(Error::file(path, reason))
        };
        if header.config != *config {
            return refuse(difference(&header.config, config));
        }
        let settings = TrainSettings { epochs: run.settings.epochs, ..header.settings.clone() };
        if settings != *run.settings {
            return refuse(difference(&header.settings, run.settings));
        }
        if let Some(what) = header.manifest.difference(run.manifest) {
            return refuse(what);
        }
        if header.dataset != run.dataset {
            return refuse("the dataset's files have changed since".into());
        }
        let parameters = Parameters::read_prefixed(&reader, config, "parameter.")?;
        let moment = |prefix: &str, (name, tensor): (&str, &crate::tensor::Tensor)| {
            reader.tensor_of(&format!("{prefix}.{name}"), tensor.shape())
        };
        let moments = parameters
            .iter()
            .map(|p| Ok(Moments { first: moment("first", p)?, second: moment("second", p)? }))
            .collect::<Result<_>>()?;
        let model = FissFuse::with_parameters(config.clone(), parameters)?;
        Ok(Checkpoint { model, moments, progress: header.progress })
    }
}

/// What stands in the header of a trained model.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ModelHeader {
    config: ModelConfig,
    manifest: Manifest,
    epoch: usize,
    metrics: Option<Metrics>,
}

/// A trained model and what it takes to use it.
#[derive(Debug)]
pub struct TrainedModel {
    /// Weights and their configuration.
    pub model: FissFuse,
    /// How the features it was trained on were made.
    pub manifest: Manifest,
    /// The epoch it is of, from 1.
    pub epoch: usize,
    /// Its metrics on the validation mentions, if there were any.
    pub metrics: Option<Metrics>,
}

impl TrainedModel {
    /// Writes a model for use.
    pub fn write(
        path: &Path,
        model: &FissFuse,
        manifest: &Manifest,
        epoch: usize,
        metrics: Option<Metrics>,
    ) -> Result<()> {
        let parameters = model.parameters().to(None)?;
        let mut writer = Writer::default();
        parameters.write(&mut writer, "");
        let (config, manifest) = (model.config().clone(), manifest.clone());
        writer.metadata(&ModelHeader { config, manifest, epoch, metrics })?;
        writer.write(path)
    }

    /// Reads a model; `path` is the file or the folder of its run.
    pub fn read(path: &Path) -> Result<TrainedModel> {
        let file = if path.is_dir() { path.join("best.safetensors") } else { path.to_path_buf() };
        let reader = Reader::open(&file)?;
        let ModelHeader { config, manifest, epoch, metrics } = reader.metadata()?;
        let parameters = Parameters::read(&reader, &config)?;
        Ok(TrainedModel { model: FissFuse::with_parameters(config, parameters)?, manifest, epoch, metrics })
    }

    /// Fails unless features made so are those the model was trained on.
    pub fn check(&self, manifest: &Manifest, place: &Path) -> Result<()> {
        match self.manifest.difference(manifest) {
            None => Ok(()),
            Some(what) => {
                let reason = format!("are features of another encoder than the model was trained on: {what}");
                Err(Error::file(place, reason))
            }
        }
    }
}
