//! Training: settings, the loop, checkpoints.

mod checkpoint;
mod config;
mod trainer;

pub use checkpoint::{Checkpoint, Progress, TrainedModel};
pub use config::{ModelSettings, RunConfig, Schedule, TrainSettings};
pub use trainer::{EpochRecord, Stages, Trainer};
