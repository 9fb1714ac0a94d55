//! The autograd tape: records operations forward, runs their backwards in reverse.
//!
//! A node keeps what its operation saved and nothing else; it is freed as soon as its backward has run. Nothing
//! here knows what an operation computes or where.

use std::cell::RefCell;

use super::{Op, Profile, Sample};
use crate::device::cuda::Target;
use crate::device::{Clock, Gpu};
use crate::error::{Error, Result};
use crate::span;
use crate::tensor::Tensor;
use crate::trace::on_device;

/// A tensor on a tape. Without a node it is a constant.
#[derive(Clone, Debug)]
pub struct Var {
    node: Option<usize>,
    tensor: Tensor,
}

impl Var {
    /// A tensor no gradient flows to.
    pub fn constant(tensor: Tensor) -> Var {
        Var { node: None, tensor }
    }

    /// The value.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The value, giving up the place on the tape.
    pub fn into_tensor(self) -> Tensor {
        self.tensor
    }
}

type Backward = Box<dyn FnOnce(&Tensor, &mut InputGrads) -> Result<()>>;

struct Node {
    op: &'static str,
    /// Its number among the notes of the profile, if there is one.
    noted: Option<usize>,
    backward: Option<Backward>,
    /// Node, name and shape of each input that needs a gradient; `None` for constants.
    inputs: Vec<Option<Input>>,
}

struct Input {
    node: usize,
    name: &'static str,
    shape: Vec<usize>,
}

/// Records what is computed from tracked tensors.
pub struct Tape {
    recording: bool,
    nodes: RefCell<Vec<Node>>,
    profile: Option<Profile>,
}

impl Tape {
    /// A tape for training.
    pub fn recording() -> Tape {
        Tape { recording: true, nodes: RefCell::default(), profile: None }
    }

    /// A tape that keeps nothing: for inference.
    pub fn inference() -> Tape {
        Tape { recording: false, nodes: RefCell::default(), profile: None }
    }

    /// Also notes each operation and its cost.
    pub fn profiled(self) -> Tape {
        self.timed(&Profile::new(Clock::Host))
    }

    /// Also notes each operation in this profile, with its times forward and backward.
    pub fn timed(self, profile: &Profile) -> Tape {
        Tape { profile: Some(profile.clone()), ..self }
    }

    /// The operations so far of a tape that notes them, in order.
    pub fn samples(&self) -> Vec<Sample> {
        self.profile.as_ref().map(Profile::samples).unwrap_or_default()
    }

    /// A tracked tensor that gradients are wanted for.
    pub fn leaf(&self, tensor: Tensor) -> Var {
        let node =
            self.recording.then(|| self.push(Node { op: "leaf", noted: None, backward: None, inputs: Vec::new() }));
        Var { node, tensor }
    }

    /// Runs an operation and records it if one of its inputs is tracked.
    ///
    /// Fails if the inputs do not lie on one device.
    pub fn apply<O: Op>(&self, op: O, inputs: &[&Var]) -> Result<Var> {
        let tensors: Vec<&Tensor> = inputs.iter().map(|v| &v.tensor).collect();
        on_one_device(&op, &tensors)?;
        let _span = span!(op.name(), "forward");
        let on_device = on_device(tensors.first().and_then(|tensor| tensor.gpu()), op.name(), "forward");
        let start = self.profile.as_ref().map(Profile::now).transpose()?;
        let (output, saved) = op.forward(&tensors)?;
        let sample = || {
            let shapes: Vec<&[usize]> = tensors.iter().map(|t| t.shape()).collect();
            let leaves = inputs.iter().filter_map(|v| self.leaf_size(v)).collect();
            Sample { op: op.name(), cost: op.cost(&shapes), leaves }
        };
        let noted = self.profile.as_ref().zip(start).map(|(profile, start)| profile.ran(start, sample)).transpose()?;
        drop(on_device);
        if inputs.iter().all(|v| v.node.is_none()) {
            return Ok(Var::constant(output));
        }
        let tracked = |(i, v): (usize, &&Var)| {
            v.node.map(|node| Input { node, name: op.input_name(i), shape: v.tensor.shape().to_vec() })
        };
        let node = Node {
            op: op.name(),
            noted,
            inputs: inputs.iter().enumerate().map(tracked).collect(),
            backward: Some(Box::new(move |grad, grads| op.backward(saved, grad, grads))),
        };
        Ok(Var { node: Some(self.push(node)), tensor: output })
    }

    fn leaf_size(&self, var: &Var) -> Option<(usize, usize)> {
        let node = var.node.filter(|&node| self.nodes.borrow()[node].backward.is_none())?;
        Some((node, var.tensor.len()))
    }

    fn push(&self, node: Node) -> usize {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(node);
        nodes.len() - 1
    }

