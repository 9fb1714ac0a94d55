//! Dropout: each value is zeroed with probability p, the others are scaled by 1 / (1 - p).
//!
//! Any shape -> the same shape. Which values go depends on seed, stream and position alone, so that backward
//! draws the same mask again instead of storing it, and a resumed run draws what an undisturbed one draws.

mod cuda;

use rayon::prelude::*;

use super::{arity, elementwise};
use crate::autograd::{Cost, InputGrads, Op};
use crate::device::cpu::{Buffer, simd};
use crate::device::cuda::Target;
use crate::error::{Error, Result};
use crate::random::{LANES, philox_lanes};
use crate::tensor::Tensor;

const NAME: &str = "dropout";

/// Values one task handles.
const CHUNK: usize = 16 << 10;

/// Values that one draw of the generator covers: value `4 b + i` takes number `i` of block `b`.
const DRAW: usize = 4 * LANES;

/// See the module's documentation.
pub struct Dropout {
    /// Probability of zeroing, in [0, 1).
    pub p: f32,
    /// The run's seed.
    pub seed: u64,
    /// Tells this use from every other one of the run: the step, and which tensor of the step.
    pub stream: (u32, u32),
}

impl Dropout {
    /// What kept values are multiplied by.
    fn scale(&self) -> f32 {
        1.0 / (1.0 - self.p)
    }

    /// A draw is uniform over 2^32 values; the value is kept if it is not below this many of them.
    fn threshold(&self) -> u32 {
        (self.p as f64 * (1u64 << 32) as f64) as u32
    }

    /// `out += mask(x) / (1 - p)`
    fn add_masked(&self, x: &[f32], out: &mut [f32]) {
        let (scale, threshold) = (self.scale(), self.threshold());
        out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).enumerate().for_each(|(chunk, (out, x))| {
            simd!(for (draw, (out, x)) in out.chunks_mut(DRAW).zip(x.chunks(DRAW)).enumerate() {
                let block = ((chunk * CHUNK + draw * DRAW) / 4) as u64;
                let draws = philox_lanes(self.seed, block, [self.stream.0, self.stream.1]);
                for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
                    *out += if draws[i % 4][i / 4] >= threshold { x * scale } else { 0.0 };
                }
            })
        });
    }
}

impl Op for Dropout {
    type Saved = ();

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "input"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let values = inputs[0].iter().product::<usize>();
        // Those that stay are scaled. Integers decide which.
        let kept = (values as f64 * (1.0 - self.p as f64)) as usize;
        elementwise::cost([kept; 2], [2 * values; 2])
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, ())> {
        let &[x] = arity(NAME, inputs)?;
        if !(0.0..1.0).contains(&self.p) {
            return Err(Error::invalid(format!("dropout {} is not in [0, 1)", self.p)));
        }
        if let Some(gpu) = x.gpu() {
            let out = gpu.alloc("dropout", x.len())?;
            self.masked_on(gpu, x.ptr(), x.len(), Target { at: out.ptr(), adds: false })?;
            return Ok((Tensor::on_device(x.shape(), out)?, ()));
        }
        let mut out = Buffer::zeros(x.len());
        self.add_masked(x.data(), &mut out);
        Ok((Tensor::new(x.shape(), out)?, ()))
    }

    fn backward(&self, (): (), grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        if let Some(gpu) = grad.gpu() {
            let to = grads.on_device(0)?;
            return self.masked_on(gpu, grad.ptr(), grad.len(), to);
        }
        if let Some(to) = grads.get(0) {
            self.add_masked(grad.data(), to);
        }
        Ok(())
    }
}
