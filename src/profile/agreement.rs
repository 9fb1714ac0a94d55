//! Kernels against the CPU.

use std::time::{Duration, Instant};

use crate::device::Gpu;
use crate::device::cuda::Arithmetic;
use crate::error::Result;
use crate::ops::cases::Case;
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// Errors are relative to a tensor's largest element, and at least to this share of the largest of all gradients: a sum
/// whose terms cancel carries the rounding of its terms.
const FLOOR: f32 = 0.1;

/// How a case on a device compares with the same on the CPU.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// The case.
    pub name: String,
    /// Largest difference of the output's elements, relative to the largest of them.
    pub output: f32,
    /// The same of the gradients.
    pub gradients: f32,
    /// Whether a second run had the same bits.
    pub repeats: bool,
    /// Forward and backward on the device, of the second run.
    pub time: Duration,
}

impl Agreement {
    /// The larger of both errors.
    pub fn error(&self) -> f32 {
        self.output.max(self.gradients)
    }

    /// Whether the errors are what the arithmetic makes, and nothing else.
    pub fn holds(&self, arithmetic: Arithmetic) -> bool {
        self.repeats && self.error() <= tolerance(arithmetic)
    }
}

/// The largest relative error that rounding explains.
pub fn tolerance(arithmetic: Arithmetic) -> f32 {
    match arithmetic {
        // f32 sums in another order: some hundreds of roundings of 6e-8 each.
        Arithmetic::F32 => 2e-5,
        // Products of values rounded to 8 bits (bf16) or 11 (f16, tf32), through several layers forward and back.
        Arithmetic::Mixed => 3e-2,
    }
}

/// Output and gradients of a case on a device or, with `None`, the host.
fn run(case: &Case, gpu: Option<&Gpu>) -> Result<(Tensor, Vec<Tensor>)> {
    let tape = Tape::recording();
    let leaves: Vec<Var> = case.inputs.iter().map(|tensor| Ok(tape.leaf(tensor.to(gpu)?))).collect::<Result<_>>()?;
    let out = case.apply(&tape, &leaves.iter().collect::<Vec<_>>())?;
    // Gradients that differ from element to element and sum to no round number.
    let seed: Vec<f32> = (0..out.tensor().len()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let seed = Tensor::new(out.tensor().shape(), seed)?.to(gpu)?;
    let mut grads = tape.backward(&out, seed)?;
    let grads = leaves.iter().filter_map(|leaf| grads.take(leaf)).map(|g| g.to(None)).collect::<Result<_>>()?;
    Ok((out.into_tensor().to(None)?, grads))
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.data().iter().fold(0.0, |max, x| max.max(x.abs()))
}

fn error(got: &Tensor, want: &Tensor, floor: f32) -> f32 {
    let worst = got.data().iter().zip(want.data()).fold(0.0f32, |max, (g, w)| {
        // A NaN is no small error.
        let difference = (g - w).abs();
        if difference <= max { max } else { difference }
    });
    match worst {
        0.0 => 0.0,
        worst => worst / largest(want).max(floor),
    }
}

/// Runs a case twice on a device and once on the CPU.
pub fn compare(case: &Case, gpu: &Gpu) -> Result<Agreement> {
    let (want, want_grads) = run(case, None)?;
    let (first, first_grads) = run(case, Some(gpu))?;
    let start = Instant::now();
    let (again, again_grads) = run(case, Some(gpu))?;
    let time = start.elapsed();
    let floor = FLOOR * want_grads.iter().map(largest).fold(0.0, f32::max);
    let same = |a: &Tensor, b: &Tensor| a.data().iter().zip(b.data()).all(|(a, b)| a.to_bits() == b.to_bits());
    let all_there = first.shape() == want.shape() && first_grads.len() == want_grads.len();
    let worst = first_grads.iter().zip(&want_grads).map(|(g, w)| error(g, w, floor)).fold(0.0, f32::max);
    Ok(Agreement {
        name: case.name.clone(),
        output: error(&first, &want, 0.0),
        gradients: if all_there { worst } else { f32::INFINITY },
        repeats: same(&first, &again) && first_grads.iter().zip(&again_grads).all(|(a, b)| same(a, b)),
        time,
    })
}
