//! The FissFuse model (sections 3.2 and 3.3 of the paper).

mod batch;
mod config;
mod fissfuse;
mod fission;
mod fusion;
mod index;
mod params;

pub use batch::{Batch, Modality, Side};
pub use config::{Ablation, Branch, Modalities, ModelConfig, Parts, ScoreKind, Widths};
pub use fissfuse::{FissFuse, Noise, Scores, Step, mean_over_scores};
pub use index::{EntityIndex, GpuScorer, PreparedMention, PreparedSide, Scorer};
pub use params::{Parameters, Variables};
