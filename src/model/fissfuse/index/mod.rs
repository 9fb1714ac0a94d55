//! Inference: everything that depends on one side alone is computed once, and a pair costs what depends on both.

mod attention;
mod entities;
mod gpu_scorer;
mod group;
mod prepared;
mod scorer;

pub use entities::EntityIndex;
pub use gpu_scorer::{GpuScorer, LinkTimes};
pub use prepared::{PreparedMention, PreparedSide};
pub use scorer::Scorer;
