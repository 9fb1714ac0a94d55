//! How much work a model is and how fast the engine does it.

pub mod advice;
pub mod batches;
pub mod between;
pub mod by_op;
pub mod comparison;
pub mod contrastive;
pub mod counts;
pub mod data_sheet;
pub mod decoding;
pub mod encoding;
pub mod flops;
pub mod kar;
pub mod kernel_times;
pub mod latency;
pub mod layers;
pub mod llama;
pub mod load;
pub mod machine;
pub mod measurement;
mod memory;
pub mod ncu;
pub mod operations;
pub mod products;
pub mod proof;
pub mod sampling;
pub mod scale;
pub mod simulation;
pub mod step;
pub mod storage;
pub mod synthetic;
mod timing;

pub use memory::peak_memory;
pub use timing::Timing;
