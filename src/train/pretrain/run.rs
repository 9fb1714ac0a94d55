//! The loop.

use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use super::checkpoint::{Identity, Progress, State};
use super::config::PretrainSettings;
use super::memory;
use super::pairs::PreparedPairs;
use super::retrieval::Retrieval;
use super::step::Step;
use crate::autograd::Parameters;
use crate::device::{Gpu, describe};
use crate::encoder::Fingerprint;
use crate::encoder::clip::weights::LOG_SCALE;
use crate::encoder::clip::{ClipFiles, weights};
use crate::error::{Error, Result};
use crate::files;
use crate::files::names::{LAST, PRETRAIN_LOG};
use crate::interrupt;
use crate::provenance::Provenance;
use crate::span;
use crate::tensor::{Precision, Shards, float_precision};
use crate::trace;
use crate::train::checkpoint::Start;
use crate::train::record::{read_log, write_log};

/// The directory of the trained encoders, in a run's folder.
const ENCODER: &str = "encoder";

/// What one epoch came to; a line of `pretrain.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Counted from 1.
    pub epoch: usize,
    /// Steps of the run so far.
    pub step: u64,
    /// Mean over the epoch's steps.
    pub loss: f64,
    /// Its halves.
    pub text_to_image_loss: f64,
    pub image_to_text_loss: f64,
    /// What cosines are multiplied by at its end: the reciprocal of the temperature.
    pub scale: f32,
    /// Steps after which that was outside of 1 to 100, and was clamped.
    pub clamped_steps: usize,
    /// Mean length of the gradients, before it was clipped.
    pub gradient_norm: f64,
    /// Of the last step.
    pub learning_rate: f32,
    /// On the pairs to validate with, if there are any.
    pub valid: Option<Retrieval>,
    /// Of the training, without validation.
    pub pairs_per_second: f64,
}

/// A pre-training.
pub struct Pretrainer {
    folder: PathBuf,
    files: ClipFiles,
    train: PreparedPairs,
    valid: Option<PreparedPairs>,
    identity: Identity,
    state: State,
    records: Vec<EpochRecord>,
    gpu: Option<Gpu>,
}

impl Pretrainer {
    /// A run in `folder` of encoders with these files, drawn by seed or with the weights of the directory `from`.
    pub fn new(
        folder: &Path,
        (files, from): (ClipFiles, Option<&Path>),
        settings: PretrainSettings,
        train: PreparedPairs,
        valid: Option<PreparedPairs>,
        start: Start,
        gpu: Option<Gpu>,
    ) -> Result<Pretrainer> {
        settings.check()?;
        start.check(folder)?;
        memory::check(&files.config, &settings, &train, gpu.as_ref())?;
        let (batch_size, images) = (settings.batch_size, train.len());
        if batch_size > images {
            tracing::warn!(
                "batch_size {batch_size} exceeds the {images} images; every epoch is one step of all of them"
            );
        }
        let batches = images / batch_size.min(images).max(1);
        let steps = (settings.epochs as u64).saturating_mul(batches as u64);
        if settings.warmup_steps >= steps {
            let warmup = settings.warmup_steps;
            tracing::warn!(
                "warmup_steps {warmup} are no fewer than the {steps} steps of the run: the learning rate only rises"
            );
        }
        let shards = from.map(Shards::open).transpose()?;
        let from = match (from, &shards) {
            (Some(from), Some(shards)) => {
                let names: Vec<&str> = shards.files().collect();
                Some(Fingerprint::of(from, &names)?.as_str().to_string())
            }
            _ => None,
        };
        // Without the number of threads: no result depends on it.
        let device = gpu.as_ref().map_or("cpu".into(), |gpu| describe(Some(gpu)));
        let identity = Identity {
            model: files.config.clone(),
            files: files.checksum(),
            from,
            settings,
            valid: valid.as_ref().map(|pairs| pairs.checksum().to_string()),
            provenance: Provenance::new(device, train.checksum().to_string()),
        };
        let parameters = match &shards {
            Some(shards) => files.weights(shards)?,
            None => weights::initial(&files.config, identity.settings.seed)?,
        };
        let (state, records) = match start {
            Start::New => (State::new(parameters), Vec::new()),
            Start::Resume { .. } => {
                let state = State::resume(&folder.join(LAST), &parameters, &identity)?;
                let records = read_log(&folder.join(PRETRAIN_LOG), state.progress.epoch)?;
                (state, records)
            }
        };
        files::create_folder(folder)?;
        let state = state.to(gpu.as_ref())?;
        Ok(Pretrainer { folder: folder.to_path_buf(), files, train, valid, identity, state, records, gpu })
    }

    /// The weights as they stand.
    pub fn parameters(&self) -> &Parameters {
        &self.state.parameters
    }

    /// Epochs completed, and those of the run.
    pub fn epochs(&self) -> (usize, usize) {
        (self.state.progress.epoch, self.identity.settings.epochs)
    }

    /// Steps of an epoch.
    fn batches(&self) -> usize {
        self.train.len() / self.identity.settings.batch_size.min(self.train.len())
    }

