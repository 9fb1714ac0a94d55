//! `silu(x) = x / (1 + exp(-x))`, value by value (Hendrycks and Gimpel, 2016).

mod cuda;

use rayon::prelude::*;

use super::{arity, elsewhere};
use crate::autograd::{Cost, InputGrads, Op};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::tensor::Tensor;

const NAME: &str = "silu";

/// Values that one task takes.
const CHUNK: usize = 1 << 14;

/// The operation: x of any shape -> the same shape.
pub struct Silu;

/// σ(x)
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + vector::exp(-x))
}

impl Op for Silu {
    type Saved = Tensor;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "input"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let values = inputs[0].iter().product::<usize>() as u64;
        let (forward, backward) = (4 * values, 8 * values);
        let (textbook_forward, textbook_backward) = (forward, backward);
        let (forward_bytes, backward_bytes) = (8 * values, 12 * values);
        Cost { forward, backward, textbook_forward, textbook_backward, forward_bytes, backward_bytes,
            ..Cost::default()
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Tensor)> {
        let &[x] = arity(NAME, inputs)?;
        if let Some(gpu) = x.gpu() {
            return Ok((cuda::forward(gpu, x)?, x.clone()));
        }
        let mut out = Buffer::scratch(x.len());
        out.par_chunks_mut(CHUNK).zip(x.data().par_chunks(CHUNK)).for_each(|(out, x)| {
            simd!(out.iter_mut().zip(x).for_each(|(out, &x)| *out = x * sigmoid(x)));
        });
        Ok((Tensor::new(x.shape(), out)?, x.clone()))
    }

    fn backward(&self, x: Tensor, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        match (x.gpu(), grad.gpu()) {
            (Some(gpu), Some(_)) => cuda::backward(gpu, &x, grad, grads.on_device(0)?),
            (None, None) => {
                if let Some(to) = grads.get(0) {
                    let parts = to.par_chunks_mut(CHUNK).zip(x.data().par_chunks(CHUNK));
                    parts.zip(grad.data().par_chunks(CHUNK)).for_each(|((to, x), grad)| {
                        simd!(for ((to, &x), grad) in to.iter_mut().zip(x).zip(grad) {
                            let s = sigmoid(x);
                            *to += grad * s * (1.0 + x * (1.0 - s));
                        });
                    });
                }
                Ok(())
            }
            _ => Err(elsewhere(NAME)),
        }
    }
}
