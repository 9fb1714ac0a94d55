//! An activation function of each value, with its backward: any shape -> the same shape.

mod cuda;

use super::linear::Activation;
use super::{arity, elementwise};
use crate::autograd::{Cost, InputGrads, Op};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::tensor::Tensor;

const NAME: &str = "activation";

/// Whether backward needs what went in; for the others what came out is enough.
fn keeps_input(activation: Activation) -> bool {
    matches!(activation, Activation::QuickGelu | Activation::Gelu)
}

/// dx *= the derivative, from what [`keeps_input`] says. Inline into `simd!`.
#[inline(always)]
fn derive(activation: Activation, dx: &mut [f32], kept: &[f32]) {
    match activation {
        Activation::QuickGelu => vector::quick_gelu_backward(dx, kept),
        Activation::Gelu => vector::gelu_backward(dx, kept),
        Activation::Relu => scale(dx, kept, |y| if y > 0.0 { 1.0 } else { 0.0 }),
        Activation::Tanh => scale(dx, kept, |y| 1.0 - y * y),
        Activation::Sigmoid => scale(dx, kept, |y| y * (1.0 - y)),
    }
}

#[inline(always)]
fn scale(dx: &mut [f32], kept: &[f32], slope: impl Fn(f32) -> f32) {
    dx.iter_mut().zip(kept).for_each(|(dx, &kept)| *dx *= slope(kept));
}

impl Op for Activation {
    /// Input or output, as [`keeps_input`] says.
    type Saved = Tensor;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "input"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let values = inputs[0].iter().product();
        elementwise::cost([values, 2 * values], [2 * values, 3 * values])
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Tensor)> {
        let &[x] = arity(NAME, inputs)?;
        let out = match x.gpu() {
            Some(gpu) => cuda::forward(gpu, *self, x)?,
            None => {
                let mut out = Buffer::scratch(x.len());
                elementwise::pieces(&mut out, [x.data()], |out, [x]| {
                    out.copy_from_slice(x);
                    simd!(self.apply(out));
                });
                Tensor::new(x.shape(), out)?
            }
        };
        let kept = if keeps_input(*self) { x.clone() } else { out.clone() };
        Ok((out, kept))
    }

    fn backward(&self, kept: Tensor, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        if let Some(gpu) = elementwise::place(NAME, &kept, grad)? {
            return cuda::backward(gpu, *self, &kept, grad, grads.on_device(0)?);
        }
        let Some(to) = grads.get(0) else { return Ok(()) };
        let mut dx = Buffer::scratch(grad.len());
        elementwise::pieces(&mut dx, [grad.data(), kept.data()], |dx, [grad, kept]| {
            dx.copy_from_slice(grad);
            simd!(derive(*self, dx, kept));
        });
        elementwise::pieces(to, [&dx], |to, [dx]| simd!(vector::add(to, dx)));
        Ok(())
    }
}
