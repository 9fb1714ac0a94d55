//! What training, evaluation, linking and the benchmarks see of a model: its name, its parameters, the scores of a batch.

use super::batch::Batch;
use super::config::ModelConfig;
use super::layers::Layers;
use super::params::Plan;
use crate::autograd::Var;
use crate::error::Result;

/// Noise of one training step. Inference has none.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// The run's seed.
    pub seed: u64,
    /// Counts the run's steps.
    pub step: u32,
}

/// Which features a model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// Those of texts.
    pub text: bool,
    /// Those of images.
    pub image: bool,
}

/// What training minimizes, of each of a model's scores; their losses are added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Cross-entropy over the candidates (Eq. 12).
    CrossEntropy,
    /// Mean over the other candidates of what each is ahead of the right one less the margin, as far as that is positive.
    Hinge {
        /// How far the right one is to be ahead.
        margin: f32,
    },
}

/// A model's computation, without its weights: what an architecture is. Adding one takes its file and its line in
/// [`NETWORKS`](super::NETWORKS).
pub trait Network: Sync {
    /// Its name in configurations and files.
    fn name(&self) -> &'static str;

    /// Keys of the configuration that it heeds, widths of features aside; any other key must have its default.
    fn settings(&self) -> &'static [&'static str];

    /// Which features it reads.
    fn reads(&self, config: &ModelConfig) -> Reads {
        let _ = config;
        Reads { text: true, image: true }
    }

    /// Names of its scores, in the order of [`Network::forward`]'s rows. A candidate's similarity is their mean (Eq. 11).
    fn scores(&self, config: &ModelConfig) -> Vec<&'static str>;

    /// Adds its parameters, in the order in which they are stored.
    fn parameters(&self, config: &ModelConfig, plan: &mut Plan);

    /// What training minimizes.
    fn loss(&self, config: &ModelConfig) -> Loss {
        let _ = config;
        Loss::CrossEntropy
    }

    /// Scores of all pairs of a batch (scores, pairs).
    fn forward(&self, layers: &Layers, batch: &Batch, noise: Option<Noise>) -> Result<Var>;

    /// Whether a step of it can be recorded as a CUDA graph: not if its forward makes arrays that no batch holds.
    fn records(&self) -> bool {
        true
    }

    /// Whether a side's items can be prepared without the other side, by [`PreparedSide`](super::PreparedSide).
    fn prepares(&self) -> bool {
        false
    }
}
