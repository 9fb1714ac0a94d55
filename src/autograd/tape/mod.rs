//! The autograd tape: records operations forward, runs their backwards in reverse.
//!
//! A node keeps what its operation saved and nothing else; it is freed as soon as its backward has run. Nothing
//! here knows what an operation computes or where.

mod checkpoint;

use std::cell::RefCell;
use std::collections::HashSet;

use super::grads::Input;
use super::{Cost, Gradient, InstanceGrads, Op, Profile, Reached, Sample, each_backward};
use crate::device::{Clock, Gpu};
use crate::error::{Error, Result};
use crate::span;
use crate::tensor::Tensor;
use crate::trace::on_device;

/// A tensor on a tape. Without a node it is a constant.
#[derive(Clone, Debug)]
pub struct Var {
    node: Option<usize>,
    /// Whether a gradient flows to it where the tape records, as this one may not.
    needs_gradient: bool,
    /// The profile's note of the operation that puts its gradient together, and the operation's instance.
    gathered_by: Option<(usize, usize)>,
    tensor: Tensor,
}

impl Var {
    /// A tensor no gradient flows to.
    pub fn constant(tensor: Tensor) -> Var {
        Var { node: None, needs_gradient: false, gathered_by: None, tensor }
    }

    /// Whether gradients flow to it.
    pub fn is_tracked(&self) -> bool {
        self.node.is_some()
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

/// From the gradients of all outputs, of which some may have none.
type Backward = Box<dyn FnOnce(Vec<Option<Gradient>>, &mut InstanceGrads) -> Result<()>>;

/// A tracked tensor: a leaf, or an output of an operation, whose first output knows the operation.
enum Node {
    Leaf,
    Output,
    Operation(Operation),
}

struct Operation {
    name: &'static str,
    /// Its number among the notes of the profile, if there is one.
    noted: Option<usize>,
    backward: Backward,
    /// Those of each instance that need a gradient; `None` for constants.
    inputs: Vec<Vec<Option<Input>>>,
}

/// Records what is computed from tracked tensors.
pub struct Tape {
    recording: bool,
    /// Whether what is [`Tape::checkpointed`] is computed again.
    checkpoints: bool,
    nodes: RefCell<Vec<Node>>,
    profile: Option<Profile>,
    /// Costs are noted as a device of mixed arithmetic spends them, wherever it runs.
    as_on_device: bool,
}

impl Tape {
    /// A tape for training.
    pub fn recording() -> Tape {
        Tape { recording: true, checkpoints: false, nodes: RefCell::default(), profile: None, as_on_device: false }
    }

    /// A tape that keeps nothing: for inference.
    pub fn inference() -> Tape {
        Tape { recording: false, checkpoints: false, nodes: RefCell::default(), profile: None, as_on_device: false }
    }

    /// Also notes each operation and its cost, as a device of mixed arithmetic spends it, wherever the tape runs.
    pub fn profiled(self) -> Tape {
        Tape { as_on_device: true, ..self.timed(&Profile::new(Clock::Host)) }
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
        let node = self.recording.then(|| self.push(Node::Leaf));
        Var { node, needs_gradient: true, gathered_by: None, tensor }
    }

    /// Runs an operation and records it if one of its inputs is tracked.
    ///
    /// Fails if the inputs do not lie on one device.
    pub fn apply<O: Op>(&self, op: O, inputs: &[&Var]) -> Result<Var> {
        let name = op.name();
        let output = self.apply_all(vec![op], &[inputs.to_vec()])?.pop();
        output.ok_or_else(|| Error::shape(name, "has no output"))
    }

    /// Runs several instances of an operation as one, none of which depends on another: each on its inputs. Gives the output
    /// of each.
    ///
    /// Fails if the inputs do not lie on one device.
    pub fn apply_all<O: Op>(&self, ops: Vec<O>, inputs: &[Vec<&Var>]) -> Result<Vec<Var>> {
        let Some(name) = ops.first().map(O::name) else { return Ok(Vec::new()) };
        if ops.len() != inputs.len() {
            return Err(Error::shape(name, format!("{} instances on the inputs of {}", ops.len(), inputs.len())));
        }
        let tensors: Vec<Vec<&Tensor>> = inputs.iter().map(|of| of.iter().map(|v| &v.tensor).collect()).collect();
        on_one_device(&ops, &tensors)?;
        let _span = span!(name, "forward");
        let gpu = tensors.iter().flatten().next().and_then(|tensor| tensor.gpu());
        let on_device = on_device(gpu, name, "forward");
        let start = self.profile.as_ref().map(Profile::now).transpose()?;
        let results = match gpu {
            Some(gpu) => O::forward_together(gpu, &ops, &tensors)?,
            None => ops.iter().zip(&tensors).map(|(op, of)| op.forward(of)).collect::<Result<_>>()?,
        };
        let (outputs, saved): (Vec<Tensor>, Vec<O::Saved>) = results.into_iter().unzip();
        let gathers = |(op, tensor): (&O, &Tensor)| match gpu {
            Some(_) => tensor.normalized().is_some(),
            None => self.as_on_device && op.gathers(),
        };
        let gathers: Vec<bool> = ops.iter().zip(&outputs).map(gathers).collect();
        let sample = || {
            let instances = ops.iter().zip(inputs).zip(&gathers);
            let costs = instances.map(|((op, of), &gathers)| cost_of(op, of, gathers)).collect();
            let leaves = inputs.iter().flatten().filter_map(|v| self.leaf_size(v)).collect();
            Sample { op: name, costs, leaves }
        };
        let noted = self.profile.as_ref().zip(start).map(|(profile, start)| profile.ran(start, sample)).transpose()?;
        drop(on_device);
        if let Some(profile) = &self.profile {
            ops.iter().zip(inputs).for_each(|(op, of)| parts_of(op, of, |to, cost| profile.spends(to, cost)));
        }
        let gathered_by = |i: usize| noted.filter(|_| gathers[i]).map(|noted| (noted, i));
        let tracked: Vec<bool> = inputs.iter().map(|of| of.iter().any(|v| v.node.is_some())).collect();
        let needs_gradient: Vec<bool> = inputs.iter().map(|of| of.iter().any(|v| v.needs_gradient)).collect();
        if !tracked.contains(&true) {
            let outputs = outputs.into_iter().zip(needs_gradient).enumerate();
            let var =
                |(i, (tensor, needs_gradient))| Var { node: None, needs_gradient, gathered_by: gathered_by(i), tensor };
            return Ok(outputs.map(var).collect());
        }
        let input = |op: &O, i: usize, v: &Var| {
            v.node.map(|node| Input { node, name: op.input_name(i), shape: v.tensor.shape().to_vec() })
        };
        let of_instance = |(op, of): (&O, &Vec<&Var>)| of.iter().enumerate().map(|(i, v)| input(op, i, v)).collect();
        let inputs = ops.iter().zip(inputs).map(of_instance).collect();
        let backward: Backward = Box::new(move |grads, to| {
            let instances = ops.iter().zip(saved).zip(grads).enumerate();
            let reached = |(number, ((op, saved), grad)): (usize, ((_, _), Option<Gradient>))| {
                grad.map(|grad| Reached { op, number, saved, grad })
            };
            let reached = instances.filter_map(reached).collect();
            match to.gpu().cloned() {
                Some(gpu) => O::backward_together(&gpu, reached, to),
                None => each_backward(reached, to),
            }
        });
        let first = self.push(Node::Operation(Operation { name, noted, backward, inputs }));
        self.nodes.borrow_mut().extend((1..outputs.len()).map(|_| Node::Output));
        let placed = outputs.into_iter().zip(tracked).enumerate();
        let var = |(i, (tensor, tracked)): (usize, (Tensor, bool))| {
            let node = tracked.then_some(first + i);
            Var { node, needs_gradient: tracked, gathered_by: gathered_by(i), tensor }
        };
        Ok(placed.map(var).collect())
    }

    fn leaf_size(&self, var: &Var) -> Option<(usize, usize)> {
        let node = var.node.filter(|&node| matches!(self.nodes.borrow()[node], Node::Leaf))?;
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
        self.backward_in_two(output, seed, |_| Ok(()))
    }

    /// The same of several outputs, each with its gradient.
    pub fn backward_of(self, outputs: Vec<(&Var, Tensor)>) -> Result<Gradients> {
        self.back(outputs, Vec::new(), |_| Ok(()))
    }

    /// The same of one. When only the operation is left that was the first to read a leaf, `early` sees the gradients of the leaves:
    /// those that this operation reads are still to come, all others have their value.
    pub fn backward_in_two(
        self,
        output: &Var,
        seed: Tensor,
        early: impl FnOnce(Early) -> Result<()>,
    ) -> Result<Gradients> {
        self.back(vec![(output, seed)], Vec::new(), early)
    }

    /// `begun` are gradients of leaves that are added to.
    fn back(
        self,
        outputs: Vec<(&Var, Tensor)>,
        begun: Vec<(&Var, Tensor)>,
        early: impl FnOnce(Early) -> Result<()>,
    ) -> Result<Gradients> {
        let mut nodes = self.nodes.into_inner();
        let mut grads: Vec<Option<Gradient>> = nodes.iter().map(|_| None).collect();
        for (output, seed) in outputs {
            let last = output.node.ok_or_else(|| Error::invalid("backward of a tensor that nothing tracked"))?;
            seed.expect("backward", "seed", output.tensor.shape())?;
            grads[last] = Some(Gradient::Array(seed));
        }
        for (leaf, grad) in begun {
            if let Some(node) = leaf.node {
                grads[node] = Some(Gradient::Array(grad));
            }
        }
        let reads_leaf = |inputs: &[Vec<Option<Input>>]| {
            inputs.iter().flatten().flatten().any(|input| matches!(nodes[input.node], Node::Leaf))
        };
        let first = nodes.iter().position(|node| matches!(node, Node::Operation(op) if reads_leaf(&op.inputs)));
        let mut early = Some(early);
        while let Some(node) = nodes.pop() {
            let index = nodes.len();
            if Some(index) == first
                && let Some(early) = early.take()
            {
                let Node::Operation(Operation { inputs, .. }) = &node else { continue };
                let awaited = inputs.iter().flatten().flatten().map(|input| input.node).collect();
                early(Early { grads: &grads, awaited })?;
            }
            let Node::Operation(Operation { name, noted, backward, inputs }) = node else { continue };
            // Whatever reads one of the outputs stands behind all of them.
            let of_outputs: Vec<Option<Gradient>> =
                grads[index..index + inputs.len()].iter_mut().map(Option::take).collect();
            let Some(gpu) = of_outputs.iter().flatten().next().map(|grad| grad.gpu().cloned()) else { continue };
            let _span = span!(name, "backward");
            let _on_device = on_device(gpu.as_ref(), name, "backward");
            let start = self.profile.as_ref().map(Profile::now).transpose()?;
            let reached: Vec<bool> = of_outputs.iter().map(Option::is_some).collect();
            let mut to = InstanceGrads::new(name, &inputs, &mut grads, gpu, reached.clone());
            backward(of_outputs, &mut to)?;
            to.finish()?;
            if let (Some(profile), Some(noted), Some(start)) = (&self.profile, noted, start) {
                profile.ran_back(noted, start, reached)?;
            }
        }
        match grads.iter().flatten().find_map(|grad| grad.array().err()) {
            Some(nobody_gathered) => Err(nobody_gathered),
            None => Ok(Gradients(grads)),
        }
    }
}

/// Gradients of a tape's leaves.
pub struct Gradients(Vec<Option<Gradient>>);

impl Gradients {
    /// Takes the gradient of a leaf; `None` if the output does not depend on it.
    pub fn take(&mut self, leaf: &Var) -> Option<Tensor> {
        match self.0[leaf.node?].take()? {
            Gradient::Array(tensor) => Some(tensor),
            Gradient::Parts(..) => None,
        }
    }
}

/// Gradients of a tape's leaves while one operation is left.
pub struct Early<'a> {
    grads: &'a [Option<Gradient>],
    /// Leaves that this operation reads.
    awaited: HashSet<usize>,
}

impl Early<'_> {
    /// The gradient of a leaf, if it has its value.
    pub fn get(&self, leaf: &Var) -> Option<&Tensor> {
        let node = leaf.node.filter(|node| !self.awaited.contains(node))?;
        self.grads[node].as_ref()?.array().ok()
    }
}

