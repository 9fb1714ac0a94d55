//! Linear layers: `y = activation(x Wᵀ + b)`, or with a residual `activation(x Wᵀ + b + residual)`.
//!
//! - [`Linear`]: a layer of an encoder, whose weights are packed once for where it computes ([`packed`] on the CPU,
//!   [`tiled`] on a device).
//! - [`stored`]: weights of any precision that stay as and where they are, as a decoder's do.
//! - [`differentiable`]: an operation of its own, with gradients.
//! - `rows`: f32 with gradients, what the differentiable operations are made of on the CPU.

mod dense;
pub mod differentiable;
pub mod packed;
mod rows;
pub mod stored;
pub mod tiled;
mod windows;

pub use dense::Dense;
pub use packed::{Activation, Epilogue, Operand, PackedBf16, TransposedF32, Value, Windows, bf16_ceiling};
pub use rows::{
    ROW_CHUNK, Start, add_column_sums, linear, linear_backward_input, linear_backward_weight, linear_chunk, segments,
    transposed,
};

use self::tiled::Gemm;
use super::matmul::Mat;
use crate::autograd::Cost;
use crate::device::cuda::Ptr;
use crate::error::{Error, Result};
use crate::tensor::{Compute, Element, Host, HostMut, Tensor};

/// `activation(x Wᵀ + b)`, or with a residual `activation(x Wᵀ + b + residual)`.
pub struct Linear {
    weight: Weight,
    /// (outputs)
    bias: Option<Tensor>,
    activation: Option<Activation>,
    /// Of the output.
    output: Element,
}

enum Weight {
    F32(TransposedF32),
    Bf16(PackedBf16),
    /// (outputs, inputs)
    Device(Tensor),
}

/// What a layer costs on so many rows, with its bias. A residual is read and written as the output is.
pub fn cost(rows: usize, (inputs, outputs): (usize, usize), operand: Element, output: Element, residual: bool) -> Cost {
    let weights = operand.size() * inputs * outputs + 4 * outputs;
    let written = output.size() * outputs * if residual { 2 } else { 1 };
    Cost::inference(2 * rows * inputs * outputs, weights + rows * (operand.size() * inputs + written))
}

impl Linear {
    /// From a row-major weight (outputs, inputs).
    pub fn new(weight: &[f32], outputs: usize, bias: Option<Vec<f32>>, compute: &Compute) -> Result<Linear> {
        let (inputs, element) = (weight.len() / outputs.max(1), compute.element()?);
        let weight = match (&compute.gpu, element) {
            (Some(gpu), _) => Weight::Device(Tensor::upload(gpu, "weights", weight, inputs, element)?),
            (None, Element::F32) => Weight::F32(TransposedF32::new(Mat::new(weight, outputs, inputs))),
            (None, _) => Weight::Bf16(PackedBf16::new(weight, outputs, inputs)?),
        };
        let bias = bias.map(|bias| Tensor::new([outputs], bias)?.to(compute.gpu.as_ref())).transpose()?;
        Ok(Linear { weight, bias, activation: None, output: element })
    }

    /// The same with an activation function.
    pub fn with(self, activation: Activation) -> Linear {
        Linear { activation: Some(activation), ..self }
    }

    /// The same with outputs in f32.
    pub fn wide(self) -> Linear {
        Linear { output: Element::F32, ..self }
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        match &self.weight {
            Weight::F32(weight) => weight.outputs(),
            Weight::Bf16(weight) => weight.outputs(),
            Weight::Device(weight) => weight.count(),
        }
    }

    /// (n, inputs) -> (n, outputs)
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.output(x, None)
    }

    /// Updates the residual (n, outputs).
    pub fn forward_onto(&self, x: &Tensor, residual: &mut Tensor) -> Result<()> {
        self.update(x, None, residual)
    }

    /// The same on windows of images: x holds pixels, the output has a row for each window.
    pub(super) fn forward_windows(&self, x: &Tensor, windows: Windows) -> Result<Tensor> {
        self.output(x, Some(windows))
    }

    /// [`Linear::forward_onto`] of windows.
    pub(super) fn forward_windows_onto(&self, x: &Tensor, windows: Windows, residual: &mut Tensor) -> Result<()> {
        self.update(x, Some(windows), residual)
    }

    fn output(&self, x: &Tensor, windows: Option<Windows>) -> Result<Tensor> {
        let count = windows.map_or(x.count(), |windows| windows.count(x.count()));
        if let Weight::Device(weight) = &self.weight {
            let out = Tensor::alloc(x.device("linear")?, "activations", self.output, [count, weight.count()])?;
            return self.launch(x, weight, windows, &out, Ptr::NULL).map(|()| out);
        }
        let mut out = Tensor::scratch([count, self.outputs()], self.output)?;
        self.run(x, windows, &mut out, false)?;
        Ok(out)
    }

    fn update(&self, x: &Tensor, windows: Option<Windows>, residual: &mut Tensor) -> Result<()> {
        if let Weight::Device(weight) = &self.weight {
            residual.device("linear")?;
            let out = residual.written()?;
            return self.launch(x, weight, windows, out, out.address());
        }
        self.run(x, windows, residual, true)
    }

    fn launch(&self, x: &Tensor, weight: &Tensor, windows: Option<Windows>, out: &Tensor, residual: Ptr) -> Result<()> {
        let (gpu, x) = (x.device("linear")?, x.operand(weight.element())?);
        let (bias, finish) = (self.bias.as_ref().map_or(Ptr::NULL, Tensor::ptr), self.activation.into());
        match windows.filter(|windows| !windows.are_pixels()) {
            None => Gemm { bias, finish, residual, ..Gemm::new(&x, weight, out)? }.launch(gpu),
            Some(windows) => windows::launch(&x, weight, windows, out, finish, (bias, residual)),
        }
    }

    fn run(&self, x: &Tensor, windows: Option<Windows>, out: &mut Tensor, residual: bool) -> Result<()> {
        let epilogue = Epilogue { bias: self.bias.as_ref().map(Tensor::data), residual, activation: self.activation };
        fn operand<T: Value>(values: &[T], width: usize, windows: Option<Windows>) -> Operand<'_, T> {
            match windows {
                None => Operand::new(values, width),
                Some(windows) => Operand::windows(values, width, windows),
            }
        }
        let width = x.width();
        match (&self.weight, x.host("linear")?, out.host_mut("linear")?) {
            (Weight::F32(w), Host::F32(x), HostMut::F32(out)) => w.forward(operand(x, width, windows), out, epilogue),
            (Weight::Bf16(w), Host::F32(x), HostMut::F32(out)) => w.forward(operand(x, width, windows), out, epilogue),
            (Weight::Bf16(w), Host::F32(x), HostMut::Bf16(out)) => w.forward(operand(x, width, windows), out, epilogue),
            (Weight::Bf16(w), Host::Bf16(x), HostMut::F32(out)) => w.forward(operand(x, width, windows), out, epilogue),
            (Weight::Bf16(w), Host::Bf16(x), HostMut::Bf16(out)) => {
                w.forward(operand(x, width, windows), out, epilogue)
            }
            (Weight::F32(_), ..) => Err(Error::shape("linear", "weights in f32 meet rows in bf16")),
            (Weight::Device(_), ..) => Err(Error::shape("linear", "weights and rows lie on different devices")),
        }
    }
}
