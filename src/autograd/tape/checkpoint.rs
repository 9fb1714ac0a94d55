//! Parts of a computation that are computed again in backward (Chen et al., 2016): of them, a tape keeps their inputs alone.

use super::{Backward, Node, Operation, Tape, Var};
use crate::autograd::grads::Input;
use crate::error::{Error, Result};

/// What stands for such a part in traces.
const NAME: &str = "checkpoint";

/// Most inputs of a part, since a bit of a word stands for each.
const MOST_INPUTS: usize = u64::BITS as usize;

impl Tape {
    /// The same tape, on which what is [`Tape::checkpointed`] keeps its inputs alone, or as without.
    pub fn with_checkpoints(self, checkpoints: bool) -> Tape {
        Tape { checkpoints, ..self }
    }

    /// Whether what is [`Tape::checkpointed`] keeps its inputs alone.
    pub fn has_checkpoints(&self) -> bool {
        self.checkpoints
    }

    /// What `compute` makes of these inputs. On a tape with checkpoints backward calls it again, so it has to read nothing that
    /// is tracked but its inputs, and to compute the same bits each time. Gradients have the bits that they have without
    /// checkpoints.
    pub fn checkpointed(
        &self,
        inputs: &[&Var],
        compute: impl Fn(&Tape, &[Var]) -> Result<Var> + 'static,
    ) -> Result<Var> {
        let inputs: Vec<Var> = inputs.iter().map(|&input| input.clone()).collect();
        if !(self.checkpoints && inputs.iter().any(Var::is_tracked)) {
            return compute(self, &inputs);
        }
        if inputs.len() > MOST_INPUTS {
            return Err(Error::shape(NAME, format!("{} inputs, of which there may be {MOST_INPUTS}", inputs.len())));
        }
        let inner = |tape: Tape| Tape { profile: self.profile.clone(), ..tape };
        let untracked: Vec<Var> = inputs.iter().map(|input| Var { node: None, ..input.clone() }).collect();
        let output = compute(&inner(Tape::inference()), &untracked)?.into_tensor();
        let input =
            |input: &Var| input.node.map(|node| Input { node, name: "input", shape: input.tensor.shape().to_vec() });
        let of_inputs = inputs.iter().map(input).collect();
        let tape = inner(Tape::recording());
        let backward: Backward = Box::new(move |grads, to| {
            let leaves = leaves(&tape, &inputs);
            let again = compute(&tape, &leaves)?;
            let seeds = grads.into_iter().flatten().filter(|_| again.is_tracked());
            let seeds = seeds.map(|grad| Ok((&again, grad.into_array()?))).collect::<Result<_>>()?;
            // Added to where others began, gradients are summed in the order that they have without checkpoints.
            let mut to = to.of(0);
            let mut begun = Vec::with_capacity(leaves.len());
            for (i, leaf) in leaves.iter().enumerate() {
                begun.extend(to.take(i)?.map(|grad| (leaf, grad)));
            }
            let mut found = tape.back(seeds, begun, |_| Ok(()))?;
            leaves.iter().enumerate().for_each(|(i, leaf)| to.put(i, found.take(leaf)));
            Ok(())
        });
        let operation = Operation { name: NAME, noted: None, backward, inputs: vec![of_inputs] };
        let node = Some(self.push(Node::Operation(operation)));
        Ok(Var { node, needs_gradient: true, gathered_by: None, tensor: output })
    }
}

/// The inputs on a tape of their own: what stands there twice is one leaf.
fn leaves(tape: &Tape, inputs: &[Var]) -> Vec<Var> {
    let mut leaves: Vec<Var> = Vec::with_capacity(inputs.len());
    for input in inputs {
        let twin = inputs[..leaves.len()].iter().position(|other| input.is_tracked() && other.node == input.node);
        leaves.push(match twin {
            Some(twin) => leaves[twin].clone(),
            None if input.is_tracked() => tape.leaf(input.tensor.clone()),
            None => input.clone(),
        });
    }
    leaves
}
