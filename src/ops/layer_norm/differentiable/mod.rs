//! Layer normalization with gradients, an operation of its own: `(x - mean) / sqrt(variance + eps) * weight + bias`
//! over each row.
//!
//! x (n, d), weight (d), bias (d) -> (n, d).

mod cuda;

use rayon::prelude::*;

use super::{NORM_BACKWARD, NORM_FORWARD, backward_work, forward_work, layer_norm_backward, layer_norm_forward};
use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::ops::linear::ROW_CHUNK;
use crate::ops::reduce::group_sums;
use crate::ops::{arity, elsewhere};
use crate::tensor::Tensor;

const NAME: &str = "layer_norm";

/// See the module's documentation. Inputs: x, weight, bias.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f32,
    /// Rows a textbook implementation would compute.
    pub textbook_rows: usize,
}

/// What backward needs.
pub enum Saved {
    Host(HostSaved),
    Device(cuda::Saved),
}

/// What backward on the host needs.
pub struct HostSaved {
    weight: Tensor,
    /// Normalized rows before weight and bias (n, d).
    xhat: Buffer,
    /// Reciprocal standard deviation of each row (n).
    rstd: Buffer,
}

/// The gradient of the input is written or added to as a sum of groups of one row each.
fn groups(n: usize, d: usize) -> u64 {
    if d <= super::cuda::WIDEST { group_sums(n, n, d) } else { (n * d) as u64 }
}

impl Op for LayerNorm {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, i: usize) -> &'static str {
        ["input", "weight", "bias"][i]
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let (n, d) = (inputs[0][0], inputs[0][1]);
        let forward = |rows: usize| (NORM_FORWARD * rows * d) as u64;
        let backward = |rows: usize| ((NORM_BACKWARD + 1) * rows * d) as u64;
        Cost {
            forward: forward(n),
            backward: backward(n),
            textbook_forward: forward(self.textbook_rows),
            textbook_backward: backward(self.textbook_rows),
            kernels_forward: KernelWork::vector(forward_work(n, d, false)),
            kernels_backward: KernelWork::vector(backward_work(n, d) + groups(n, d)),
            forward_bytes: 4 * (n * (3 * d + 1) + 2 * d) as u64,
            backward_bytes: 4 * (n * (3 * d + 1) + 3 * d) as u64,
        }
    }

    fn cost_of_gradient(&self, inputs: &[&[usize]], input: usize) -> Cost {
        let (n, d) = (inputs[0][0], inputs[0][1]);
        match input {
            0 => Cost {
                backward: (n * d) as u64,
                kernels_backward: KernelWork::vector(groups(n, d)),
                textbook_backward: (self.textbook_rows * d) as u64,
                backward_bytes: 4 * (n * d) as u64,
                ..Cost::default()
            },
            _ => Cost::default(),
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let &[x, weight, bias] = arity(NAME, inputs)?;
        let (n, d) = x.matrix(NAME, "input")?;
        weight.expect(NAME, "weight", &[d])?;
        bias.expect(NAME, "bias", &[d])?;
        if d == 0 {
            return Err(Error::shape(NAME, "rows of no values"));
        }
        if let Some(gpu) = x.gpu() {
            let (out, saved) = self.forward_on(gpu, [x, weight, bias])?;
            return Ok((out, Saved::Device(saved)));
        }
        let (mut xhat, mut out, mut rstd) = (Buffer::scratch(n * d), Buffer::scratch(n * d), Buffer::scratch(n));
        xhat.copy_from_slice(x.data());
        let chunks = xhat.par_chunks_mut(ROW_CHUNK * d).zip(out.par_chunks_mut(ROW_CHUNK * d));
        chunks.zip(rstd.par_chunks_mut(ROW_CHUNK)).for_each(|((xhat, out), rstd)| {
            layer_norm_forward(xhat, out, rstd, weight.data(), bias.data(), self.eps);
        });
        let saved = HostSaved { weight: weight.clone(), xhat, rstd };
        Ok((Tensor::new([n, d], out)?, Saved::Host(saved)))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let HostSaved { weight, xhat, rstd } = match (saved, grad.gpu()) {
            (Saved::Host(saved), None) => saved,
            (Saved::Device(saved), Some(gpu)) => return self.backward_on(gpu, &saved, grad, grads),
            _ => return Err(elsewhere(NAME)),
        };
        let d = weight.len();
        let mut dx = Buffer::scratch(grad.len());
        let sums = layer_norm_backward(&mut dx, grad.data(), &xhat, &rstd, weight.data());
        if let Some(to) = grads.get(0) {
            let chunks = to.par_chunks_mut(ROW_CHUNK * d).zip(dx.par_chunks(ROW_CHUNK * d));
            chunks.for_each(|(to, dx)| simd!(vector::add(to, dx)));
        }
        for (i, sums) in [(1, &sums.gamma), (2, &sums.beta)] {
            if let Some(to) = grads.get(i) {
                simd!(vector::add(to, sums));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_mean_and_deviation_asked_for() {
        let x = Tensor::new([2, 4], vec![1.0, 2.0, 3.0, 4.0, -10.0, 0.0, 10.0, 20.0]).unwrap();
        let (weight, bias) = (Tensor::new([4], vec![2.0; 4]).unwrap(), Tensor::new([4], vec![0.5; 4]).unwrap());
        let op = LayerNorm { eps: 0.0, textbook_rows: 2 };
        let (y, _) = op.forward(&[&x, &weight, &bias]).unwrap();
        // (1 - 2.5) / sqrt(1.25) and so on; both rows are the same but for their scale.
        let want = [-2.183_282, -0.394_427, 1.394_427, 3.183_282];
        for (y, want) in y.data().iter().zip(want.iter().cycle()) {
            assert!((y - want).abs() < 1e-5, "{y}, want {want}");
        }
        let error = op.forward(&[&x, &bias, &Tensor::zeros([3])]).err().unwrap().to_string();
        assert!(error.contains("bias has shape [3], needs [4]"), "{error}");
    }
}
