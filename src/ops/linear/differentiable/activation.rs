//! Activation functions of whole arrays, and their backward.

use rayon::prelude::*;

use crate::device::cpu::{simd, vector};
use crate::ops::linear::Activation;

/// Values one task handles.
const CHUNK: usize = 16 << 10;

impl Activation {
    /// Whether backward needs what went in; for the others what came out is enough.
    pub fn keeps_input(self) -> bool {
        matches!(self, Activation::QuickGelu | Activation::Gelu)
    }

    /// Of all values, in parallel and in place.
    pub fn apply_to_all(self, x: &mut [f32]) {
        x.par_chunks_mut(CHUNK).for_each(|x| simd!(self.apply(x)));
    }

    /// dx *= the derivative, in parallel, from the function's input or output as [`Activation::keeps_input`] says.
    pub fn backward(self, dx: &mut [f32], kept: &[f32]) {
        let chunks = dx.par_chunks_mut(CHUNK).zip(kept.par_chunks(CHUNK));
        chunks.for_each(|(dx, kept)| {
            simd!(match self {
                Activation::QuickGelu => vector::quick_gelu_backward(dx, kept),
                Activation::Gelu => vector::gelu_backward(dx, kept),
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
