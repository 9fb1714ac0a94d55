//! Training: settings, the loop, checkpoints; and of encoders, along with a model or from pairs of images and texts.

mod activations;
mod checkpoint;
mod chunks;
mod config;
mod encoder;
mod memory;
mod part;
pub mod pretrain;
mod record;
mod running;
mod share;
mod source;
mod steps;
mod together;
mod trainer;

pub use checkpoint::{Checkpoint, EncoderState, Origin, Progress, RunIdentity, Start, TrainedModel};
pub use config::{ModelSettings, RunConfig, Schedule, TrainSettings};
pub use encoder::{Along, EncoderRun, EncoderSettings, Gradients, Prepared};
pub use memory::Needs;
pub use record::{EpochRecord, Stages};
pub use source::Features;
pub use steps::{Queued, Steps, Update};
pub use together::Ingredients;
pub use trainer::Trainer;