    /// Runs the epochs that are left, `done` sees each as it ends; then writes the encoders' directory, its weights in f32
    /// or bf16, and says where.
    pub fn run(
        &mut self,
        precision: Precision,
        bar: &ProgressBar,
        mut done: impl FnMut(&EpochRecord),
    ) -> Result<PathBuf> {
        let description = serde_json::json!(self.identity);
        files::write_whole(&self.folder.join("pretrain.json"), |out| writeln!(out, "{description:#}"))?;
        while self.state.progress.epoch < self.identity.settings.epochs {
            bar.set_length(self.batches() as u64);
            bar.set_position(self.state.progress.batch as u64);
            bar.set_message(format!("epoch {}", self.state.progress.epoch + 1));
            let record = self.epoch(bar)?;
            done(&record);
            if self.state.progress.epoch < self.identity.settings.epochs {
                interrupt::check(|| self.how_to_go_on())?;
            }
        }
        bar.finish_and_clear();
        let encoder = self.folder.join(ENCODER);
        if encoder.exists() {
            let shards = Shards::open(&encoder)?;
            let names = shards.names().next().map(str::to_string);
            let found = names.map(|name| shards.reader(&name)?.dtype(&name)).transpose()?.and_then(float_precision);
            if found.is_some_and(|found| found != precision) {
                return Err(Error::file(
                    &encoder,
                    format!(
                        "is there already, in another precision than {precision}; remove it to have it written anew"
                    ),
                ));
            }
        } else {
            self.files.write(&self.state.parameters.to(None)?, precision, &encoder)?;
        }
        Ok(encoder)
    }

    /// Trains the batches that are left of the current epoch, validates, and writes the checkpoint of its end.
    fn epoch(&mut self, bar: &ProgressBar) -> Result<EpochRecord> {
        let PretrainSettings { batch_size, chunk, seed, checkpoint_steps, .. } = self.identity.settings;
        let batches = self.train.epoch(seed, self.state.progress.epoch as u64, batch_size);
        let (start, before) = (Instant::now(), self.state.progress.batch);
        for batch in &batches[before.min(batches.len())..] {
            self.step(batch)?;
            bar.inc(1);
            let done = self.state.progress.batch;
            let due = interrupt::asked() || checkpoint_steps > 0 && done.is_multiple_of(checkpoint_steps);
            if due && done < batches.len() {
                self.write_checkpoint()?;
                interrupt::check(|| self.how_to_go_on())?;
            }
        }
        let trained = batches[before.min(batches.len())..].iter().map(Vec::len).sum::<usize>();
        let pairs_per_second = trained as f64 / start.elapsed().as_secs_f64().max(1e-9);
        let valid = match &self.valid {
            None => None,
            Some(pairs) => {
                let _span = span!("validation");
                let model = (&self.files.config, &self.state.parameters);
                let at_once = if chunk > 0 { chunk } else { batch_size };
                Some(Retrieval::of(model, pairs, at_once, self.gpu.as_ref())?)
            }
        };
        let Progress { epoch, step, losses, norms, clamped, .. } = self.state.progress.clone();
        let steps = batches.len() as f64;
        let [text_to_image_loss, image_to_text_loss] = losses.map(|sum| sum / steps);
        let record = EpochRecord {
            epoch: epoch + 1,
            step,
            loss: (text_to_image_loss + image_to_text_loss) / 2.0,
            text_to_image_loss,
            image_to_text_loss,
            scale: self.state.parameters.get(LOG_SCALE)?.to(None)?.data()[0].exp(),
            clamped_steps: clamped,
            gradient_norm: norms / steps,
            learning_rate: self.identity.settings.rate(step.saturating_sub(1), self.steps()),
            valid,
            pairs_per_second,
        };
        self.records.push(record.clone());
        self.state.progress = Progress { epoch: epoch + 1, step, ..Progress::default() };
        write_log(&self.folder.join(PRETRAIN_LOG), &self.records)?;
        self.write_checkpoint()?;
        Ok(record)
    }

    /// Steps of the whole run.
    fn steps(&self) -> u64 {
        (self.identity.settings.epochs as u64).saturating_mul(self.batches() as u64)
    }

    fn step(&mut self, batch: &[(usize, usize)]) -> Result<()> {
        trace::next_step();
        let _span = span!("training step");
        let steps = self.steps();
        let State { parameters, moments, progress } = &mut self.state;
        let (config, settings) = (&self.files.config, &self.identity.settings);
        let place = format!("epoch {}, step {}", progress.epoch + 1, progress.step + 1);
        let (number, gpu) = ((progress.step, steps), self.gpu.as_ref());
        let step = Step { config, settings, number, place: &place, gpu, profile: None };
        let numbers: Vec<usize> = batch.iter().map(|(image, _)| *image).collect();
        let texts: Vec<&[u32]> = batch.iter().map(|&pair| self.train.text(pair)).collect();
        let run = |images: &[&[f32]]| step.run((parameters, moments), &texts, images);
        let stepped = self.train.with_images(&numbers, run)?;
        if stepped.clamped && progress.clamped == 0 {
            tracing::warn!(
                "{place}: the temperature left its bounds and was clamped, as CLIP's is: cosines are multiplied by 1 at \
                 least and by 100 at most"
            );
        }
        progress.losses.iter_mut().zip(stepped.losses).for_each(|(sum, loss)| *sum += loss as f64);
        *progress = Progress {
            batch: progress.batch + 1,
            step: progress.step + 1,
            norms: progress.norms + stepped.norm,
            clamped: progress.clamped + stepped.clamped as usize,
            ..progress.clone()
        };
        Ok(())
    }

    fn write_checkpoint(&self) -> Result<()> {
        self.state.write(&self.folder.join(LAST), &self.identity)
    }

    fn how_to_go_on(&self) -> String {
        let (step, last) = (self.state.progress.step, self.folder.join(LAST));
        format!("step {step} is finished and kept in {}; the same command with --resume goes on", last.display())
    }
}
