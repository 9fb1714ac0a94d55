//! A run while it makes steps: putting the next batch together, queueing a step, looking at the losses of the one before.

use std::time::{Duration, Instant};

use super::checkpoint::{Checkpoint, Progress};
use super::encoder::{self, Rates};
use super::part::Part;
use super::source::{Features, Ready, Source};
use super::steps::{Queued, Steps, Update};
use crate::error::{Error, Result};
use crate::model::Noise;
use crate::ops::AdamW;
use crate::span;
use crate::tensor::Later;
use crate::trace;

/// What a step changes, beside what the next batch is made of.
pub(super) struct Running<'a> {
    pub source: Source<'a>,
    pub state: &'a mut Checkpoint,
    pub steps: &'a mut Steps,
    pub pending: &'a mut Option<Pending>,
    /// Whether a rank was asked to stop.
    pub asked: &'a mut bool,
    /// Steps of the whole run.
    pub steps_of_run: u64,
}

impl Running<'_> {
    /// Queues a step, and looks at the losses of the one before: so the device always has work while the host waits for it.
    /// Gives the time that took.
    pub fn step(&mut self, batch: &Ready, part: Part) -> Result<Duration> {
        let start = Instant::now();
        trace::next_step();
        let _span = span!("training step");
        let settings = self.source.settings;
        let Checkpoint { model, moments, encoder, progress } = &mut *self.state;
        let share = settings.share_of_rate(progress.step, self.steps_of_run);
        let adamw = AdamW {
            learning_rate: settings.learning_rate * share,
            betas: settings.betas,
            eps: settings.eps,
            weight_decay: settings.weight_decay,
        };
        let noise = Noise { seed: settings.seed, step: progress.step as u32 };
        let update = Update { adamw, number: progress.step + 1, weight: part.weight() };
        let on_device = trace::on_device(self.source.gpu, "training step", "");
        let place = format!("epoch {}, step {}", progress.epoch + 1, progress.step + 1);
        self.steps.group().iter().for_each(|group| group.now(format!("in {place}")));
        let queued = match (batch, self.source.features, encoder) {
            (Ready::Inputs(prepared), Features::Trained(run), Some(encoder)) => {
                let of_encoder = AdamW { learning_rate: run.settings().learning_rate * share, ..adamw };
                let rates = Rates { model: adamw, encoder: of_encoder, number: update.number };
                encoder::step(run, (model, moments, encoder), prepared, (noise, rates), &place)?
            }
            (Ready::Batch(batch), ..) => self.steps.run((model, moments), batch, noise, update)?,
            _ => return Err(Error::invalid("a step on texts and images without an encoder")),
        };
        drop(on_device);
        progress.batch += 1;
        progress.step += 1;
        let before = self.pending.replace(Pending { queued, mentions: part.batch.len(), place });
        if let Some(before) = before {
            *self.asked |= before.settle(progress)?;
        }
        Ok(start.elapsed())
    }
}

/// A step that was queued.
pub(super) struct Pending {
    queued: Queued,
    mentions: usize,
    /// Which it is.
    place: String,
}

impl Pending {
    /// Adds the losses to those of the epoch, once they are there. Whether a rank was asked to stop.
    pub fn settle(self, progress: &mut Progress) -> Result<bool> {
        let _span = span!("losses of the step before");
        let losses = self.queued.losses.wait()?;
        let losses = losses.data();
        let loss: f32 = losses.iter().sum();
        if !loss.is_finite() {
            return Err(Error::invalid(format!(
                "the loss is {loss} at {}; lower train.learning_rate or train.weight_decay",
                self.place
            )));
        }
        progress.loss_sums.resize(losses.len(), 0.0);
        for (sum, loss) in progress.loss_sums.iter_mut().zip(losses) {
            *sum += *loss as f64 * self.mentions as f64;
        }
        progress.mentions += self.mentions;
        let asked = self.queued.asked.map(Later::wait).transpose()?;
        Ok(asked.is_some_and(|ranks| ranks.data().iter().any(|&ranks| ranks > 0.0)))
    }
}
