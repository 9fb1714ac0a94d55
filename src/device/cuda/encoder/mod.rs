//! Layers of encoders and decoders, for inference (kernels/encoder_*.cu).
//!
//! Activations and weights are [`Matrix`]: bf16 under mixed arithmetic, f32 under f32 arithmetic. Biases and the
//! parameters of normalizations are f32 in both; so are all sums.

mod matrix;
mod product;

pub use matrix::{Element, Matrix};
pub use product::{Activation, Gemm};
