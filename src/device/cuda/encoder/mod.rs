//! Layers of encoders and decoders, for inference (kernels/encoder_*.cu).
//!
//! Weights and the operands of products are bf16 or f32; biases, embeddings, the parameters of normalizations and whatever
//! is normalized are f32 in any case, and so are all sums.

mod attention;
mod convolution;
mod dense;
mod embedding;
mod matrix;
mod norm;
mod pool;
mod product;

pub use attention::SequenceRows;
pub use convolution::Convolution;
pub use dense::Dense;
pub use embedding::{ClassToken, Embedding};
pub use matrix::{Element, Matrix};
pub use norm::Norm;
pub use pool::{max_pool, mean};
pub use product::{Finish, Gemm};
pub(super) use product::{Output, THREADS, tile};
