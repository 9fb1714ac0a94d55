//! Layer normalization: `(x - mean) / sqrt(variance + eps) * gamma + beta` over each row.
//!
//! [`Norm`] is a layer of an encoder (kernels/layer_norm_wide.cu); [`LayerNorm`] and the functions of the CPU are what
//! the differentiable operations are made of (kernels/layer_norm.cu).

mod cpu;
mod cuda;
pub mod differentiable;
mod wide;

pub use cpu::{LayerNormGrads, layer_norm, layer_norm_backward, layer_norm_forward};
pub use cuda::{LayerNorm, Normalized, NormalizedBackward, Residual};
pub use wide::DeviceNorm;

use crate::autograd::Cost;
use crate::error::{Error, Result};
use crate::tensor::{Compute, Data, Element, Matrix, Rows};

/// `(x - mean) / sqrt(variance + eps) * gamma + beta` over each row.
pub struct Norm {
    parameters: Parameters,
    width: usize,
    /// Of products with the output.
    operands: Element,
    /// Of the output.
    output: Element,
}

enum Parameters {
    Host { gamma: Vec<f32>, beta: Vec<f32>, eps: f32 },
    Device(DeviceNorm),
}

/// What normalizing rows of f32 for inference costs. Its few FLOPs are not counted, as is usual.
pub fn cost(rows: usize, width: usize, output: Element) -> Cost {
    Cost::inference(0, 2 * 4 * width + rows * (4 + output.size()) * width)
}

impl Norm {
    /// From the two parameters, which have one length.
    pub fn new(gamma: Vec<f32>, beta: Vec<f32>, eps: f32, compute: &Compute) -> Result<Norm> {
        let (width, element) = (gamma.len(), compute.element()?);
        let parameters = match &compute.gpu {
            Some(gpu) => Parameters::Device(DeviceNorm::new(gpu, &gamma, &beta, eps)?),
            None => Parameters::Host { gamma, beta, eps },
        };
        Ok(Norm { parameters, width, operands: element, output: element })
    }

    /// The same with outputs in f32.
    pub fn wide(self) -> Norm {
        Norm { output: Element::F32, ..self }
    }

    /// Normalized copy of rows of f32.
    pub fn forward(&self, x: &Rows) -> Result<Rows> {
        if x.width() != self.width {
            return Err(Error::shape("norm", format!("rows of {}, needs {}", x.width(), self.width)));
        }
        match (&self.parameters, x.data()) {
            (Parameters::Device(norm), Data::Device(x)) => self.forward_on(norm, x),
            (Parameters::Device(_), _) => Err(Error::shape("norm", "lies on a device, its rows on the host")),
            (Parameters::Host { gamma, beta, eps }, _) => {
                let mut out = Rows::scratch(x.count(), x.width(), self.output)?;
                let x = x.wide("norm")?;
                match out.data_mut() {
                    Data::F32(out) => layer_norm(x, out, gamma, beta, *eps),
                    Data::Bf16(out) => layer_norm(x, out, gamma, beta, *eps),
                    Data::Device(_) => return Err(Error::shape("norm", "lies on the host, its output on a device")),
                }
                Ok(out)
            }
        }
    }

    fn forward_on(&self, norm: &DeviceNorm, x: &Matrix) -> Result<Rows> {
        if (self.output, self.operands) == (Element::F32, Element::Bf16) {
            let (rows, narrow) = norm.forward_both(x)?;
            return Ok(Rows::on_device(rows.beside(narrow)));
        }
        Ok(Rows::on_device(norm.forward(x, self.output)?))
    }
}
