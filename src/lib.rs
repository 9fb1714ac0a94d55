//! Multimodal entity linking: the FissFuse model and KAR, its re-ranking by a language model.

pub mod data;
pub mod device;
pub mod encoder;
pub mod error;
pub mod eval;
pub mod files;
pub mod model;
pub mod ops;
pub mod profile;
pub mod random;
pub mod tape;
pub mod tensor;

pub use error::{Error, Result};
