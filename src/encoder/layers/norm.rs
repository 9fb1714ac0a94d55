//! Layer normalization.

use super::Rows;
use super::rows::{Data, DeviceRows};
use crate::device::cpu::layer_norm;
use crate::device::cuda::encoder as cuda;
use crate::encoder::{Compute, Precision};
use crate::error::{Error, Result};

/// `(x - mean) / sqrt(variance + eps) * gamma + beta` over each row.
pub struct Norm {
    parameters: Parameters,
    width: usize,
    /// Of products with the output.
    operands: Precision,
    /// Of the output.
    precision: Precision,
}

enum Parameters {
    Host { gamma: Vec<f32>, beta: Vec<f32>, eps: f32 },
    Device(cuda::Norm),
}

impl Norm {
    /// From the two parameters, which have one length.
    pub fn new(gamma: Vec<f32>, beta: Vec<f32>, eps: f32, compute: &Compute) -> Result<Norm> {
        let width = gamma.len();
        let parameters = match &compute.gpu {
            Some(gpu) => Parameters::Device(cuda::Norm::new(gpu, &gamma, &beta, eps)?),
            None => Parameters::Host { gamma, beta, eps },
        };
        Ok(Norm { parameters, width, operands: compute.precision, precision: compute.precision })
    }

    /// The same with outputs in f32.
    pub fn wide(self) -> Norm {
        Norm { precision: Precision::F32, ..self }
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
                let mut out = Rows::scratch(x.count(), x.width(), self.precision);
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

    fn forward_on(&self, norm: &cuda::Norm, x: &DeviceRows) -> Result<Rows> {
        if (self.precision, self.operands) == (Precision::F32, Precision::Bf16) {
            let (rows, narrow) = norm.forward_both(&x.rows)?;
            return Ok(Rows::of(DeviceRows { rows, narrow: Some(narrow) }));
        }
        Ok(Rows::on_device(norm.forward(&x.rows, self.precision.into())?))
    }
}
