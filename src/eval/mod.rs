//! Judging a model: ranks and metrics, and replaying the reference's draws.

mod baselines;
mod comparison;
mod linker;
mod metrics;
mod ranking;
pub mod replay;
mod run_file;
mod run_metrics;
pub mod statistics;

pub use baselines::Baselines;
pub use comparison::Comparison;
pub use linker::{Link, Linked, Linker};
pub use metrics::{Metrics, rank};
pub use ranking::{Evaluation, Ranked, evaluate, index_entities};
pub use run_file::write_run;
pub use run_metrics::{GoldRank, RunMetrics, RunRanks};