/// What an operation costs on these inputs, some of which may need no gradient.
fn cost_of<O: Op>(op: &O, inputs: &[&Var], gathers: bool) -> Cost {
    let shapes: Vec<&[usize]> = inputs.iter().map(|v| v.tensor.shape()).collect();
    let normalized = inputs.iter().position(|v| v.gathered_by.is_some());
    let cost = match normalized {
        Some(i) => op.cost_of_normalized(&shapes, i),
        None if gathers => op.cost_of_gathering(&shapes),
        None => op.cost(&shapes),
    };
    if !inputs.iter().any(|v| v.needs_gradient) {
        return cost.forward_alone();
    }
    let without = inputs.iter().enumerate().filter(|(_, v)| !v.needs_gradient);
    without.fold(cost, |cost, (i, _)| cost - op.cost_of_gradient(&shapes, i))
}

/// Calls `spends` with each operation that puts parts of gradients together which this one leaves, and what they cost.
fn parts_of<O: Op>(op: &O, inputs: &[&Var], spends: impl Fn((usize, usize), Cost)) {
    let shapes: Vec<&[usize]> = inputs.iter().map(|v| v.tensor.shape()).collect();
    for (i, v) in inputs.iter().enumerate().filter(|(_, v)| v.needs_gradient) {
        if let Some(to) = v.gathered_by {
            spends(to, op.cost_of_part(&shapes, i));
        }
    }
}

/// Kernels take places in memory, which do not say whose memory it is.
fn on_one_device<O: Op>(ops: &[O], inputs: &[Vec<&Tensor>]) -> Result<()> {
    let place = |tensor: &Tensor| tensor.gpu().map(Gpu::ordinal);
    let named = ops.iter().zip(inputs).flat_map(|(op, of)| of.iter().enumerate().map(|(i, t)| (op.input_name(i), *t)));
    let Some((name, first)) = named.clone().next() else { return Ok(()) };
    let Some((other_name, other)) = named.clone().find(|(_, tensor)| place(tensor) != place(first)) else {
        return Ok(());
    };
    let said = |tensor: &Tensor| tensor.gpu().map_or("the host".to_string(), |gpu| format!("{gpu:?}"));
    Err(Error::shape(ops[0].name(), format!("{name} lies on {}, {other_name} on {}", said(first), said(other))))
}

#[cfg(test)]
mod tests;
