//! Contrastive pre-training of CLIP-shaped encoders from pairs of images and texts.

mod checkpoint;
mod config;
mod gradients;
mod memory;
mod pairs;
mod retrieval;
mod run;
mod step;

pub use config::{PretrainConfig, PretrainSettings};
pub use pairs::{Pairs, PreparedPairs};
pub use retrieval::{Recall, Retrieval};
pub use run::{EpochRecord, Pretrainer};
pub use step::{Step, Stepped};
