//! Layers of encoders and decoders, for inference (kernels/encoder_*.cu).
//!
//! Weights and the operands of products are bf16 under mixed arithmetic and f32 under f32 arithmetic; biases, embeddings,
//! the parameters of normalizations and whatever is normalized are f32 in both, and so are all sums.

mod attention;
mod convolution;
mod embedding;
mod matrix;
mod norm;
mod pool;
mod product;

pub use attention::{Heads, SequenceRows};
pub use convolution::{Convolution, Maps, Windows};
pub use embedding::{embed_patches, embed_tokens};
pub use matrix::{Element, Matrix};
pub use norm::Norm;
pub use pool::{mean, unit_length};
pub use product::{Activation, Gemm};
