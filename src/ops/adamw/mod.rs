//! AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019), in PyTorch's order of operations.
//!
//! Not on the tape: it changes parameters in place after backward.

mod cuda;

use rayon::prelude::*;

use super::elementwise;
use crate::autograd::Cost;
use crate::device::Gpu;
use crate::device::cpu::simd;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const NAME: &str = "adamw";

/// Settings of the optimizer.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate.
    pub learning_rate: f32,
    /// Decay rates of the two moments.
    pub betas: (f32, f32),
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decay of the parameters, per unit of learning rate.
    pub weight_decay: f32,
}

impl Default for AdamW {
    /// The paper's learning rate, else PyTorch's defaults.
    fn default() -> AdamW {
        AdamW { learning_rate: 4e-5, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 }
    }
}

/// Running means of one parameter's gradient and of its square.
#[derive(Clone, Debug)]
pub struct Moments {
    /// First moment.
    pub first: Tensor,
    /// Second moment.
    pub second: Tensor,
}

impl Moments {
    /// Zeros of a parameter's shape.
    pub fn zeros(shape: &[usize]) -> Moments {
        Moments { first: Tensor::zeros(shape), second: Tensor::zeros(shape) }
    }

    /// The same in a device's memory, or with `None` in the host's.
    pub fn to(&self, gpu: Option<&Gpu>) -> Result<Moments> {
        Ok(Moments { first: self.first.to(gpu)?, second: self.second.to(gpu)? })
    }
}

/// What the step's number makes of the settings.
#[derive(Clone, Copy)]
struct Factors {
    rate: f32,
    root: f32,
    keep: f32,
}

impl AdamW {
    fn factors(&self, step: u64) -> Factors {
        let correction = |beta: f32| 1.0 - (beta as f64).powf(step as f64);
        let (b1, b2) = self.betas;
        Factors {
            rate: (self.learning_rate as f64 / correction(b1)) as f32,
            root: correction(b2).sqrt() as f32,
            keep: 1.0 - self.learning_rate * self.weight_decay,
        }
    }

    /// What one step costs for this many parameters. Each is FLOPS of arithmetic; value, gradient and two moments are read,
    /// all but the gradient written.
    pub fn cost(parameters: usize) -> Cost {
        /// First moment: a product and a multiply-add; second: two and one; the value scaled, less (multiply-add) the rate
        /// times the first over a root that is divided and added to; and 1 - beta of each.
        const FLOPS: usize = 3 + 4 + 1 + 2 + 1 + 4 + 1;
        elementwise::cost([FLOPS * parameters, 0], [7 * parameters, 0])
    }

    /// Updates every parameter by its gradient; `step` counts from 1.
    pub fn step(&self, step: u64, parameters: &mut [Tensor], grads: &[Tensor], moments: &mut [Moments]) -> Result<()> {
        if parameters.len() != grads.len() || parameters.len() != moments.len() {
            return Err(Error::shape(NAME, "parameters, gradients and moments differ in number"));
        }
        for (parameter, grad) in parameters.iter().zip(grads) {
            grad.expect(NAME, "gradient", parameter.shape())?;
        }
        if let Some(gpu) = parameters.first().and_then(Tensor::gpu).cloned() {
            return self.step_on(&gpu, self.factors(step), parameters, grads, moments);
        }
        let (Factors { rate, root, keep }, (b1, b2)) = (self.factors(step), self.betas);
        parameters.par_iter_mut().zip(grads).zip(moments).for_each(|((parameter, grad), moments)| {
            let values = parameter.data_mut().iter_mut().zip(grad.data());
            let moments = moments.first.data_mut().iter_mut().zip(moments.second.data_mut());
            simd!({
                for ((p, &g), (m, v)) in values.zip(moments) {
                    *m = b1 * *m + (1.0 - b1) * g;
                    *v = b2 * *v + (1.0 - b2) * g * g;
                    *p = *p * keep - rate * *m / (v.sqrt() / root + self.eps);
                }
            });
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three steps on one parameter, computed by torch.optim.AdamW (2.15, lr 0.1, weight_decay 0.01).
    #[test]
    fn follows_pytorch() {
        let adamw = AdamW { learning_rate: 0.1, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01 };
        let mut parameters = [Tensor::new([2], vec![1.0, -0.5]).unwrap()];
        let mut moments = [Moments::zeros(&[2])];
        let want = [[0.899, -0.3995], [0.8177969, -0.3058825], [0.7288014, -0.2113033]];
        for (step, (grad, want)) in [[0.5, -2.0], [0.1, -1.0], [0.7, -3.0]].into_iter().zip(want).enumerate() {
            let grads = [Tensor::new([2], grad.to_vec()).unwrap()];
            adamw.step(step as u64 + 1, &mut parameters, &grads, &mut moments).unwrap();
            for (got, want) in parameters[0].data().iter().zip(want) {
                assert!((got - want).abs() < 1e-6, "step {step}: {got}, want {want}");
            }
        }
    }
}
