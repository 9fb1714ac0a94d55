//! Root mean square normalization (Zhang and Sennrich, 2019): gain · x / sqrt(mean(x²) + eps), row by row.

mod cuda;

use rayon::prelude::*;

use super::linear::ROW_CHUNK;
use super::linear::stored::{Input, Next, StoredLinear};
use crate::autograd::Cost;
use crate::device::Gpu;
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::tensor::{Element, Tensor};

/// What normalizing rows of f32 costs. Its few FLOPs are not counted, as is usual.
pub fn cost(rows: usize, width: usize, output: Element) -> Cost {
    Cost::inference(0, 4 * width + rows * (4 + output.size()) * width)
}

/// A layer, with its gain (width).
pub struct RmsNorm {
    gain: Tensor,
    eps: f32,
    /// Of the output on a device; on the host it is f32.
    output: Element,
}

impl RmsNorm {
    /// On a device, or with `None` on the host.
    pub fn new(gain: &Tensor, eps: f32, output: Element, gpu: Option<&Gpu>) -> Result<RmsNorm> {
        Ok(RmsNorm { gain: gain.to(gpu)?, eps, output })
    }

    /// `sums += linear(x)`, and the sums (n, width) of f32 normalized, for the products that take them.
    pub fn of_sums(&self, sums: &mut Tensor, linear: &StoredLinear, x: &Input) -> Result<Input> {
        let next = Next { gain: &self.gain, eps: self.eps, element: self.output };
        match linear.forward_onto(x, sums, next)? {
            Some(input) => Ok(input),
            None => self.forward(sums).map(Input::from),
        }
    }

    /// Rows of f32 (n, width), normalized.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.expect_beside("rms_norm", &self.gain, self.gain.len())?;
        if x.gpu().is_some() {
            return cuda::forward(x, &self.gain, self.eps, self.output);
        }
        let (x, gain) = (x.wide("rms_norm")?, self.gain.data());
        let (mut out, chunk) = (Buffer::scratch(x.len()), ROW_CHUNK / 8 * gain.len());
        out.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(out, x)| {
            for (out, x) in out.chunks_exact_mut(gain.len()).zip(x.chunks_exact(gain.len())) {
                simd!(vector::rms_norm(out, x, gain, self.eps));
            }
        });
        Tensor::of_rows(out, gain.len())
    }
}
