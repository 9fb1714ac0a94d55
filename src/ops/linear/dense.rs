//! A linear layer for inference, with its weight transposed once.

use rayon::prelude::*;

use super::rows::{ROW_CHUNK, Start, linear_chunk, transposed};
use crate::device::cpu::Buffer;
use crate::error::Result;
use crate::ops::matmul::Mat;

/// y = x Wᵀ + b
#[derive(Debug)]
pub struct Dense {
    transposed: Buffer,
    bias: Vec<f32>,
    inputs: usize,
}

impl Dense {
    /// From a weight (outputs, inputs) with one bias per output.
    pub fn new(weight: Mat, bias: Vec<f32>) -> Dense {
        Dense { transposed: transposed(weight), bias, inputs: weight.size().1 }
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// The weight, transposed (inputs, outputs).
    pub fn transposed(&self) -> &[f32] {
        &self.transposed
    }

    /// The bias (outputs).
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// (n, inputs) -> (n, outputs), in parallel over rows.
    pub fn forward(&self, x: &[f32]) -> Result<Buffer> {
        let mut y = Buffer::scratch(x.len() / self.inputs * self.outputs());
        let chunks = y.par_chunks_mut(ROW_CHUNK * self.outputs()).zip(x.par_chunks(ROW_CHUNK * self.inputs));
        chunks.try_for_each(|(y, x)| self.forward_into(y, x))?;
        Ok(y)
    }

    /// The same on the caller's thread alone.
    pub fn forward_into(&self, y: &mut [f32], x: &[f32]) -> Result<()> {
        let weight = Mat::new(&self.transposed, self.inputs, self.outputs());
        linear_chunk(y, Mat::new(x, x.len() / self.inputs, self.inputs), weight, Start::Bias(&self.bias))
    }
}
