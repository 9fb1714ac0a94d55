//! Automatic differentiation: what an operation must say of itself, and the tape that runs operations and their backwards.

mod cost;
mod profile;
mod tape;

pub use cost::{Account, Cost, KernelWork};
pub use profile::{Profile, Sample, Timed};
pub use tape::{Gradients, InputGrads, Tape, Var};

use crate::error::{Error, Result};
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
