//! Operations: shapes, costs, forward and backward of each, one file per operation.
//!
//! An operation is a value that holds what is not differentiated (row numbers, sequence borders, settings); its
//! tensors come as inputs. [`crate::tape::Tape::apply`] runs it.

mod adamw;
pub mod cases;
mod cost;
mod cross_attention;
mod cross_entropy;
mod dropout;
mod mlp;
mod multi_pool;
mod pairing;
mod project;
mod score;

pub use adamw::{AdamW, Moments};
pub use cost::Cost;
pub use cross_attention::{Attention, CrossAttention};
pub use cross_entropy::{CrossEntropy, Gold};
pub use dropout::Dropout;
pub use mlp::Mlp;
pub use multi_pool::MultiPool;
pub use pairing::{Groups, Pairing};
pub use project::Project;
pub use score::{Operand, Score};

use crate::error::{Error, Result};
use crate::tape::InputGrads;
use crate::tensor::Tensor;

/// A differentiable operation on tensors.
pub trait Op: 'static {
    /// What backward needs from forward; dropped with the tape's node.
    type Saved: 'static;

    /// The operation's name, as in `kernels/` and in reports.
    fn name(&self) -> &'static str;

    /// Name of input `i`, for error messages.
    fn input_name(&self, i: usize) -> &'static str;

    /// What forward and backward cost on inputs of these shapes.
    fn cost(&self, inputs: &[&[usize]]) -> Cost;

    /// Computes the output and what backward will need.
    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Self::Saved)>;

    /// Adds the gradients of the inputs that need one. `grad` is the gradient of the output.
    fn backward(&self, saved: Self::Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let _ = (saved, grad, grads);
        Err(Error::NoBackward { op: self.name() })
    }
}

/// An output's gradient that does not lie where the output was computed.
fn elsewhere(op: &'static str) -> Error {
    Error::shape(op, "the gradient does not lie where the output does")
}

/// Fails unless `inputs` has `count` elements.
fn arity<'a, 'b, const N: usize>(op: &'static str, inputs: &'a [&'b Tensor]) -> Result<&'a [&'b Tensor; N]> {
    inputs.try_into().map_err(|_| Error::shape(op, format!("{} inputs, needs {N}", inputs.len())))
}
