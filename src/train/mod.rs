//! Training: settings, the loop, checkpoints.

mod checkpoint;
mod config;
mod memory;
mod running;
mod share;
mod steps;
mod trainer;

pub use checkpoint::{Checkpoint, Origin, Progress, RunIdentity, Start, TrainedModel};
pub use config::{ModelSettings, RunConfig, Schedule, TrainSettings};
pub use memory::Needs;
pub use steps::{Steps, Update};
pub use trainer::{EpochRecord, Stages, Trainer};
