//! Products of values: x ⊙ y of one shape, or each row of x multiplied by a value of its own.
//!
//! x (n, ...), y of the same shape or of n values in any shape -> the shape of x.

mod cuda;

use super::lanes::WARP_SUM;
use super::{arity, elementwise};
use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const NAME: &str = "multiply";

/// See the module's documentation. Inputs: x, y.
#[derive(Clone, Copy, Debug)]
pub struct Multiply;

/// What backward needs.
pub struct Saved {
    x: Tensor,
    y: Tensor,
    /// Neighbours of x that one value of y belongs to: 1 where both have one shape.
    width: usize,
}

/// `to += a ⊙ b`, where a value of b belongs to `width` of a.
fn add_products(to: &mut [f32], a: &[f32], b: &[f32], width: usize) {
    if width == 1 {
        elementwise::pieces(to, [a, b], |to, [a, b]| {
            simd!(to.iter_mut().zip(a).zip(b).for_each(|((to, a), b)| *to = a.mul_add(*b, *to)));
        });
    } else {
        elementwise::rows(to, width, |row, to| simd!(vector::add_scaled(to, b[row], &a[row * width..][..width])));
    }
}

impl Op for Multiply {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, i: usize) -> &'static str {
        ["x", "y"][i]
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let [x, y] = [0, 1].map(|i| inputs[i].iter().product::<usize>());
        // Products are multiply-adds. Where a row has one factor, a warp sums its gradient.
        let sums = if x == y { 0 } else { WARP_SUM * y };
        Cost {
            kernels_backward: KernelWork::vector((4 * x + sums) as u64),
            ..elementwise::cost([2 * x, 4 * x], [2 * x + y, 3 * x + 2 * y])
        }
    }

    fn cost_of_gradient(&self, inputs: &[&[usize]], input: usize) -> Cost {
        let [x, y] = [0, 1].map(|i| inputs[i].iter().product::<usize>());
        let sums = if x == y || input == 0 { 0 } else { WARP_SUM * y };
        Cost {
            kernels_backward: KernelWork::vector((2 * x + sums) as u64),
            ..elementwise::cost([0, 2 * x], [0, x + [x, y][input]])
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let &[x, y] = arity(NAME, inputs)?;
        let width = match x.shape() {
            shape if shape == y.shape() => 1,
            [n, rest @ ..] if *n == y.len() => rest.iter().product(),
            shape => return Err(Error::shape(NAME, format!("x has shape {shape:?}, y {:?}", y.shape()))),
        };
        let saved = Saved { x: x.clone(), y: y.clone(), width };
        if let Some(gpu) = x.gpu() {
            return Ok((cuda::forward(gpu, &saved)?, saved));
        }
        let mut out = Buffer::zeros(x.len());
        add_products(&mut out, x.data(), y.data(), width);
        Ok((Tensor::new(x.shape(), out)?, saved))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        if let Some(gpu) = elementwise::place(NAME, &saved.x, grad)? {
            return cuda::backward(gpu, &saved, grad, grads);
        }
        let (Saved { x, y, width }, grad) = (&saved, grad.data());
        if let Some(dx) = grads.get(0) {
            add_products(dx, grad, y.data(), *width);
        }
        if let Some(dy) = grads.get(1) {
            match width {
                1 => add_products(dy, grad, x.data(), 1),
                &width => elementwise::rows(dy, 1, |row, dy| {
                    let [grad, x] = [grad, x.data()].map(|values| &values[row * width..][..width]);
                    dy[0] += simd!(vector::dot(grad, x));
                }),
            }
        }
        Ok(())
    }
}
