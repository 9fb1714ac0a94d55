//! A linear layer on a device.

use super::Activation;
use super::tiled::Gemm;
use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Ptr};
use crate::error::{Error, Result};
use crate::tensor::{Element, Matrix};

/// A weight (outputs, inputs) and perhaps a bias (outputs) in device memory.
pub struct DeviceLinear {
    pub(in crate::ops) weight: Matrix,
    pub(in crate::ops) bias: Option<DeviceBuffer<f32>>,
}

impl DeviceLinear {
    /// Copies a row-major weight (outputs, inputs) to a device.
    pub fn new(
        gpu: &Gpu,
        weight: &[f32],
        inputs: usize,
        bias: Option<&[f32]>,
        element: Element,
    ) -> Result<DeviceLinear> {
        let weight = Matrix::upload(gpu, "weights", weight, inputs, element)?;
        let bias = bias.map(|bias| gpu.upload("weights", bias)).transpose()?;
        if bias.as_ref().is_some_and(|bias| bias.len() != weight.rows()) {
            return Err(Error::shape("linear", format!("{} outputs with another number of biases", weight.rows())));
        }
        Ok(DeviceLinear { weight, bias })
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.weight.rows()
    }

    /// What the weight is, and the input must be.
    pub fn element(&self) -> Element {
        self.weight.element()
    }

    /// activation(x Wᵀ + b): (n, inputs) -> (n, outputs)
    pub fn forward(&self, x: &Matrix, activation: Option<Activation>, output: Element) -> Result<Matrix> {
        let out = Matrix::alloc(x.gpu(), "activations", output, x.rows(), self.outputs())?;
        self.gemm(x, &out, activation)?.launch(x.gpu())?;
        Ok(out)
    }

    /// activation(x Wᵀ + b + residual), in place of the residual (n, outputs).
    pub fn forward_onto(&self, x: &Matrix, residual: &mut Matrix, activation: Option<Activation>) -> Result<()> {
        Gemm { residual: residual.ptr(), ..self.gemm(x, residual, activation)? }.launch(x.gpu())
    }

    fn gemm(&self, x: &Matrix, out: &Matrix, activation: Option<Activation>) -> Result<Gemm> {
        let bias = self.bias.as_ref().map_or(Ptr::NULL, DeviceBuffer::ptr);
        Ok(Gemm { bias, finish: activation.into(), ..Gemm::new(x, &self.weight, out)? })
    }
}
