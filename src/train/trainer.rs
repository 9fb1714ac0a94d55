//! The training loop.

mod start;
mod validation;

use std::path::PathBuf;
use std::time::Instant;

use indicatif::ProgressBar;
use rand::seq::SliceRandom;

use super::checkpoint::{Checkpoint, Progress, RunIdentity, TrainedModel};
use super::config::TrainSettings;
use super::encoder::{Along, directory};
use super::memory::Needs;
use super::record::{EpochRecord, Stages, write_log};
use super::running::{Pending, Running};
use super::source::{Features, Source};
use super::steps::Steps;
use super::together;
use crate::data::Sample;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::files;
use crate::files::names::{BEST, LAST, TRAINING};
use crate::interrupt;
use crate::model::Model;
use crate::parallel::Group;
use crate::provenance::Provenance;
use crate::random::{Purpose, generator};

/// A training run.
pub struct Trainer<'a> {
    folder: PathBuf,
    features: Features<'a>,
    /// How the encoders of the features are trained along, if they are.
    along: Option<Along>,
    train: Vec<Sample>,
    valid: Vec<Sample>,
    settings: TrainSettings,
    provenance: Provenance,
    state: Checkpoint,
    needs: Needs,
    steps: Steps,
    /// The step whose losses were not looked at yet: it may still be computed.
    pending: Option<Pending>,
    /// Whether a rank of those that train together was asked to stop.
    asked: bool,
    records: Vec<EpochRecord>,
    stages: Stages,
}

impl<'a> Trainer<'a> {
    /// The model as it stands.
    pub fn model(&self) -> &Model {
        &self.state.model
    }

    /// Weights of the encoder that is trained along, those that are trained and all of them; none if none is.
    pub fn encoder(&self) -> Option<(usize, usize)> {
        let weights = &self.state.encoder.as_ref()?.weights;
        Some((weights.trained().count(), weights.count()))
    }

    /// Where the run stands.
    pub fn progress(&self) -> &Progress {
        &self.state.progress
    }

    /// How many images an encoder that is trained along could not read and left out.
    pub fn left_out(&self) -> usize {
        match &self.features {
            Features::Trained(run) => run.left_out(),
            Features::Stored(_) => 0,
        }
    }

    /// What it needs of memory at least.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// How many mentions it trains on.
    pub fn mentions(&self) -> usize {
        self.train.len()
    }

    /// The epochs so far.
    pub fn records(&self) -> &[EpochRecord] {
        &self.records
    }

    /// Where the time of this process went.
    pub fn stages(&self) -> Stages {
        Stages { ranks: self.steps.waited(), ..self.stages }
    }

    /// The ranks that train together, if there are several.
    fn group(&self) -> Option<&Group> {
        self.steps.group().map(|group| &**group)
    }

    /// Whether this process reads and writes the run's folder.
    fn leads(&self) -> bool {
        self.group().is_none_or(Group::leads)
    }

    /// Whether there is anything to train.
    fn learns(&self) -> bool {
        !self.model().parameters().is_empty() || self.state.encoder.is_some()
    }

    /// Steps of an epoch: none where nothing is trained.
    fn batches(&self) -> usize {
        if self.learns() { self.train.len().div_ceil(self.settings.batch_size) } else { 0 }
    }

    /// Epochs of the run: what learns nothing is validated once.
    pub fn epochs(&self) -> usize {
        if self.learns() { self.settings.epochs } else { 1 }
    }

    /// Runs the epochs that are left; `done` sees each as it ends.
    pub fn run(&mut self, bar: &ProgressBar, mut done: impl FnMut(&EpochRecord)) -> Result<()> {
        if self.leads() {
            self.write_description()?;
        }
        while self.state.progress.epoch < self.epochs() {
            bar.set_length(self.batches() as u64);
            bar.set_position(self.state.progress.batch as u64);
            bar.set_message(format!("epoch {}", self.state.progress.epoch + 1));
            let (start, before) = (Instant::now(), self.state.progress.mentions);
            self.epoch(bar)?;
            let speed = (self.state.progress.mentions - before) as f64 / start.elapsed().as_secs_f64();
            let record = self.end_epoch(speed)?;
            done(&record);
            if self.state.progress.epoch < self.epochs() {
                self.stop_if_asked()?;
            }
        }
        bar.finish_and_clear();
        self.group().map_or(Ok(()), Group::finish)
    }

