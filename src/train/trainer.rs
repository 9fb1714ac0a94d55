//! The training loop.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, Progress, RunIdentity, TrainedModel};
use super::config::TrainSettings;
use crate::data::{Batcher, Sample, read_records};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::eval::{Metrics, evaluate};
use crate::files;
use crate::model::{Batch, FissFuse, ModelConfig, Noise, Step};
use crate::ops::{AdamW, Moments};
use crate::random::{Purpose, generator};

/// Time spent in each part of the loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stages {
    /// Waiting for the next batch, which is put together meanwhile.
    pub waiting: Duration,
    /// Forward and backward.
    pub gradients: Duration,
    /// AdamW.
    pub optimizer: Duration,
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
            ("forward and backward", self.gradients),
            ("optimizer", self.optimizer),
            ("validation", self.validation),
            ("files", self.files),
        ];
        let total: Duration = parts.iter().map(|p| p.1).sum();
        let share = |part: Duration| part.as_secs_f64() / total.as_secs_f64().max(1e-9);
        parts.map(|(name, part)| (name, share(part))).to_vec()
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

/// A training run.
pub struct Trainer<'a> {
    folder: PathBuf,
    batcher: &'a Batcher,
    train: Vec<Sample>,
    valid: Vec<Sample>,
    settings: TrainSettings,
    dataset: String,
    state: Checkpoint,
    records: Vec<EpochRecord>,
    stages: Stages,
}

impl<'a> Trainer<'a> {
    /// A new run in `folder`, or with `resume` the one that was started there; on a device or the host.
    pub fn new(
        folder: &Path,
        (config, settings): (ModelConfig, TrainSettings),
        (batcher, dataset): (&'a Batcher, String),
        (train, valid): (Vec<Sample>, Vec<Sample>),
        resume: bool,
        gpu: Option<&Gpu>,
    ) -> Result<Trainer<'a>> {
        settings.check()?;
        let train: Vec<Sample> = train.into_iter().filter(|s| s.gold.is_some()).collect();
        if train.is_empty() {
            return Err(Error::invalid("no training mention has its gold entity among its candidates"));
        }
        if settings.batch_size > train.len() {
            let (size, mentions) = (settings.batch_size, train.len());
            tracing::warn!("batch_size {size} exceeds the {mentions} training mentions; every epoch is one step");
        }
        let last = folder.join("last.safetensors");
        let mut records = Vec::new();
        let state = match (last.exists(), resume) {
            (true, true) => {
                let run = RunIdentity { settings: &settings, manifest: batcher.store().manifest(), dataset: &dataset };
                let state = Checkpoint::resume(&last, &config, run)?;
                records = read_log(folder, state.progress.epoch)?;
                state
            }
            (false, _) => {
                let model = FissFuse::new(config, settings.seed)?;
                let moments = model.parameters().tensors().iter().map(|t| Moments::zeros(t.shape())).collect();
                Checkpoint { model, moments, progress: Progress::default() }
            }
            (true, false) => {
                let reason = "holds a run already; go on with it by --resume, or choose another folder for --out";
                return Err(Error::file(folder, reason));
            }
        };
        files::create_folder(folder)?;
        Ok(Trainer {
            folder: folder.to_path_buf(),
            batcher,
            train,
            valid,
            settings,
            dataset,
            state: state.to(gpu)?,
            records,
            stages: Stages::default(),
        })
    }

    /// The model as it stands.
    pub fn model(&self) -> &FissFuse {
        &self.state.model
    }

    /// Where the run stands.
    pub fn progress(&self) -> &Progress {
        &self.state.progress
    }

    /// The epochs so far.
    pub fn records(&self) -> &[EpochRecord] {
        &self.records
    }

    /// Where the time of this process went.
    pub fn stages(&self) -> Stages {
        self.stages
    }

    fn batches(&self) -> usize {
        self.train.len().div_ceil(self.settings.batch_size)
    }

