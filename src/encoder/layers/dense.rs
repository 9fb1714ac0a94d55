//! Linear layers.

use super::Rows;
use super::rows::Data;
use crate::device::cpu::{Activation, Epilogue, Mat, Operand, PackedBf16, TransposedF32, Value, Windows};
use crate::device::cuda::encoder as cuda;
use crate::encoder::{Compute, Precision};
use crate::error::{Error, Result};

/// `activation(x Wᵀ + b)`, or with a residual `activation(x Wᵀ + b + residual)`.
pub struct Dense {
    weight: Weight,
    bias: Option<Vec<f32>>,
    activation: Option<Activation>,
    /// Of the output.
    precision: Precision,
}

enum Weight {
    F32(TransposedF32),
    Bf16(PackedBf16),
    /// With the bias.
    Device(Box<cuda::Dense>),
}

impl Dense {
    /// From a row-major weight (outputs, inputs).
    pub fn new(weight: &[f32], outputs: usize, bias: Option<Vec<f32>>, compute: &Compute) -> Result<Dense> {
        let (inputs, precision) = (weight.len() / outputs.max(1), compute.precision);
        let weight = match (&compute.gpu, precision) {
            (Some(gpu), _) => {
                Weight::Device(Box::new(cuda::Dense::new(gpu, weight, inputs, bias.as_deref(), precision.into())?))
            }
            (None, Precision::F32) => Weight::F32(TransposedF32::new(Mat::new(weight, outputs, inputs))),
            (None, Precision::Bf16) => Weight::Bf16(PackedBf16::new(weight, outputs, inputs)?),
        };
        Ok(Dense { weight, bias, activation: None, precision })
    }

    /// The same with an activation function.
    pub fn with(self, activation: Activation) -> Dense {
        Dense { activation: Some(activation), ..self }
    }

    /// The same with outputs in f32.
    pub fn wide(self) -> Dense {
        Dense { precision: Precision::F32, ..self }
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        match &self.weight {
            Weight::F32(weight) => weight.outputs(),
            Weight::Bf16(weight) => weight.outputs(),
            Weight::Device(dense) => dense.outputs(),
        }
    }

    /// (n, inputs) -> (n, outputs)
    pub fn forward(&self, x: &Rows) -> Result<Rows> {
        if let (Weight::Device(dense), Data::Device(x)) = (&self.weight, x.data()) {
            let forward = |x: &_| dense.forward(x, self.activation, self.precision.into());
            return Ok(Rows::on_device(x.with(dense.element(), forward)?));
        }
        let mut out = Rows::scratch(x.count(), self.outputs(), self.precision);
        self.run(x, None, &mut out, false)?;
        Ok(out)
    }

    /// Updates the residual (n, outputs).
    pub fn forward_onto(&self, x: &Rows, residual: &mut Rows) -> Result<()> {
        if let (Weight::Device(dense), Data::Device(x), Data::Device(out)) =
            (&self.weight, x.data(), residual.data_mut())
        {
            out.narrow = None;
            return x.with(dense.element(), |x| dense.forward_onto(x, &mut out.rows, self.activation));
        }
        self.run(x, None, residual, true)
    }

    /// The same on windows of images: x holds pixels, out has a row for each window.
    pub(super) fn forward_windows(&self, x: &Rows, windows: Windows, count: usize) -> Result<Rows> {
        let mut out = Rows::scratch(count, self.outputs(), self.precision);
        self.run(x, Some(windows), &mut out, false)?;
        Ok(out)
    }

    /// [`Dense::forward_onto`] of windows.
    pub(super) fn forward_windows_onto(&self, x: &Rows, windows: Windows, residual: &mut Rows) -> Result<()> {
        self.run(x, Some(windows), residual, true)
    }

    fn run(&self, x: &Rows, windows: Option<Windows>, out: &mut Rows, residual: bool) -> Result<()> {
        let epilogue = Epilogue { bias: self.bias.as_deref(), residual, activation: self.activation };
        fn operand<T: Value>(values: &[T], width: usize, windows: Option<Windows>) -> Operand<'_, T> {
            match windows {
                None => Operand::new(values, width),
                Some(windows) => Operand::windows(values, width, windows),
            }
        }
        let width = x.width();
        match (&self.weight, x.data(), out.data_mut()) {
            (Weight::F32(w), Data::F32(x), Data::F32(out)) => w.forward(operand(x, width, windows), out, epilogue),
            (Weight::Bf16(w), Data::F32(x), Data::F32(out)) => w.forward(operand(x, width, windows), out, epilogue),
            (Weight::Bf16(w), Data::F32(x), Data::Bf16(out)) => w.forward(operand(x, width, windows), out, epilogue),
            (Weight::Bf16(w), Data::Bf16(x), Data::F32(out)) => w.forward(operand(x, width, windows), out, epilogue),
            (Weight::Bf16(w), Data::Bf16(x), Data::Bf16(out)) => w.forward(operand(x, width, windows), out, epilogue),
            (Weight::F32(_), _, _) => Err(Error::shape("dense", "weights in f32 meet rows in bf16")),
            _ => Err(Error::shape("dense", "weights and rows lie on different devices")),
        }
    }
}
