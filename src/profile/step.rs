//! One training step on a synthetic batch.

use super::synthetic::Shape;
use crate::device::Gpu;
use crate::error::Result;
use crate::model::{Batch, FissFuse, ModelConfig, Noise};
use crate::ops::{AdamW, Moments};

/// A model, its optimizer and a batch that it sees again and again.
pub struct TrainingStep {
    model: FissFuse,
    moments: Vec<Moments>,
    batch: Batch,
    step: u64,
}

impl TrainingStep {
    /// Draws weights and batch by seed, for a device or the host.
    pub fn new(config: ModelConfig, shape: Shape, seed: u64, gpu: Option<&Gpu>) -> Result<TrainingStep> {
        let batch = shape.batch(config.widths, seed)?;
        let model = FissFuse::new(config, seed)?;
        let moments = model.parameters().tensors().iter().map(|t| Moments::zeros(t.shape()).to(gpu));
        let moments = moments.collect::<Result<_>>()?;
        Ok(TrainingStep { model: model.to(gpu)?, moments, batch, step: 0 })
    }

    /// Forward, backward and AdamW with the paper's learning rate; gives the loss.
    pub fn run(&mut self) -> Result<f32> {
        let noise = Noise { seed: 0, step: self.step as u32 };
        let result = self.model.gradients(&self.batch, Some(noise))?;
        self.step += 1;
        let parameters = self.model.parameters_mut().tensors_mut();
        AdamW::default().step(self.step, parameters, &result.gradients, &mut self.moments)?;
        if let Some(gpu) = self.model.gpu() {
            gpu.synchronize()?;
        }
        Ok(result.losses.iter().sum())
    }
}
