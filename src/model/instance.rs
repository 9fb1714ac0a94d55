//! A network with its weights.

use super::batch::Batch;
use super::config::ModelConfig;
use super::layers::Layers;
use super::network::{Loss, Noise};
use crate::autograd::{Parameters, Tape, Var, Variables};
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::{CrossEntropy, Hinge};
use crate::span;
use crate::tensor::Tensor;
use crate::trace::on_device;

/// A configuration with its parameters.
#[derive(Clone, Debug)]
pub struct Model {
    config: ModelConfig,
    parameters: Parameters,
    /// Where the weights lie; `None` for the host.
    gpu: Option<Gpu>,
}

/// Scores of a batch's pairs.
pub struct Scores {
    /// Their names, in the order of the rows.
    pub kinds: Vec<&'static str>,
    /// (kinds, pairs)
    pub values: Var,
}

impl Scores {
    /// Mean over the scores of each pair (Eq. 11).
    pub fn similarity(&self) -> Result<Vec<f32>> {
        Ok(mean_over_scores(self.values.tensor().to(None)?.data(), self.kinds.len()))
    }
}

/// Mean of `kinds` rows, one after the other in `scores`.
pub fn mean_over_scores(scores: &[f32], kinds: usize) -> Vec<f32> {
    let pairs = scores.len() / kinds;
    (0..pairs).map(|p| (0..kinds).map(|k| scores[k * pairs + p]).sum::<f32>() / kinds as f32).collect()
}

impl Model {
    /// A model with initial weights drawn by seed.
    pub fn new(config: ModelConfig, seed: u64) -> Result<Model> {
        config.check()?;
        let parameters = Parameters::random(&config, seed);
        Ok(Model { config, parameters, gpu: None })
    }

    /// A model with these weights, which must be the configuration's and lie on the host.
    pub fn with_parameters(config: ModelConfig, parameters: Parameters) -> Result<Model> {
        config.check()?;
        Ok(Model { config, parameters, gpu: None })
    }

    /// The same model with its weights in a device's memory, or with `None` in the host's.
    pub fn to(&self, gpu: Option<&Gpu>) -> Result<Model> {
        let parameters = self.parameters.placed(&self.config, gpu)?;
        Ok(Model { config: self.config.clone(), parameters, gpu: gpu.cloned() })
    }

    /// The device its weights lie on; `None` for the host.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The weights, for the optimizer.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Scores of all pairs of a batch.
    pub fn scores(&self, tape: &Tape, vars: &Variables, batch: &Batch, noise: Option<Noise>) -> Result<Scores> {
        let layers = Layers { config: &self.config, tape, vars, gpu: self.gpu() };
        let values = self.config.network.forward(&layers, batch, noise)?;
        Ok(Scores { kinds: self.config.scores(), values })
    }

    /// The loss of each score (scores).
    pub fn losses(&self, tape: &Tape, scores: &Scores, batch: &Batch) -> Result<Var> {
        match self.config.network.loss(&self.config) {
            Loss::CrossEntropy => {
                let op = CrossEntropy { pairs: batch.pairs.clone(), gold: batch.gold.clone() };
                tape.apply(op, &[&scores.values])
            }
            Loss::Hinge { margin } => {
                let op = Hinge { pairs: batch.pairs.clone(), gold: batch.gold.clone(), margin };
                tape.apply(op, &[&scores.values])
            }
        }
    }

    /// Scores, the loss of each score, and the gradient of their sum for every parameter.
    pub fn gradients(&self, batch: &Batch, noise: Option<Noise>) -> Result<Step> {
        self.gradients_on(Tape::recording(), batch, noise)
    }

    /// The same on this tape, which records and has run nothing yet.
    pub fn gradients_on(&self, tape: Tape, batch: &Batch, noise: Option<Noise>) -> Result<Step> {
        self.gradients_in_two(tape, batch, noise, 1.0, |_| Ok(()))
    }

    /// The gradients of `weight` times the loss. `early` gets those that are whole before the backward of the first layer that
    /// has weights, with the numbers of their parameters; which they are depends on the model alone.
    pub fn gradients_in_two(
        &self,
        tape: Tape,
        batch: &Batch,
        noise: Option<Noise>,
        weight: f32,
        early: impl FnOnce(Vec<(usize, Tensor)>) -> Result<()>,
    ) -> Result<Step> {
        let forward = (span!("forward"), on_device(self.gpu(), "forward", ""));
        let vars = self.parameters.bind(&tape);
        let scores = self.scores(&tape, &vars, batch, noise)?;
        let losses = self.losses(&tape, &scores, batch)?;
        drop(forward);
        if self.parameters.is_empty() {
            return Ok(Step { scores, losses: losses.into_tensor(), gradients: Vec::new() });
        }
        let _backward = (span!("backward"), on_device(self.gpu(), "backward", ""));
        let seed = Tensor::filled(losses.tensor().shape(), weight, self.gpu())?;
        let grads = tape.backward_in_two(&losses, seed, |there| early(self.parameters.early(&vars, &there)))?;
        let gradients = self.parameters.gradients(vars, grads)?;
        Ok(Step { scores, losses: losses.into_tensor(), gradients })
    }
}

/// What one training step computes before the optimizer's turn, where the model's weights lie.
pub struct Step {
    /// Scores of the batch.
    pub scores: Scores,
    /// Loss of each score (kinds); Eq. 12 is their sum.
    pub losses: Tensor,
    /// Gradient of each parameter, in the parameters' order.
    pub gradients: Vec<Tensor>,
}