    /// Trains the batches that are left of the current epoch.
    fn epoch(&mut self, bar: &ProgressBar) -> Result<()> {
        let epoch = self.state.progress.epoch as u64;
        let mut order: Vec<usize> = (0..self.train.len()).collect();
        order.shuffle(&mut generator(self.settings.seed, Purpose::EpochOrder, epoch));
        let batches: Vec<&[usize]> = order.chunks(self.settings.batch_size).take(self.batches()).collect();
        let batches = together::parts(&batches, self.group());
        let gpu = self.steps.gpu().cloned();
        let first = batches.get(self.state.progress.batch);
        let source = self.split(gpu.as_ref()).source;
        let mut ready = first.map(|part| source.batch(*part)).transpose()?;
        while let Some(batch) = ready {
            // The next batch is put together meanwhile.
            let (part, next) = (batches[self.state.progress.batch], batches.get(self.state.progress.batch + 1));
            let (start, alone) = (Instant::now(), self.group().is_none());
            let mut run = self.split(gpu.as_ref());
            let source = run.source;
            let mut prepared = Ok(None);
            let prepare = || prepared = next.map(|part| source.batch(*part)).transpose();
            let stepped = match &gpu {
                None if alone => rayon::join(|| run.step(&batch, part), prepare).0,
                // One that waits for other ranks must not keep a thread that they may need.
                _ => beside(|| run.step(&batch, part), prepare),
            };
            let computing = stepped?;
            self.stages.steps += computing;
            self.stages.waiting += start.elapsed().saturating_sub(computing);
            ready = prepared?;
            bar.inc(1);
            let (batch, every) = (self.state.progress.batch, self.settings.checkpoint_steps);
            let due = self.asked() || every > 0 && batch.is_multiple_of(every);
            if due && batch < batches.len() {
                self.settle()?;
                self.write_checkpoint()?;
                self.stop_if_asked()?;
            }
        }
        self.settle()
    }

    /// Whether this run was asked to stop: of ranks that train together, whether one was, as all know after the same step.
    fn asked(&self) -> bool {
        if self.group().is_some() { self.asked } else { interrupt::asked() }
    }

    /// Fails if this run was asked to stop, once all ranks are so far.
    fn stop_if_asked(&self) -> Result<()> {
        let Some(group) = self.group() else { return interrupt::check(|| self.how_to_go_on()) };
        if !self.asked {
            return Ok(());
        }
        group.finish()?;
        interrupt::check(|| self.how_to_go_on())?;
        Err(Error::Rank(format!("another rank was asked to stop: {}", self.how_to_go_on())))
    }

    fn how_to_go_on(&self) -> String {
        let (step, last) = (self.state.progress.step, self.folder.join(LAST));
        format!("step {step} is finished and kept in {}; the same command with --resume goes on", last.display())
    }

    /// What a step changes, beside what the next batch is made of.
    fn split<'s>(&'s mut self, gpu: Option<&'s Gpu>) -> Running<'s> {
        let steps_of_run = (self.settings.epochs as u64).saturating_mul(self.batches() as u64);
        let (epoch, settings) = (self.state.progress.epoch, &self.settings);
        let noisy = self.state.model.config().dropout > 0.0;
        let source = Source { features: &self.features, train: &self.train, settings, gpu, epoch, noisy };
        let (state, steps, pending) = (&mut self.state, &mut self.steps, &mut self.pending);
        Running { source, state, steps, pending, asked: &mut self.asked, steps_of_run }
    }