    /// Runs all backwards, starting from `seed`, the gradient of `output`.
    ///
    /// Fails if an operation on the way has no backward or leaves an input without a gradient.
    pub fn backward(self, output: &Var, seed: Tensor) -> Result<Gradients> {
        let last = output.node.ok_or_else(|| Error::invalid("backward of a tensor that nothing tracked"))?;
        seed.expect("backward", "seed", output.tensor.shape())?;
        let mut nodes = self.nodes.into_inner();
        let mut grads: Vec<Option<Tensor>> = nodes.iter().map(|_| None).collect();
        grads[last] = Some(seed);
        while let Some(mut node) = nodes.pop() {
            let index = nodes.len();
            let Some(backward) = node.backward.take() else { continue };
            let Some(grad) = grads[index].take() else { continue };
            let gpu = grad.gpu().cloned();
            let _span = span!(node.op, "backward");
            let _on_device = on_device(gpu.as_ref(), node.op, "backward");
            let start = self.profile.as_ref().map(Profile::now).transpose()?;
            let mut inputs = InputGrads { op: node.op, inputs: &node.inputs, grads: &mut grads, gpu, written: 0 };
            backward(&grad, &mut inputs)?;
            inputs.finish()?;
            // Giving back what nobody needs any more is part of it.
            drop(grad);
            if let (Some(profile), Some(noted), Some(start)) = (&self.profile, node.noted, start) {
                profile.ran_back(noted, start)?;
            }
        }
        Ok(Gradients(grads))
    }
}

/// Where an operation's backward puts the gradients of its inputs.
pub struct InputGrads<'a> {
    op: &'static str,
    inputs: &'a [Option<Input>],
    grads: &'a mut [Option<Tensor>],
    /// Where the gradients lie.
    gpu: Option<Gpu>,
    /// Bit i: input i was written.
    written: u64,
}

impl InputGrads<'_> {
    /// The gradient of input `i` to add to (zeros at first), or `None` if it needs none.
    pub fn get(&mut self, i: usize) -> Option<&mut [f32]> {
        let input = self.inputs[i].as_ref()?;
        self.written |= 1 << i;
        Some(self.grads[input.node].get_or_insert_with(|| Tensor::zeros(input.shape.clone())).data_mut())
    }

    /// As [`InputGrads::get`], on the device where the output's gradient lies; null if it needs none. Whoever asks first
    /// must write all of it.
    pub fn on_device(&mut self, i: usize) -> Result<Target> {
        let (Some(input), Some(gpu)) = (&self.inputs[i], &self.gpu) else { return Ok(Target::NULL) };
        self.written |= 1 << i;
        let slot = &mut self.grads[input.node];
        let adds = slot.is_some();
        if !adds {
            let memory = gpu.alloc("gradients", input.shape.iter().product())?;
            *slot = Some(Tensor::on_device(&input.shape[..], memory)?);
        }
        slot.as_mut().map_or(Ok(Target::NULL), |slot| Ok(Target { at: slot.ptr_mut()?, adds }))
    }

    /// The gradient of input `i`, if it needs one, gets nothing from this operation.
    pub fn nothing_on_device(&mut self, i: usize) -> Result<()> {
        let (Some(input), Some(gpu)) = (&self.inputs[i], &self.gpu) else { return Ok(()) };
        self.written |= 1 << i;
        let slot = &mut self.grads[input.node];
        if slot.is_none() {
            let zeros = gpu.zeros("gradients", input.shape.iter().product())?;
            *slot = Some(Tensor::on_device(&input.shape[..], zeros)?);
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let dropped = |(i, input): (usize, &Option<Input>)| {
            input.as_ref().filter(|_| self.written & (1 << i) == 0).map(|input| input.name)
        };
        match self.inputs.iter().enumerate().find_map(dropped) {
            Some(input) => Err(Error::DroppedGradient { op: self.op, input }),
            None => Ok(()),
        }
    }
}

/// Gradients of a tape's leaves.
pub struct Gradients(Vec<Option<Tensor>>);

impl Gradients {
    /// Takes the gradient of a leaf; `None` if the output does not depend on it.
    pub fn take(&mut self, leaf: &Var) -> Option<Tensor> {
        self.0[leaf.node?].take()
    }
}

