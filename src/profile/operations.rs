//! Each operation of a training step by itself, at the size of the paper's WikiDiverse step.

use crate::autograd::{Cost, Sample, Tape, Var};
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::cases::{Case, wikidiverse};
use crate::tensor::Tensor;

/// An operation on inputs that lie where it computes.
pub struct OperationBench {
    case: Case,
    inputs: Vec<Tensor>,
    /// Ones in the output's shape.
    seed: Tensor,
    gpu: Option<Gpu>,
    cost: Cost,
}

/// How far an operation is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Its output.
    Forward,
    /// Its output and the gradients of its inputs.
    Both,
}

impl Extent {
    /// Both, in the order in which they are measured.
    pub const ALL: [Extent; 2] = [Extent::Forward, Extent::Both];

    /// As parameters name it.
    pub fn name(self) -> &'static str {
        match self {
            Extent::Forward => "forward",
            Extent::Both => "forward and backward",
        }
    }
}

impl OperationBench {
    /// The table of operations at that size, on a device or the host.
    pub fn all(gpu: Option<&Gpu>) -> Result<Vec<OperationBench>> {
        wikidiverse()?.into_iter().map(|case| OperationBench::new(case, gpu)).collect()
    }

    fn new(case: Case, gpu: Option<&Gpu>) -> Result<OperationBench> {
        let inputs = case.inputs.iter().map(|tensor| tensor.to(gpu)).collect::<Result<Vec<_>>>()?;
        let tape = Tape::inference().profiled();
        let constants: Vec<Var> = inputs.iter().cloned().map(Var::constant).collect();
        let output = case.apply(&tape, &constants.iter().collect::<Vec<_>>())?;
        let cost = tape.samples().iter().map(Sample::cost).sum();
        let shape = output.tensor().shape().to_vec();
        let seed = Tensor::new(&shape[..], vec![1.0; shape.iter().product()])?.to(gpu)?;
        Ok(OperationBench { case, inputs, seed, gpu: gpu.cloned(), cost })
    }

    /// The operation and its sizes.
    pub fn name(&self) -> &str {
        &self.case.name
    }

    /// FLOPs and least bytes to that extent.
    pub fn cost(&self, extent: Extent) -> (u64, u64) {
        let Cost { forward, backward, forward_bytes, backward_bytes, .. } = self.cost;
        match extent {
            Extent::Forward => (forward, forward_bytes),
            Extent::Both => (forward + backward, forward_bytes + backward_bytes),
        }
    }

    /// Runs it once and waits until it is done.
    pub fn run(&self, extent: Extent) -> Result<()> {
        let tape = match extent {
            Extent::Forward => Tape::inference(),
            Extent::Both => Tape::recording(),
        };
        let inputs: Vec<Var> = self.inputs.iter().cloned().map(|tensor| tape.leaf(tensor)).collect();
        let output = self.case.apply(&tape, &inputs.iter().collect::<Vec<_>>())?;
        if extent == Extent::Both {
            std::hint::black_box(tape.backward(&output, self.seed.clone())?);
        }
        std::hint::black_box(output);
        self.gpu.as_ref().map_or(Ok(()), Gpu::synchronize)
    }
}
