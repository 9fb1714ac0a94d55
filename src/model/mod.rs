//! Models: what one is ([`Network`]), all of them by name ([`NETWORKS`]), and one with its weights ([`Model`]).

mod baselines;
mod batch;
mod config;
mod fissfuse;
mod instance;
mod layers;
mod network;
mod params;
mod placed;
mod registry;

pub use batch::{Batch, Modality, Side, Source};
pub use config::{Ablation, Branch, Modalities, ModelConfig, Parts, ScoreKind, Widths};
pub use fissfuse::{EntityIndex, GpuScorer, LinkTimes, PreparedMention, PreparedSide, Scorer};
pub use instance::{Model, Scores, Step, mean_over_scores};
pub use layers::Layers;
pub use network::{Loss, Network, Noise, Reads};
pub use params::Plan;
pub use registry::{Architecture, NETWORKS};