    /// Looks at the losses of the step that was queued last: before anything is written, so that a model that broke is not.
    fn settle(&mut self) -> Result<()> {
        let start = Instant::now();
        let pending = self.pending.take();
        let settled = pending.map_or(Ok(false), |pending| pending.settle(&mut self.state.progress));
        self.stages.steps += start.elapsed();
        self.asked |= settled?;
        Ok(())
    }

    /// Validates, keeps the model if it is the best, and writes the checkpoint from which the next epoch starts.
    fn end_epoch(&mut self, samples_per_second: f64) -> Result<EpochRecord> {
        let start = Instant::now();
        if let Some(group) = self.group() {
            let epoch = self.state.progress.epoch + 1;
            group.now(format!("in the validation after epoch {epoch}"));
            together::same_weights(group, &self.state.model, epoch)?;
        }
        let (valid, candidate) = self.validate()?;
        self.stages.validation += start.elapsed();
        let progress = &mut self.state.progress;
        let epoch = progress.epoch + 1;
        let mean = |sum: &f64| sum / progress.mentions.max(1) as f64;
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
            // A sum of nothing is -0.
            loss: losses.iter().sum::<f64>() + 0.0,
            losses: kinds.into_iter().map(str::to_string).zip(losses).collect(),
            valid,
            best,
            samples_per_second,
        };
        self.records.push(record.clone());
        if !self.leads() {
            return Ok(record);
        }
        let start = Instant::now();
        if best {
            let (path, mut run) = (self.folder.join(BEST), self.identity());
            if let Some(candidate) = &candidate {
                candidate.keep(&directory(&self.folder))?;
                run.manifest = &candidate.manifest;
            }
            TrainedModel::write(&path, &self.state.model, run, epoch, valid)?;
        }
        drop(candidate);
        self.write_log()?;
        self.stages.files += start.elapsed();
        self.write_checkpoint()?;
        Ok(record)
    }

    fn write_checkpoint(&mut self) -> Result<()> {
        if !self.leads() {
            return Ok(());
        }
        let start = Instant::now();
        self.state.write(&self.folder.join(LAST), self.identity())?;
        self.stages.files += start.elapsed();
        Ok(())
    }

    fn identity(&self) -> RunIdentity<'_> {
        let (manifest, encoder) = (self.features.manifest(), self.along.as_ref());
        RunIdentity { settings: &self.settings, manifest, encoder, provenance: &self.provenance }
    }

    /// `train.json`: what this run computes, on what and by what.
    fn write_description(&self) -> Result<()> {
        let (manifest, config) = (self.features.manifest(), self.state.model.config());
        let description =
            serde_json::json!({"model": config, "training": self.identity().origin(), "features": manifest});
        files::write_whole(&self.folder.join(TRAINING), |out| writeln!(out, "{description:#}"))
    }

    fn write_log(&self) -> Result<()> {
        write_log(&self.folder.join("train.jsonl"), &self.records)
    }
}

/// Does `here` on the calling thread and `beside` on one of rayon's. Unlike `rayon::join`, it never lets a thread that waits
/// for rayon in the middle of `here` take up `beside`: a step may be recording the device's stream, and a batch copies to it.
fn beside<T>(here: impl FnOnce() -> T, beside: impl FnOnce() + Send) -> T {
    rayon::in_place_scope(|scope| {
        scope.spawn(|_| beside());
        here()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use rayon::prelude::*;

    use super::*;

    /// Batches must not be put together by a thread that records a step and waits for rayon within it.
    #[test]
    fn what_runs_beside_a_step_never_runs_on_its_thread() {
        let here = thread::current().id();
        for _ in 0..50 {
            let sum = AtomicUsize::new(0);
            let step = || {
                (0..1000usize).into_par_iter().for_each(|i| {
                    sum.fetch_add(i, Ordering::Relaxed);
                });
                thread::current().id()
            };
            let mut prepared = here;
            let stepped = beside(step, || prepared = thread::current().id());
            assert_eq!((stepped, sum.into_inner()), (here, 499_500));
            assert_ne!(prepared, here);
        }
    }
}
