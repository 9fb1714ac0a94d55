//! Training: settings, the loop, checkpoints.

mod checkpoint;
mod config;
mod running;
mod steps;
mod trainer;

pub use checkpoint::{Checkpoint, Progress, TrainedModel};
pub use config::{ModelSettings, RunConfig, Schedule, TrainSettings};
pub use steps::{Steps, Update};
pub use trainer::{EpochRecord, Stages, Trainer};
