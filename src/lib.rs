//! Multimodal entity linking: the FissFuse model and KAR, its re-ranking by a language model.

pub mod autograd;
pub mod bytes;
pub mod candidates;
pub mod data;
pub mod device;
pub mod encoder;
pub mod error;
pub mod eval;
pub mod experiment;
mod fields;
pub mod files;
mod foreign;
mod guard;
mod http;
pub mod interrupt;
pub mod kar;
pub mod llama;
pub mod model;
pub mod ops;
pub mod parallel;
pub mod printable;
pub mod profile;
pub mod provenance;
pub mod random;
pub mod report;
pub mod search;
pub mod settings;
pub mod shard;
pub mod template;
pub mod tensor;
pub mod terminal;
pub mod tokenizer;
pub mod trace;
pub mod train;

pub use error::{Error, Result};
