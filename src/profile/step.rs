//! One training step on a synthetic batch.

use super::synthetic::Shape;
use crate::error::Result;
use crate::model::{Batch, Model, ModelConfig, Noise};
use crate::ops::{AdamW, Moments};
use crate::tensor::Later;
use crate::train::{Steps, Update};

/// A model, its optimizer and a batch that it sees again and again.
pub struct TrainingStep {
    pub(super) model: Model,
    pub(super) moments: Vec<Moments>,
    pub(super) batch: Batch,
    steps: Steps,
    pub(super) step: u64,
    /// Losses of the step that was queued last.
    pending: Option<Later>,
}

impl TrainingStep {
    /// Draws weights and batch by seed, for the device or the host of `steps`.
    pub fn new(config: ModelConfig, shape: Shape, seed: u64, steps: Steps) -> Result<TrainingStep> {
        let batch = shape.batch(config.widths, seed)?;
        let model = Model::new(config, seed)?.to(steps.gpu())?;
        let moments = model.parameters().tensors().iter().map(|t| Moments::zeros(t.shape()).to(steps.gpu()));
        let moments = moments.collect::<Result<_>>()?;
        Ok(TrainingStep { model, moments, batch, steps, step: 0, pending: None })
    }

    /// The model as it stands.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How steps are queued.
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Another batch for the steps from now on.
    pub fn set_batch(&mut self, batch: Batch) {
        self.batch = batch;
    }

    /// Queues forward, backward and AdamW with the paper's learning rate, and waits for the step before, as training does;
    /// gives that step's loss, if there was one.
    pub fn queue(&mut self) -> Result<Option<f32>> {
        let noise = Noise { seed: 0, step: self.step as u32 };
        self.step += 1;
        let update = Update { adamw: AdamW::default(), number: self.step, weight: 1.0 };
        let queued = self.steps.run((&mut self.model, &mut self.moments), &self.batch, noise, update)?;
        self.pending.replace(queued.losses).map(loss).transpose()
    }

    /// A step from beginning to end; gives its loss.
    pub fn run(&mut self) -> Result<f32> {
        self.queue()?;
        self.pending.take().map_or(Ok(f32::NAN), loss)
    }
}

fn loss(losses: Later) -> Result<f32> {
    Ok(losses.wait()?.data().iter().sum())
}
