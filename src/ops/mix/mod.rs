//! Softmax-weighted sums of modalities, as gates and modality attention form them.
//!
//! logits (n, k), x_1 to x_k (n, d) -> (n, d): Σ_j softmax(logits)_j x_j of each row. k is at most 8.

mod cuda;

use super::elementwise;
use super::lanes::{EXP, LANES, WARP_SUM};
use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const NAME: &str = "mix";

/// The most tensors that are mixed, which a warp keeps the weights of.
const MODALITIES: usize = 8;

/// See the module's documentation. Inputs: logits, then what is mixed.
#[derive(Clone, Copy, Debug)]
pub struct Mix;

/// What backward needs.
pub struct Saved {
    /// (n, k)
    softmax: Tensor,
    /// What was mixed.
    modalities: Vec<Tensor>,
}

impl Op for Mix {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, i: usize) -> &'static str {
        ["logits", "modality"][i.min(1)]
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let ((n, k), d) = ((inputs[0][0], inputs[0][1]), inputs[1][1]);
        let (values, logits) = (n * k * d, n * k);
        let flops = [2 * values + 4 * logits, 4 * values + 4 * logits];
        // A warp per row, each of whose lanes has the softmax of all logits; a sum of a warp for each gradient of a logit.
        let softmax = LANES * ((1 + EXP) * k + 2 * MODALITIES);
        let gradients = k * (WARP_SUM + 2 * LANES) + 2 * k;
        Cost {
            kernels_forward: KernelWork::vector((n * softmax + 2 * values) as u64),
            kernels_backward: KernelWork::vector((n * gradients + 4 * values) as u64),
            ..elementwise::cost(flops, [values + 2 * logits + n * d, 2 * values + 2 * logits + n * d])
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (logits, modalities) = match inputs.split_first() {
            Some((logits, modalities)) if (1..=MODALITIES).contains(&modalities.len()) => (logits, modalities),
            _ => return Err(Error::shape(NAME, format!("needs logits and 1 to {MODALITIES} tensors to mix"))),
        };
        let ((n, d), k) = (modalities[0].matrix(NAME, "modality")?, modalities.len());
        logits.expect(NAME, "logits", &[n, k])?;
        modalities.iter().try_for_each(|x| x.expect(NAME, "modality", &[n, d]))?;
        let modalities: Vec<Tensor> = modalities.iter().map(|&x| x.clone()).collect();
        if let Some(gpu) = logits.gpu() {
            let (out, softmax) = cuda::forward(gpu, logits, &modalities)?;
            return Ok((out, Saved { softmax, modalities }));
        }
        let mut softmax = Buffer::scratch(n * k);
        softmax.copy_from_slice(logits.data());
        elementwise::rows(&mut softmax, k, |_, row| simd!(vector::softmax(row)));
        let mut out = Buffer::zeros(n * d);
        elementwise::rows(&mut out, d, |row, out| {
            simd!(for (weight, x) in softmax[row * k..][..k].iter().zip(&modalities) {
                vector::add_scaled(out, *weight, &x.data()[row * d..][..d]);
            });
        });
        Ok((Tensor::new([n, d], out)?, Saved { softmax: Tensor::new([n, k], softmax)?, modalities }))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let Saved { softmax, modalities } = &saved;
        if let Some(gpu) = elementwise::place(NAME, softmax, grad)? {
            return cuda::backward(gpu, softmax, modalities, grad, grads);
        }
        let ((_, d), (_, k)) = (grad.matrix(NAME, "gradient")?, softmax.matrix(NAME, "softmax")?);
        let (softmax, grad) = (softmax.data(), grad.data());
        if let Some(dlogits) = grads.get(0) {
            elementwise::rows(dlogits, k, |row, dlogits| {
                let (grad, weights) = (&grad[row * d..][..d], &softmax[row * k..][..k]);
                let mut dots = [0.0; MODALITIES];
                for (dot, x) in dots.iter_mut().zip(modalities) {
                    *dot = simd!(vector::dot(grad, &x.data()[row * d..][..d]));
                }
                let mean: f32 = weights.iter().zip(dots).map(|(weight, dot)| weight * dot).sum();
                for ((to, weight), dot) in dlogits.iter_mut().zip(weights).zip(dots) {
                    *to += weight * (dot - mean);
                }
            });
        }
        for j in 0..k {
            if let Some(to) = grads.get(1 + j) {
                elementwise::rows(to, d, |row, to| {
                    simd!(vector::add_scaled(to, softmax[row * k + j], &grad[row * d..][..d]));
                });
            }
        }
        Ok(())
    }
}
