//! Where backwards put gradients.

use crate::device::Gpu;
use crate::device::cuda::Target;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

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
    grads: &'a mut [Option<Tensor>],
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
        grads: &'a mut [Option<Tensor>],
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
    grads: &'a mut [Option<Tensor>],
    gpu: Option<&'a Gpu>,
    /// Bit i: input i was written.
    written: &'a mut u64,
}

impl InputGrads<'_> {
    /// The gradient of input `i` to add to (zeros at first), or `None` if it needs none.
    pub fn get(&mut self, i: usize) -> Option<&mut [f32]> {
        let input = self.inputs[i].as_ref()?;
        *self.written |= 1 << i;
        Some(self.grads[input.node].get_or_insert_with(|| Tensor::zeros(input.shape.clone())).data_mut())
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
            *slot = Some(Tensor::on_device(&input.shape[..], memory)?);
        }
        slot.as_mut().map_or(Ok(Target::NULL), |slot| Ok(Target { at: slot.ptr_mut()?, adds }))
    }

    /// Takes the gradient of input `i` as it stands, to be added to elsewhere and [put](InputGrads::put) back.
    pub(super) fn take(&mut self, i: usize) -> Option<Tensor> {
        self.grads[self.inputs[i].as_ref()?.node].take()
    }

    /// Puts the gradient of input `i` in its place, if there is one.
    pub(super) fn put(&mut self, i: usize, grad: Option<Tensor>) {
        let Some(input) = &self.inputs[i] else { return };
        *self.written |= 1 << i;
        if grad.is_some() {
            self.grads[input.node] = grad;
        }
    }

    /// The gradient of input `i`, if it needs one, gets nothing from this operation.
    pub fn nothing_on_device(&mut self, i: usize) -> Result<()> {
        let (Some(input), Some(gpu)) = (&self.inputs[i], self.gpu) else { return Ok(()) };
        *self.written |= 1 << i;
        let slot = &mut self.grads[input.node];
        if slot.is_none() {
            let zeros = gpu.zeros("gradients", input.shape.iter().product())?;
            *slot = Some(Tensor::on_device(&input.shape[..], zeros)?);
        }
        Ok(())
    }
}
