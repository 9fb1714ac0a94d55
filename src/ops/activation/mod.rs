//! An activation function of each value, with its backward: any shape -> the same shape.

pub(super) mod cuda;

use super::lanes::EXP;
use super::linear::Activation;
use super::{arity, elementwise};
use crate::autograd::{Cost, InputGrads, Op};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::tensor::Tensor;

const NAME: &str = "activation";

impl Activation {
    /// Whether backward needs what went in; for the others what came out is enough.
    pub fn keeps_input(self) -> bool {
        matches!(self, Activation::QuickGelu | Activation::Gelu | Activation::TanhGelu)
    }

    /// FLOPs of a value forward and, times the gradient, backward, as kernels/activation.cuh says them: e to a power is
    /// [`EXP`], in its fast form two (a product and ex2), tanh and erf about 20.
    pub(super) fn flops(self) -> (usize, usize) {
        match self {
            Activation::QuickGelu => (5, EXP + 8),
            Activation::Gelu => (24, 20 + EXP + 9),
            Activation::TanhGelu => (9, EXP + 15),
            Activation::Relu => (0, 1),
            Activation::Tanh => (20, 3),
            Activation::Sigmoid => (4, 3),
        }
    }

    /// Of all values, in parallel and in place.
    pub fn apply_to_all(self, x: &mut [f32]) {
        elementwise::pieces(x, [], |x, []| simd!(self.apply(x)));
    }

    /// dx *= the derivative, in parallel, from the function's input or output as [`Activation::keeps_input`] says.
    pub fn backward_of_all(self, dx: &mut [f32], kept: &[f32]) {
        elementwise::pieces(dx, [kept], |dx, [kept]| {
            simd!(match self {
                Activation::QuickGelu => vector::quick_gelu_backward(dx, kept),
                Activation::Gelu => vector::gelu_backward(dx, kept),
                Activation::TanhGelu => vector::tanh_gelu_backward(dx, kept),
                Activation::Relu => scale(dx, kept, |y| if y > 0.0 { 1.0 } else { 0.0 }),
                Activation::Tanh => scale(dx, kept, |y| 1.0 - y * y),
                Activation::Sigmoid => scale(dx, kept, |y| y * (1.0 - y)),
            })
        });
    }
}

#[inline(always)]
fn scale(dx: &mut [f32], kept: &[f32], slope: impl Fn(f32) -> f32) {
    dx.iter_mut().zip(kept).for_each(|(dx, &kept)| *dx *= slope(kept));
}

impl Op for Activation {
    /// Input or output, as [`Activation::keeps_input`] says.
    type Saved = Tensor;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "input"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let values = inputs[0].iter().product::<usize>();
        let (forward, backward) = self.flops();
        elementwise::cost([forward * values, backward * values], [2 * values, 3 * values])
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Tensor)> {
        let &[x] = arity(NAME, inputs)?;
        let out = match x.gpu() {
            Some(gpu) => {
                let out = gpu.alloc(NAME, x.len())?;
                cuda::apply(gpu, *self, x.ptr(), out.ptr(), x.len())?;
                Tensor::on_device(x.shape(), out)?
            }
            None => {
                let mut out = Buffer::scratch(x.len());
                out.copy_from_slice(x.data());
                self.apply_to_all(&mut out);
                Tensor::new(x.shape(), out)?
            }
        };
        let kept = if self.keeps_input() { x.clone() } else { out.clone() };
        Ok((out, kept))
    }

    fn backward(&self, kept: Tensor, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        if let Some(gpu) = elementwise::place(NAME, &kept, grad)? {
            return cuda::backward(gpu, *self, &kept, grad, grads.on_device(0)?);
        }
        let Some(to) = grads.get(0) else { return Ok(()) };
        let mut dx = Buffer::scratch(grad.len());
        dx.copy_from_slice(grad.data());
        self.backward_of_all(&mut dx, kept.data());
        elementwise::pieces(to, [&dx], |to, [dx]| simd!(vector::add(to, dx)));
        Ok(())
    }
}
