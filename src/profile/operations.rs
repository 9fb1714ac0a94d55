//! Operations of the table by themselves: of a training step, at the size of the paper's WikiDiverse step; of encoders and
//! decoders, at those of CLIP ViT-B/32, ResNets and Llama-2-7B.

use clap::ValueEnum;

use crate::autograd::{Cost, Profile, Sample, Tape, Var};
use crate::device::cuda::Arithmetic;
use crate::device::{Clock, Gpu};
use crate::error::Result;
use crate::ops::cases::inference::{self, Inference, Ready};
use crate::ops::cases::{Case, wikidiverse};
use crate::tensor::{Compute, Precision, Tensor};

/// A part of the table of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What is trained, forward and backward.
    Training,
    /// What encoders and decoders compute.
    Inference,
}

/// An operation of the table.
pub enum Operation {
    /// One that trains.
    Trained(Case),
    /// One for inference alone.
    Served(Inference),
}

/// An operation on inputs that lie where it computes.
pub struct OperationBench {
    work: Work,
    gpu: Option<Gpu>,
    cost: Cost,
}

enum Work {
    Trained {
        case: Case,
        inputs: Vec<Tensor>,
        /// Ones in the output's shape.
        seed: Tensor,
    },
    Served(Ready),
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
    /// As parameters name it.
    pub fn name(self) -> &'static str {
        match self {
            Extent::Forward => "forward",
            Extent::Both => "forward and backward",
        }
    }
}

impl Operation {
    /// All of a part of the table.
    pub fn all(part: Part) -> Result<Vec<Operation>> {
        Ok(match part {
            Part::Training => wikidiverse()?.into_iter().map(Operation::Trained).collect(),
            Part::Inference => inference::large().into_iter().map(Operation::Served).collect(),
        })
    }

    /// The operation and its sizes.
    pub fn name(&self) -> &str {
        match self {
            Operation::Trained(case) => &case.name,
            Operation::Served(case) => &case.name,
        }
    }

    /// How far it can be run.
    pub fn extents(&self) -> &'static [Extent] {
        match self {
            Operation::Trained(_) => &[Extent::Forward, Extent::Both],
            Operation::Served(_) => &[Extent::Forward],
        }
    }

    /// Brings its inputs to a device or the host. Inference computes there in the faster arithmetic.
    pub fn open(self, gpu: Option<&Gpu>) -> Result<OperationBench> {
        let (work, cost) = match self {
            Operation::Trained(case) => trained(case, gpu)?,
            Operation::Served(case) => {
                let precision = match gpu.map(Gpu::arithmetic) {
                    Some(Arithmetic::F32) => Precision::F32,
                    _ => Compute::fastest(gpu),
                };
                let ready = case.open(&Compute { precision, gpu: gpu.cloned() })?;
                let cost = ready.cost;
                (Work::Served(ready), cost)
            }
        };
        Ok(OperationBench { work, gpu: gpu.cloned(), cost })
    }
}

fn trained(case: Case, gpu: Option<&Gpu>) -> Result<(Work, Cost)> {
    let inputs = case.inputs.iter().map(|tensor| tensor.to(gpu)).collect::<Result<Vec<_>>>()?;
    // As it is run to both extents: gradients of all inputs are wanted.
    let tape = Tape::recording().timed(&Profile::new(Clock::Host));
    let leaves: Vec<Var> = inputs.iter().cloned().map(|tensor| tape.leaf(tensor)).collect();
    let output = case.apply(&tape, &leaves.iter().collect::<Vec<_>>())?;
    let cost = tape.samples().iter().map(Sample::cost).sum();
    let shape = output.tensor().shape().to_vec();
    let seed = Tensor::new(&shape[..], vec![1.0; shape.iter().product()])?.to(gpu)?;
    Ok((Work::Trained { case, inputs, seed }, cost))
}

impl OperationBench {
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
        match &self.work {
            Work::Served(ready) => drop(std::hint::black_box(ready.run()?)),
            Work::Trained { case, inputs, seed } => {
                let tape = match extent {
                    Extent::Forward => Tape::inference(),
                    Extent::Both => Tape::recording(),
                };
                let inputs: Vec<Var> = inputs.iter().cloned().map(|tensor| tape.leaf(tensor)).collect();
                let output = case.apply(&tape, &inputs.iter().collect::<Vec<_>>())?;
                if extent == Extent::Both {
                    std::hint::black_box(tape.backward(&output, seed.clone())?);
                }
                std::hint::black_box(output);
            }
        }
        self.gpu.as_ref().map_or(Ok(()), Gpu::synchronize)
    }
}