    /// Runs the epochs that are left; `done` sees each as it ends.
    pub fn run(&mut self, bar: &ProgressBar, mut done: impl FnMut(&EpochRecord)) -> Result<()> {
        while self.state.progress.epoch < self.settings.epochs {
            bar.set_length(self.batches() as u64);
            bar.set_position(self.state.progress.batch as u64);
            bar.set_message(format!("epoch {}", self.state.progress.epoch + 1));
            let (start, before) = (Instant::now(), self.state.progress.mentions);
            self.epoch(bar)?;
            let speed = (self.state.progress.mentions - before) as f64 / start.elapsed().as_secs_f64();
            let record = self.end_epoch(speed)?;
            done(&record);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Trains the batches that are left of the current epoch.
    fn epoch(&mut self, bar: &ProgressBar) -> Result<()> {
        let epoch = self.state.progress.epoch as u64;
        let mut order: Vec<usize> = (0..self.train.len()).collect();
        order.shuffle(&mut generator(self.settings.seed, Purpose::EpochOrder, epoch));
        let batches: Vec<&[usize]> = order.chunks(self.settings.batch_size).collect();
        let prepare = |this: &Self, at: usize| batches.get(at).map(|members| this.batch(members)).transpose();
        let mut ready = prepare(self, self.state.progress.batch)?;
        while let Some(batch) = ready {
            // The next batch is put together meanwhile.
            let next = self.state.progress.batch + 1;
            let start = Instant::now();
            let (computed, prepared) = rayon::join(|| self.gradients(&batch), || prepare(self, next));
            let (result, computing) = computed?;
            self.stages.gradients += computing;
            self.stages.waiting += start.elapsed().saturating_sub(computing);
            self.optimize(result, batch.gold.len())?;
            ready = prepared?;
            bar.inc(1);
            let (batch, every) = (self.state.progress.batch, self.settings.checkpoint_steps);
            if every > 0 && batch.is_multiple_of(every) && batch < batches.len() {
                self.write_checkpoint()?;
            }
        }
        Ok(())
    }

    /// The batch of these training samples.
    fn batch(&self, members: &[usize]) -> Result<Batch> {
        let TrainSettings { negatives, seed, .. } = self.settings;
        let epoch = self.state.progress.epoch;
        let sample = |&i: &usize| match negatives {
            0 => self.train[i].clone(),
            n => self.train[i].with_negatives(n, seed, (epoch * self.train.len() + i) as u64),
        };
        let batch = self.batcher.batch(&members.iter().map(sample).collect::<Vec<_>>())?;
        if let Some(gpu) = self.state.model.gpu() {
            batch.stage(gpu)?;
        }
        Ok(batch)
    }

    /// Losses and gradients of a batch, and how long they took.
    fn gradients(&self, batch: &Batch) -> Result<(Step, Duration)> {
        let start = Instant::now();
        let Progress { epoch, step, .. } = self.state.progress;
        let noise = Noise { seed: self.settings.seed, step: step as u32 };
        let result = self.state.model.gradients(batch, Some(noise))?;
        let loss: f32 = result.losses.iter().sum();
        if !loss.is_finite() {
            let place = format!("epoch {}, step {}", epoch + 1, step + 1);
            return Err(Error::invalid(format!("the loss is {loss} at {place}; lower train.learning_rate")));
        }
        Ok((result, start.elapsed()))
    }

    /// One optimizer step by the gradients of a batch of this many mentions.
    fn optimize(&mut self, result: Step, mentions: usize) -> Result<()> {
        let start = Instant::now();
        let step = self.state.progress.step;
        let steps = (self.settings.epochs * self.batches()) as u64;
        let adamw = AdamW {
            learning_rate: self.settings.rate(step, steps),
            betas: self.settings.betas,
            eps: self.settings.eps,
            weight_decay: self.settings.weight_decay,
        };
        let parameters = self.state.model.parameters_mut().tensors_mut();
        adamw.step(step + 1, parameters, &result.gradients, &mut self.state.moments)?;
        let progress = &mut self.state.progress;
        progress.loss_sums.resize(result.losses.len(), 0.0);
        for (sum, loss) in progress.loss_sums.iter_mut().zip(&result.losses) {
            *sum += *loss as f64 * mentions as f64;
        }
        progress.mentions += mentions;
        progress.batch += 1;
        progress.step += 1;
        self.stages.optimizer += start.elapsed();
        Ok(())
    }

    /// Validates, keeps the model if it is the best, and writes the checkpoint from which the next epoch starts.
    fn end_epoch(&mut self, samples_per_second: f64) -> Result<EpochRecord> {
        let start = Instant::now();
        let valid = match self.valid.is_empty() {
            true => None,
            false => Some(evaluate(&self.state.model, self.batcher, &self.valid, &ProgressBar::hidden())?.mean),
        };
        self.stages.validation += start.elapsed();
        let progress = &mut self.state.progress;
        let epoch = progress.epoch + 1;
        let mean = |sum: &f64| sum / progress.mentions as f64;
        let losses: Vec<f64> = progress.loss_sums.iter().map(mean).collect();
        // Without validation mentions, the latest is taken for the best.
        let best = match (&valid, &progress.best) {
            (Some(metrics), Some((_, before))) => metrics.reciprocal > before.reciprocal,
            _ => true,
        };
        if best {
            progress.best = Some((epoch, valid.unwrap_or_default()));
        }
        *progress = Progress { epoch, step: progress.step, best: progress.best, ..Progress::default() };
        let kinds = self.state.model.config().scores();
        let record = EpochRecord {
            epoch,
            loss: losses.iter().sum(),
            losses: kinds.iter().map(|k| k.label().to_string()).zip(losses).collect(),
            valid,
            best,
            samples_per_second,
        };
        self.records.push(record.clone());
        let start = Instant::now();
        if best {
            let manifest = self.batcher.store().manifest();
            TrainedModel::write(&self.folder.join("best.safetensors"), &self.state.model, manifest, epoch, valid)?;
        }
        self.write_log()?;
        self.stages.files += start.elapsed();
        self.write_checkpoint()?;
        Ok(record)
    }

    fn write_checkpoint(&mut self) -> Result<()> {
        let start = Instant::now();
        let manifest = self.batcher.store().manifest();
        let run = RunIdentity { settings: &self.settings, manifest, dataset: &self.dataset };
        self.state.write(&self.folder.join("last.safetensors"), run)?;
        self.stages.files += start.elapsed();
        Ok(())
    }

    fn write_log(&self) -> Result<()> {
        files::write_whole(&self.folder.join("train.jsonl"), |out| {
            for record in &self.records {
                writeln!(out, "{}", serde_json::to_string(record)?)?;
            }
            Ok(())
        })
    }
}

/// The log's lines of the first `epochs` epochs; a run killed after it wrote a line writes that line again.
fn read_log(folder: &Path, epochs: usize) -> Result<Vec<EpochRecord>> {
    let path = folder.join("train.jsonl");
    if epochs == 0 {
        return Ok(Vec::new());
    }
    let records = read_records::<EpochRecord>(&path)?.into_iter().map(|(_, record)| record);
    records.take(epochs).collect()
}
