//! The whole model: projection of the features (Eq. 2), both branches, six scores, loss (Eq. 11, 12).

use super::batch::{Batch, Modality, Side};
use super::config::{ModelConfig, ScoreKind};
use super::params::{Parameters, Variables};
use super::{fission, fusion};
use crate::autograd::{Tape, Var};
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::{CrossAttention, CrossEntropy, Dropout, Mlp, Operand, Pairing, Project, Score};
use crate::tensor::{FeatureRows, Indices, Ragged, Tensor};

/// A configuration with its parameters.
#[derive(Clone, Debug)]
pub struct FissFuse {
    config: ModelConfig,
    parameters: Parameters,
}

/// Scores of a batch's pairs.
pub struct Scores {
    /// Which scores, in the order of the rows.
    pub kinds: Vec<ScoreKind>,
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

/// Noise of one training step. Inference has none.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// The run's seed.
    pub seed: u64,
    /// Counts the run's steps.
    pub step: u32,
}

impl FissFuse {
    /// A model with initial weights drawn by seed.
    pub fn new(config: ModelConfig, seed: u64) -> Result<FissFuse> {
        config.check()?;
        let parameters = Parameters::random(&config, seed);
        Ok(FissFuse { config, parameters })
    }

    /// A model with these weights, which must be the configuration's.
    pub fn with_parameters(config: ModelConfig, parameters: Parameters) -> Result<FissFuse> {
        config.check()?;
        Ok(FissFuse { config, parameters })
    }

    /// The same model with its weights in a device's memory, or with `None` in the host's.
    pub fn to(&self, gpu: Option<&Gpu>) -> Result<FissFuse> {
        Ok(FissFuse { config: self.config.clone(), parameters: self.parameters.to(gpu)? })
    }

    /// The device its weights lie on; `None` for the host.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.parameters.tensors().first().and_then(Tensor::gpu)
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
        let network = Network { config: &self.config, tape, vars };
        let mention = network.project(&batch.mention, noise, 0)?;
        let entity = network.project(&batch.entity, noise, 1)?;
        let mut vectors = fission::vectors(&network, &mention, &entity, batch)?;
        vectors.extend(fusion::vectors(&network, &mention, &entity)?);
        let kinds = self.config.scores();
        let chosen: Vec<&Compared> = kinds.iter().filter_map(|kind| vectors.iter().find(|v| v.kind == *kind)).collect();
        let operands = chosen.iter().map(|c| c.operand).collect();
        let inputs: Vec<&Var> = chosen.iter().flat_map(|c| [&c.mention, &c.entity]).collect();
        let values = tape.apply(Score { pairs: batch.pairs.clone(), operands }, &inputs)?;
        Ok(Scores { kinds, values })
    }

    /// Scores, the loss of each score, and the gradient of their sum for every parameter.
    pub fn gradients(&self, batch: &Batch, noise: Option<Noise>) -> Result<Step> {
        let tape = Tape::recording();
        let vars = self.parameters.bind(&tape);
        let scores = self.scores(&tape, &vars, batch, noise)?;
        let loss = CrossEntropy { pairs: batch.pairs.clone(), gold: batch.gold.clone() };
        let losses = tape.apply(loss, &[&scores.values])?;
        let seed = Tensor::filled(losses.tensor().shape(), 1.0, self.gpu())?;
        let grads = tape.backward(&losses, seed)?;
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

/// One modality of a side, projected to d.
pub(super) struct Projected {
    pub name: &'static str,
    /// 0 for text, 1 for images.
    pub modality: usize,
    pub tokens: Var,
    pub sequences: Ragged,
    pub global: Var,
}

/// Two vectors whose dot product is a score.
pub(super) struct Compared {
    pub kind: ScoreKind,
    pub operand: Operand,
    pub mention: Var,
    pub entity: Var,
}

/// A configuration on a tape, with the building blocks that both branches use.
pub(super) struct Network<'a> {
    pub config: &'a ModelConfig,
    pub tape: &'a Tape,
    pub vars: &'a Variables,
}

impl Network<'_> {
    /// Eq. 2 for the modalities that take part. `side` tells the two sides' dropout masks apart.
    pub fn project(&self, side: &Side, noise: Option<Noise>, which: u32) -> Result<Vec<Projected>> {
        let parts = self.config.parts();
        let modalities = [("text", parts.text, &side.text), ("image", parts.image, &side.image)];
        let mut projected = Vec::new();
        for (index, (name, _, modality)) in modalities.into_iter().enumerate().filter(|(_, m)| m.1) {
            let stream = 4 * which + 2 * index as u32;
            let Modality { tokens, sequences, global } = modality;
            let textbook = sequences.textbook();
            projected.push(Projected {
                name,
                modality: index,
                tokens: self.projection(name, tokens, textbook.rows(), noise, stream)?,
                sequences: sequences.clone(),
                global: self.projection(&format!("{name}_global"), global, textbook.sequences, noise, stream + 1)?,
            });
        }
        Ok(projected)
    }

    fn projection(
        &self,
        name: &str,
        features: &FeatureRows,
        textbook_rows: usize,
        noise: Option<Noise>,
        stream: u32,
    ) -> Result<Var> {
        let weights = self.vars.group(name, ["linear.weight", "linear.bias", "norm.weight", "norm.bias"])?;
        let op = Project { features: features.clone(), eps: self.config.layer_norm_eps, textbook_rows };
        let out = self.tape.apply(op, &weights)?;
        match noise {
            Some(Noise { seed, step }) if self.config.dropout > 0.0 => {
                let op = Dropout { p: self.config.dropout, seed, stream: (step, stream) };
                self.tape.apply(op, &[&out])
            }
            _ => Ok(out),
        }
    }

    /// Two layers on inputs laid side by side.
    pub fn mlp(&self, name: &str, parts: &[&Var], textbook_rows: usize) -> Result<Var> {
        let weights = self.vars.group(name, ["hidden.weight", "hidden.bias", "out.weight", "out.bias"])?;
        let inputs: Vec<&Var> = weights.into_iter().chain(parts.iter().copied()).collect();
        self.tape.apply(Mlp { textbook_rows }, &inputs)
    }

    /// Each pair's query against its sequence; with the pairs, where their attention weights begin.
    pub fn attention(
        &self,
        name: &str,
        query: &Var,
        tokens: &Projected,
        (pairs, starts): (Pairing, Indices),
        textbook_pairs: usize,
    ) -> Result<Var> {
        let layers = ["query.weight", "query.bias", "key.weight", "key.bias", "value.weight", "value.bias"];
        let rest = ["out.weight", "out.bias", "norm.weight", "norm.bias"];
        let inputs: Vec<&Var> = [query, &tokens.tokens]
            .into_iter()
            .chain(self.vars.group(name, layers)?)
            .chain(self.vars.group(name, rest)?)
            .collect();
        let ModelConfig { heads, layer_norm_eps: eps, .. } = *self.config;
        let op = CrossAttention { heads, eps, sequences: tokens.sequences.clone(), pairs, starts, textbook_pairs };
        self.tape.apply(op, &inputs)
    }
}
