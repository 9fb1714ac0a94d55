//! Layer normalization: `(x - mean) / sqrt(variance + eps) * gamma + beta` over each row.
//!
//! [`Norm`] is a layer of an encoder (kernels/layer_norm_wide.cu); [`LayerNorm`] and the functions of the CPU are what
//! the differentiable operations are made of (kernels/layer_norm.cu).

mod cpu;
mod cuda;
pub mod differentiable;
mod wide;
mod work;

pub use cpu::{LayerNormGrads, layer_norm, layer_norm_backward, layer_norm_forward};
pub use cuda::{Gradient, LayerNorm, Normalized, NormalizedBackward, Residual, ToNormalize};
pub use work::{NORM_BACKWARD, NORM_FORWARD, backward_work, forward_work};

use crate::autograd::Cost;
use crate::error::Result;
use crate::tensor::{Compute, Element, HostMut, Tensor};

/// `(x - mean) / sqrt(variance + eps) * gamma + beta` over each row.
pub struct Norm {
    /// (width)
    gamma: Tensor,
    beta: Tensor,
    eps: f32,
    /// Of products with the output.
    operands: Element,
    /// Of the output.
    output: Element,
}

/// What normalizing rows of f32 for inference costs. Its few FLOPs are not counted, as is usual.
pub fn cost(rows: usize, width: usize, output: Element) -> Cost {
    Cost::inference(0, 2 * 4 * width + rows * (4 + output.size()) * width)
}

impl Norm {
    /// From the two parameters (width).
    pub fn new(gamma: &Tensor, beta: &Tensor, eps: f32, compute: &Compute) -> Result<Norm> {
        let (gpu, element) = (compute.gpu.as_ref(), compute.element()?);
        beta.expect("norm", "beta", &[gamma.len()])?;
        if gpu.is_some() {
            wide::check(gamma.len())?;
        }
        Ok(Norm { gamma: gamma.to(gpu)?, beta: beta.to(gpu)?, eps, operands: element, output: element })
    }

    /// The same with outputs in f32.
    pub fn wide(self) -> Norm {
        Norm { output: Element::F32, ..self }
    }

    /// Normalized copy of rows of f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Norm { gamma, beta, eps, .. } = self;
        x.expect_beside("norm", gamma, gamma.len())?;
        if x.gpu().is_some() {
            // Rows that are both a residual and an operand are written as both at once.
            let both = (self.output, self.operands) == (Element::F32, Element::Bf16);
            return wide::forward(x, [gamma, beta], *eps, (self.output, both));
        }
        let mut out = Tensor::scratch(x.shape(), self.output)?;
        let x = x.wide("norm")?;
        match out.host_mut("norm")? {
            HostMut::F32(out) => layer_norm(x, out, gamma.data(), beta.data(), *eps),
            HostMut::Bf16(out) => layer_norm(x, out, gamma.data(), beta.data(), *eps),
        }
        Ok(out)
    }
}
