//! Training: settings, the loop, checkpoints; and of encoders, from pairs of images and texts.

mod checkpoint;
mod config;
mod memory;
mod part;
pub mod pretrain;
mod record;
mod running;
mod share;
mod steps;
mod together;
mod trainer;

pub use checkpoint::{Checkpoint, Origin, Progress, RunIdentity, Start, TrainedModel};
pub use config::{ModelSettings, RunConfig, Schedule, TrainSettings};
pub use memory::Needs;
pub use record::{EpochRecord, Stages};
pub use steps::{Queued, Steps, Update};
pub use together::Ingredients;
pub use trainer::Trainer;
