//! Operations of all models, a folder each: `mod.rs` says what it computes and for whom, `cpu` and `cuda` compute it, and
//! `kernels/` has its kernel.
//!
//! A differentiable operation ([`Op`](crate::autograd::Op)) is a value that holds what is not differentiated (row numbers, sequence borders,
//! settings); its tensors come as inputs. [`Tape::apply`](crate::autograd::Tape::apply) runs it. The others are for inference alone.

mod activation;
mod adamw;
pub mod attention;
pub mod cases;
mod clip_norm;
mod combine;
mod contrastive;
pub mod convolution;
pub mod cross_attention;
mod cross_entropy;
mod dropout;
mod elementwise;
pub mod embedding;
mod features;
mod gather;
mod hinge;
mod lanes;
pub mod layer_norm;
pub mod linear;
pub mod link;
pub mod matmul;
mod mix;
mod mlp;
mod multi_pool;
mod multiply;
mod normalize;
pub mod paged_attention;
mod pairing;
pub mod pool;
mod project;
pub mod reduce;
pub mod rms_norm;
pub mod sample;
mod score;
mod sequence_pool;
mod sum;
pub mod top_k;
mod two_layers;

pub use adamw::{AdamW, Moments};
pub use attention::differentiable::Attention;
pub use clip_norm::clip_norm;
pub use combine::Combine;
pub use contrastive::Contrastive;
pub use convolution::differentiable::Convolution;
pub use cross_attention::{AttentionWeights, CrossAttention};
pub use cross_entropy::{CrossEntropy, Gold};
pub use dropout::Dropout;
pub use features::Features;
pub use gather::Gather;
pub use hinge::Hinge;
pub use layer_norm::differentiable::LayerNorm;
pub use linear::Activation;
pub use linear::differentiable::Linear;
pub use mix::Mix;
pub use mlp::Mlp;
pub use multi_pool::MultiPool;
pub use multiply::Multiply;
pub use normalize::Normalize;
pub use pairing::{Groups, Pairing};
pub use pool::differentiable::MaxPool;
pub use project::Project;
pub use score::{Operand, Score};
pub use sequence_pool::{Pooling, SequencePool};
pub use sum::{Sum, add_on};

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// An output's gradient that does not lie where the output was computed.
fn elsewhere(op: &'static str) -> Error {
    Error::shape(op, "the gradient does not lie where the output does")
}

/// Fails unless `inputs` has `count` elements.
fn arity<'a, 'b, const N: usize>(op: &'static str, inputs: &'a [&'b Tensor]) -> Result<&'a [&'b Tensor; N]> {
    inputs.try_into().map_err(|_| Error::shape(op, format!("{} inputs, needs {N}", inputs.len())))
}
