//! Judging a model: ranks and metrics, and replaying the reference's draws.

mod baselines;
mod best;
mod blocks;
mod comparison;
mod entities;
mod linker;
mod metrics;
mod ranking;
pub mod replay;
mod run_file;
mod run_metrics;
mod shortlist;
pub mod statistics;
mod vectors;
mod whole;

pub use baselines::{Baselines, chance};
pub use comparison::Comparison;
pub use entities::Keeping;
pub use linker::{Link, Linked, Linker};
pub use metrics::{Metrics, rank};
pub use ranking::{Evaluation, GoldRanks, Ranked, computed_together, evaluate, index_entities, metrics_of};
pub use run_file::write_run;
pub use run_metrics::{GoldRank, RunMetrics, RunRanks};
pub use shortlist::{FirstStage, Recall, ShortlistSettings};
pub use vectors::{FusionVectors, share_of};
pub use whole::{BATCH as WHOLE_KB_BATCH, WholeKb, WholeKbEvaluation, evaluate_whole};
