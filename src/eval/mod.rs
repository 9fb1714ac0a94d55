//! Judging a model: ranks and metrics, and replaying the reference's draws.

mod linker;
mod metrics;
mod ranking;
pub mod replay;

pub use linker::{Link, Linked, Linker};
pub use metrics::{Metrics, rank};
pub use ranking::{Evaluation, Ranked, evaluate, index_entities};