/// Kernels take places in memory, which do not say whose memory it is.
fn on_one_device<O: Op>(op: &O, inputs: &[&Tensor]) -> Result<()> {
    let place = |tensor: &Tensor| tensor.gpu().map(Gpu::ordinal);
    let Some((first, rest)) = inputs.split_first() else { return Ok(()) };
    let Some(other) = rest.iter().position(|tensor| place(tensor) != place(first)) else { return Ok(()) };
    let said = |tensor: &Tensor| tensor.gpu().map_or("the host".to_string(), |gpu| format!("{gpu:?}"));
    let (name, other_name) = (op.input_name(0), op.input_name(other + 1));
    Err(Error::shape(op.name(), format!("{name} lies on {}, {other_name} on {}", said(first), said(rest[other]))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Cost;

    /// y = a + b, with a backward as lazy as told.
    struct Lazy {
        answers: &'static [usize],
    }

    impl Op for Lazy {
        type Saved = ();

        fn name(&self) -> &'static str {
            "lazy"
        }

        fn input_name(&self, i: usize) -> &'static str {
            ["a", "b"][i]
        }

        fn cost(&self, _: &[&[usize]]) -> Cost {
            Cost::default()
        }

        fn forward(&self, x: &[&Tensor]) -> Result<(Tensor, ())> {
            let sum: Vec<f32> = x[0].data().iter().zip(x[1].data()).map(|(a, b)| a + b).collect();
            Ok((Tensor::new(x[0].shape(), sum)?, ()))
        }

        fn backward(&self, (): (), grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
            for &i in self.answers {
                if let Some(to) = grads.get(i) {
                    to.iter_mut().zip(grad.data()).for_each(|(to, g)| *to += g);
                }
            }
            Ok(())
        }
    }

    /// An operation nobody wrote a backward for.
    struct Blind;

    impl Op for Blind {
        type Saved = ();

        fn name(&self) -> &'static str {
            "blind"
        }

        fn input_name(&self, _: usize) -> &'static str {
            "x"
        }

        fn cost(&self, _: &[&[usize]]) -> Cost {
            Cost::default()
        }

        fn forward(&self, x: &[&Tensor]) -> Result<(Tensor, ())> {
            Ok((x[0].clone(), ()))
        }
    }

    fn ones(n: usize) -> Tensor {
        Tensor::new([n], vec![1.0; n]).unwrap()
    }

    #[test]
    fn gradients_of_a_shared_input_add_up() {
        let tape = Tape::recording();
        let a = tape.leaf(ones(3));
        let twice = tape.apply(Lazy { answers: &[0, 1] }, &[&a, &a]).unwrap();
        let thrice = tape.apply(Lazy { answers: &[0, 1] }, &[&twice, &a]).unwrap();
        let mut grads = tape.backward(&thrice, ones(3)).unwrap();
        assert_eq!(grads.take(&a).unwrap().data(), [3.0; 3]);
    }

    #[test]
    fn a_dropped_gradient_is_an_error() {
        let tape = Tape::recording();
        let (a, b) = (tape.leaf(ones(2)), tape.leaf(ones(2)));
        let sum = tape.apply(Lazy { answers: &[0] }, &[&a, &b]).unwrap();
        let error = tape.backward(&sum, ones(2)).err().unwrap();
        assert!(matches!(error, Error::DroppedGradient { op: "lazy", input: "b" }));
    }

    #[test]
    fn a_dropped_gradient_of_a_constant_is_fine() {
        let tape = Tape::recording();
        let a = tape.leaf(ones(2));
        let sum = tape.apply(Lazy { answers: &[0] }, &[&a, &Var::constant(ones(2))]).unwrap();
        assert!(tape.backward(&sum, ones(2)).is_ok());
    }

    #[test]
    fn a_missing_backward_is_an_error() {
        let tape = Tape::recording();
        let out = tape.apply(Blind, &[&tape.leaf(ones(2))]).unwrap();
        assert!(matches!(tape.backward(&out, ones(2)).err().unwrap(), Error::NoBackward { op: "blind" }));
    }

    #[test]
    fn every_operation_is_noted_once_forward_and_once_backward_if_a_gradient_flows_to_it() {
        let profile = Profile::new(Clock::Host);
        let tape = Tape::recording().timed(&profile);
        let (a, b) = (tape.leaf(ones(2)), Var::constant(ones(2)));
        let constant = tape.apply(Lazy { answers: &[] }, &[&b, &b]).unwrap();
        let twice = tape.apply(Lazy { answers: &[0, 1] }, &[&a, &a]).unwrap();
        let unused = tape.apply(Lazy { answers: &[0, 1] }, &[&twice, &a]).unwrap();
        let out = tape.apply(Lazy { answers: &[0] }, &[&twice, &constant]).unwrap();
        assert_eq!((tape.samples().len(), unused.tensor().len()), (4, 2));
        tape.backward(&out, ones(2)).unwrap();
        let timed = profile.timed().unwrap();
        assert_eq!(timed.iter().map(|op| op.backward.is_some()).collect::<Vec<_>>(), [false, true, false, true]);
        assert!(timed.iter().all(|op| op.sample.op == "lazy" && op.forward >= 0.0));
    }

    #[test]
    fn an_inference_tape_keeps_nothing() {
        let tape = Tape::inference();
        let a = tape.leaf(ones(2));
        let sum = tape.apply(Lazy { answers: &[] }, &[&a, &a]).unwrap();
        assert!(tape.nodes.borrow().is_empty() && tape.backward(&sum, ones(2)).is_err());
    }
}
