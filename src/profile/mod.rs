//! How much work a model is and how fast the engine does it.

pub mod synthetic;
