//! Automatic differentiation: what an operation must say of itself, and the tape that runs operations and their backwards.

mod cost;
mod grads;
mod parameters;
mod profile;
mod tape;

pub use cost::{Account, Cost, KernelWork};
pub use grads::{Gradient, InputGrads, InstanceGrads};
pub use parameters::{Parameters, Variables};
pub use profile::{Profile, Sample, Timed};
pub use tape::{Early, Gradients, Tape, Var};

use crate::device::Gpu;
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

    /// What of that cost the gradient of one input takes by itself: it is not spent where that input needs none and another does.
    fn cost_of_gradient(&self, inputs: &[&[usize]], input: usize) -> Cost {
        let _ = (inputs, input);
        Cost::default()
    }

    /// Whether, on a device, the output is [normalized](Tensor::normalized): those that read it leave their parts of its gradient
    /// for this operation ([`InputGrads::leave`]), whose backward spends what putting them together costs.
    fn gathers(&self) -> bool {
        false
    }

    /// What forward and backward cost where the output is [normalized](Tensor::normalized), as that of one that [gathers](Op::gathers)
    /// may be; without the parts of its gradient, whose cost is that of who leaves them.
    fn cost_of_gathering(&self, inputs: &[&[usize]]) -> Cost {
        self.cost(inputs)
    }

    /// What forward and backward cost where input `input` is [normalized](Tensor::normalized): who made it puts its gradient together.
    fn cost_of_normalized(&self, inputs: &[&[usize]], input: usize) -> Cost {
        let _ = input;
        self.cost(inputs)
    }

    /// What it costs there to put together the part of that input's gradient that this operation leaves.
    fn cost_of_part(&self, inputs: &[&[usize]], input: usize) -> Cost {
        let _ = (inputs, input);
        Cost::default()
    }

    /// Computes the output and what backward will need; where instances share launches, on the host alone.
    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Self::Saved)>;

    /// Adds the gradients of the inputs that need one. `grad` is the gradient of the output.
    fn backward(&self, saved: Self::Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let _ = (saved, grad, grads);
        Err(Error::NoBackward { op: self.name() })
    }

    /// Computes several instances on a device, none of which depends on another: those whose kernels know how to share
    /// launches.
    fn forward_together(gpu: &Gpu, ops: &[Self], inputs: &[Vec<&Tensor>]) -> Result<Vec<(Tensor, Self::Saved)>>
    where
        Self: Sized,
    {
        let _ = gpu;
        ops.iter().zip(inputs).map(|(op, inputs)| op.forward(inputs)).collect()
    }

    /// The backward of [`Op::forward_together`], of the instances whose outputs have a gradient.
    fn backward_together(gpu: &Gpu, reached: Vec<Reached<Self>>, grads: &mut InstanceGrads) -> Result<()>
    where
        Self: Sized,
    {
        let _ = gpu;
        each_backward(reached, grads)
    }
}

/// Runs the backward of each.
fn each_backward<O: Op>(reached: Vec<Reached<O>>, grads: &mut InstanceGrads) -> Result<()> {
    let one =
        |Reached { op, number, saved, grad }: Reached<O>| op.backward(saved, grad.array()?, &mut grads.of(number));
    reached.into_iter().try_for_each(one)
}

/// An instance of an operation whose output has a gradient.
pub struct Reached<'a, O: Op> {
    /// The instance.
    pub op: &'a O,
    /// Its number among all instances.
    pub number: usize,
    /// What its forward saved.
    pub saved: O::Saved,
    /// The gradient of its output.
    pub grad: Gradient,
}
