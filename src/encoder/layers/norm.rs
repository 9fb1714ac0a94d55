//! Layer normalization.

use super::Rows;
use super::rows::Data;
use crate::device::cpu::layer_norm;
use crate::encoder::Precision;
use crate::error::{Error, Result};

/// `(x - mean) / sqrt(variance + eps) * gamma + beta` over each row.
pub struct Norm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    eps: f32,
    /// Of the output.
    precision: Precision,
}

impl Norm {
    /// From the two parameters, which have one length.
    pub fn new(gamma: Vec<f32>, beta: Vec<f32>, eps: f32, precision: Precision) -> Norm {
        Norm { gamma, beta, eps, precision }
    }

    /// The same with outputs in f32.
    pub fn wide(self) -> Norm {
        Norm { precision: Precision::F32, ..self }
    }

    /// Normalized copy of rows of f32.
    pub fn forward(&self, x: &Rows) -> Result<Rows> {
        if x.width() != self.gamma.len() {
            return Err(Error::shape("norm", format!("rows of {}, needs {}", x.width(), self.gamma.len())));
        }
        let mut out = Rows::scratch(x.count(), x.width(), self.precision);
        let x = x.wide("norm")?;
        match out.data_mut() {
            Data::F32(out) => layer_norm(x, out, &self.gamma, &self.beta, self.eps),
            Data::Bf16(out) => layer_norm(x, out, &self.gamma, &self.beta, self.eps),
        }
        Ok(out)
    }
}
