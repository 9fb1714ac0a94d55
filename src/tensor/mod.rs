//! Arrays: dense tensors that the tape tracks, frozen rows that it does not, ragged sequences, safetensors files.

mod dtype;
mod ragged;
mod rows;
pub mod safetensors;

use std::sync::Arc;

pub use dtype::DType;
pub use ragged::{Ragged, Textbook};
pub use rows::{RowTable, SharedSlice};

use crate::device::cpu::Buffer;
use crate::error::{Error, Result};

/// A dense f32 array in row-major order. Cloning shares the memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Arc<Buffer>,
}

impl Tensor {
    /// Takes over `data`; its length must be the product of `shape`.
    pub fn new(shape: impl Into<Vec<usize>>, data: impl Into<Buffer>) -> Result<Tensor> {
        let (shape, data) = (shape.into(), data.into());
        if shape.iter().product::<usize>() != data.len() {
            return Err(Error::shape("tensor", format!("{} values for shape {shape:?}", data.len())));
        }
        Ok(Tensor { shape, data: Arc::new(data) })
    }

    /// Zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Tensor {
        Tensor::filled_by(shape, Buffer::zeros)
    }

    fn filled_by(shape: impl Into<Vec<usize>>, make: impl FnOnce(usize) -> Buffer) -> Tensor {
        let shape = shape.into();
        let len = shape.iter().product();
        Tensor { shape, data: Arc::new(make(len)) }
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether an axis has size 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in row-major order.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values for writing; copies them first if another tensor shares them.
    pub fn data_mut(&mut self) -> &mut [f32] {
        Arc::<Buffer>::make_mut(&mut self.data)
    }

    /// Sizes of a matrix; `op` and `what` name it in the error.
    pub fn matrix(&self, op: &'static str, what: &str) -> Result<(usize, usize)> {
        match self.shape[..] {
            [rows, cols] => Ok((rows, cols)),
            _ => Err(Error::shape(op, format!("{what} has shape {:?}, not (rows, columns)", self.shape))),
        }
    }

    /// Fails unless the tensor has exactly this shape; `op` and `what` name it in the error.
    pub fn expect(&self, op: &'static str, what: &str, shape: &[usize]) -> Result<()> {
        if self.shape == shape {
            return Ok(());
        }
        Err(Error::shape(op, format!("{what} has shape {:?}, needs {shape:?}", self.shape)))
    }
}
