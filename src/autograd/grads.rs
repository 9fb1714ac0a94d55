//! Where backwards put gradients.

use std::any::Any;
use std::mem;

use crate::device::Gpu;
use crate::device::cuda::Target;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The gradient of a tensor.
pub enum Gradient {
    /// All of it.
    Array(Tensor),
    /// On a device, what readers of the tensor leave for the operation that made it to put together, which spares them the array
    /// (see [`Op::gathers`](super::Op::gathers)).
    Parts(Gpu, Vec<Box<dyn Any>>),
}

impl Gradient {
    /// The array; fails if there are parts alone.
    pub fn array(&self) -> Result<&Tensor> {
        match self {
            Gradient::Array(tensor) => Ok(tensor),
            Gradient::Parts(..) => Err(in_parts()),
        }
    }

    /// The same.
    pub(super) fn into_array(self) -> Result<Tensor> {
        match self {
            Gradient::Array(tensor) => Ok(tensor),
            Gradient::Parts(..) => Err(in_parts()),
        }
    }

    /// What readers left, if each of them left this; fails for an array.
    pub fn take_parts<P: 'static>(&mut self) -> Result<Vec<P>> {
        let Gradient::Parts(_, parts) = self else { return Err(in_parts()) };
        let part = |part: Box<dyn Any>| part.downcast::<P>().map(|part| *part).map_err(|_| in_parts());
        mem::take(parts).into_iter().map(part).collect()
    }

    /// Where it lies; `None` for the host.
    pub(super) fn gpu(&self) -> Option<&Gpu> {
        match self {
            Gradient::Array(tensor) => tensor.gpu(),
            Gradient::Parts(gpu, _) => Some(gpu),
        }
    }

    fn array_mut(&mut self) -> Result<&mut Tensor> {
        match self {
            Gradient::Array(tensor) => Ok(tensor),
            Gradient::Parts(..) => Err(in_parts()),
        }
    }
}

fn in_parts() -> Error {
    Error::shape("autograd", "some readers of a tensor leave parts of its gradient, others add to an array")
}

/// An input that needs a gradient.
pub(super) struct Input {
    /// Its place among a tape's nodes.
    pub node: usize,
    pub name: &'static str,
    pub shape: Vec<usize>,
}

/// Where the backward of an operation of several instances puts the gradients of their inputs.
pub struct InstanceGrads<'a> {
    op: &'static str,
    inputs: &'a [Vec<Option<Input>>],
    grads: &'a mut [Option<Gradient>],
    /// Where the gradients lie.
    gpu: Option<Gpu>,
    /// The instances whose output has a gradient.
    reached: Vec<bool>,
    /// Bit i of an instance: its input i was written.
    written: Vec<u64>,
}

impl<'a> InstanceGrads<'a> {
    pub(super) fn new(
        op: &'static str,
        inputs: &'a [Vec<Option<Input>>],
        grads: &'a mut [Option<Gradient>],
        gpu: Option<Gpu>,
        reached: Vec<bool>,
    ) -> InstanceGrads<'a> {
        InstanceGrads { op, inputs, grads, gpu, written: vec![0; reached.len()], reached }
    }

    /// Where they lie; `None` for the host.
    pub(super) fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
    }

    /// Those of an instance.
    pub fn of(&mut self, instance: usize) -> InputGrads<'_> {
        InputGrads {
            inputs: &self.inputs[instance],
            grads: self.grads,
            gpu: self.gpu.as_ref(),
            written: &mut self.written[instance],
        }
    }

    /// Fails if an instance left an input without a gradient.
    pub(super) fn finish(self) -> Result<()> {
        for ((inputs, written), _) in self.inputs.iter().zip(&self.written).zip(&self.reached).filter(|(_, r)| **r) {
            let dropped = |(i, input): (usize, &Option<Input>)| {
                input.as_ref().filter(|_| written & (1 << i) == 0).map(|input| input.name)
            };
            if let Some(input) = inputs.iter().enumerate().find_map(dropped) {
                return Err(Error::DroppedGradient { op: self.op, input });
            }
        }
        Ok(())
    }
}

/// Where an operation's backward puts the gradients of its inputs.
pub struct InputGrads<'a> {
    inputs: &'a [Option<Input>],
    grads: &'a mut [Option<Gradient>],
    gpu: Option<&'a Gpu>,
    /// Bit i: input i was written.
    written: &'a mut u64,
}

impl InputGrads<'_> {
    /// The gradient of input `i` to add to (zeros at first), or `None` if it needs none.
    pub fn get(&mut self, i: usize) -> Option<&mut [f32]> {
        let input = self.inputs[i].as_ref()?;
        *self.written |= 1 << i;
        let zeros = || Gradient::Array(Tensor::zeros(input.shape.clone()));
        // Parts there are of tensors on devices alone.
        self.grads[input.node].get_or_insert_with(zeros).array_mut().ok().map(Tensor::data_mut)
    }

    /// As [`InputGrads::get`], on the device where the output's gradient lies; null if it needs none. Whoever asks first
    /// must write all of it.
    pub fn on_device(&mut self, i: usize) -> Result<Target> {
        let (Some(input), Some(gpu)) = (&self.inputs[i], self.gpu) else { return Ok(Target::NULL) };
        *self.written |= 1 << i;
        let slot = &mut self.grads[input.node];
        let adds = slot.is_some();
        if !adds {
            let memory = gpu.alloc("gradients", input.shape.iter().product())?;
            *slot = Some(Gradient::Array(Tensor::on_device(&input.shape[..], memory)?));
        }
        slot.as_mut().map_or(Ok(Target::NULL), |slot| Ok(Target { at: slot.array_mut()?.ptr_mut()?, adds }))
    }

    /// Leaves part of the gradient of input `i`, if it needs one, for the operation that made this input: on a device, of one that
    /// [gathers](super::Op::gathers).
    pub fn leave(&mut self, i: usize, part: impl Any) -> Result<()> {
        let (Some(input), Some(gpu)) = (&self.inputs[i], self.gpu) else { return Ok(()) };
        *self.written |= 1 << i;
        match self.grads[input.node].get_or_insert_with(|| Gradient::Parts(gpu.clone(), Vec::new())) {
            Gradient::Parts(_, parts) => parts.push(Box::new(part)),
            Gradient::Array(_) => return Err(in_parts()),
        }
        Ok(())
    }

    /// Takes the gradient of input `i` as it stands, to be added to elsewhere and [put](InputGrads::put) back.
    pub(super) fn take(&mut self, i: usize) -> Result<Option<Tensor>> {
        let Some(input) = &self.inputs[i] else { return Ok(None) };
        self.grads[input.node].take().map(Gradient::into_array).transpose()
    }

    /// Puts the gradient of input `i` in its place, if there is one.
    pub(super) fn put(&mut self, i: usize, grad: Option<Tensor>) {
        let Some(input) = &self.inputs[i] else { return };
        *self.written |= 1 << i;
        if grad.is_some() {
            self.grads[input.node] = grad.map(Gradient::Array);
        }
    }

    /// The gradient of input `i`, if it needs one, gets nothing from this operation.
    pub fn nothing_on_device(&mut self, i: usize) -> Result<()> {
        let (Some(input), Some(gpu)) = (&self.inputs[i], self.gpu) else { return Ok(()) };
        *self.written |= 1 << i;
        let slot = &mut self.grads[input.node];
        if slot.is_none() {
            let zeros = gpu.zeros("gradients", input.shape.iter().product())?;
            *slot = Some(Gradient::Array(Tensor::on_device(&input.shape[..], zeros)?));
        }
        Ok(())
    }
}
