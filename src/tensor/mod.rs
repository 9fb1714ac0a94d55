//! Arrays: dense tensors that the tape tracks, frozen rows that it does not, ragged sequences; files of safetensors, GGUF and
//! PyTorch.

mod activations;
pub mod blocks;
mod compute;
mod dtype;
mod feature_rows;
pub mod gguf;
mod indices;
mod later;
mod matrix;
mod pickle;
pub mod quantized;
mod ragged;
mod rows;
pub mod safetensors;
mod shards;
mod weight;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use activations::Data;
pub use activations::Rows;
pub use blocks::BlockType;
pub use compute::Compute;
pub use dtype::{DType, Element, Precision};
pub use feature_rows::FeatureRows;
pub use indices::Indices;
pub use later::Later;
pub use matrix::Matrix;
pub(crate) use matrix::fours;
pub use quantized::Bits;
pub use ragged::{Ragged, Sequences, Textbook};
pub use rows::{GpuRows, RowTable, SharedSlice};
pub use shards::Shards;
pub(crate) use shards::{INDEX, SINGLE};
pub(crate) use weight::float_precision;
pub use weight::{Values, Weight};

use crate::device::Gpu;
use crate::device::cpu::Buffer;
use crate::device::cuda::{DeviceBuffer, Ptr};
use crate::error::{Error, Result};

/// A dense f32 array in row-major order, in the host's memory or a device's. Cloning shares the memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    shape: Vec<usize>,
    storage: Storage,
}

#[derive(Clone, Debug)]
enum Storage {
    Host(Arc<Buffer>),
    Device(Arc<DeviceBuffer<f32>>),
}

impl Tensor {
    /// Takes over `data`; its length must be the product of `shape`.
    pub fn new(shape: impl Into<Vec<usize>>, data: impl Into<Buffer>) -> Result<Tensor> {
        let (shape, data) = (shape.into(), data.into());
        fits(&shape, data.len())?;
        Ok(Tensor { shape, storage: Storage::Host(Arc::new(data)) })
    }

    /// Takes over device memory; its length must be the product of `shape`.
    pub fn on_device(shape: impl Into<Vec<usize>>, data: DeviceBuffer<f32>) -> Result<Tensor> {
        let shape = shape.into();
        fits(&shape, data.len())?;
        Ok(Tensor { shape, storage: Storage::Device(Arc::new(data)) })
    }

    /// Zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Tensor {
        let shape = shape.into();
        let data = Buffer::zeros(shape.iter().product());
        Tensor { shape, storage: Storage::Host(Arc::new(data)) }
    }

    /// The same value everywhere, in a device's memory or with `None` in the host's.
    pub fn filled(shape: impl Into<Vec<usize>>, value: f32, gpu: Option<&Gpu>) -> Result<Tensor> {
        let shape = shape.into();
        let len = shape.iter().product();
        match gpu {
            Some(gpu) => Tensor::on_device(shape, gpu.filled("tensors", len, value)?),
            None => Tensor::new(shape, vec![value; len]),
        }
    }

    /// The device it lies on; `None` for the host.
    pub fn gpu(&self) -> Option<&Gpu> {
        match &self.storage {
            Storage::Host(_) => None,
            Storage::Device(data) => Some(data.gpu()),
        }
    }

    /// The tensor in a device's memory, or with `None` in the host's; copied if it is elsewhere.
    pub fn to(&self, gpu: Option<&Gpu>) -> Result<Tensor> {
        match (&self.storage, gpu) {
            (Storage::Host(data), Some(gpu)) => Tensor::on_device(&self.shape[..], gpu.upload("tensors", data)?),
            (Storage::Device(data), None) => {
                let mut host = Buffer::scratch(data.len());
                data.read(&mut host)?;
                Tensor::new(&self.shape[..], host)
            }
            _ => Ok(self.clone()),
        }
    }

    /// Where the values lie on their device.
    ///
    /// # Panics
    /// If they lie on the host: to a kernel, no place means an argument that is left out, so that it would compute something
    /// else. Whoever computes on a device asks for them by [`Tensor::to`].
    pub fn ptr(&self) -> Ptr {
        match &self.storage {
            Storage::Host(_) => panic!("a place on a device of a tensor that lies on the host"),
            Storage::Device(data) => data.ptr(),
        }
    }

    /// Where the values lie on their device, for writing; copies them first if another tensor shares them.
    pub fn ptr_mut(&mut self) -> Result<Ptr> {
        if let Storage::Device(data) = &mut self.storage
            && Arc::get_mut(data).is_none()
        {
            *data = Arc::new(data.duplicate()?);
        }
        Ok(self.ptr())
    }

    /// Sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether no value is NaN or infinite. The tensor lies on the host.
    pub fn all_finite(&self) -> bool {
        self.data().iter().fold(true, |all, x| all & x.is_finite())
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether an axis has size 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in row-major order.
    ///
    /// # Panics
    /// If they lie on a device: whoever computes on the host asks for them by [`Tensor::to`].
    pub fn data(&self) -> &[f32] {
        match &self.storage {
            Storage::Host(data) => data,
            Storage::Device(data) => panic!("values of {data:?} read as if they lay on the host"),
        }
    }

    /// The values for writing; copies them first if another tensor shares them.
    ///
    /// # Panics
    /// As [`Tensor::data`].
    pub fn data_mut(&mut self) -> &mut [f32] {
        match &mut self.storage {
            Storage::Host(data) => Arc::<Buffer>::make_mut(data),
            Storage::Device(data) => panic!("values of {data:?} written as if they lay on the host"),
        }
    }

    /// Some rows of a matrix, copied where they lie.
    pub fn rows(&self, rows: Range<usize>) -> Result<Tensor> {
        let (count, width) = self.matrix("rows", "matrix")?;
        if rows.start > rows.end || rows.end > count {
            return Err(Error::shape("rows", format!("{rows:?} of {count}")));
        }
        let (shape, values) = ([rows.len(), width], rows.start * width..rows.end * width);
        match &self.storage {
            Storage::Host(data) => Tensor::new(shape, data[values].to_vec()),
            Storage::Device(data) => {
                let mut copy = data.gpu().alloc("tensors", values.len())?;
                data.copy_to(values, &mut copy, 0)?;
                Tensor::on_device(shape, copy)
            }
        }
    }

    /// Matrices of one width below each other, which lie in one place.
    pub fn stacked(parts: &[&Tensor]) -> Result<Tensor> {
        let first = parts.first().ok_or_else(|| Error::shape("stacked", "no matrix"))?;
        let ((_, width), mut rows) = (first.matrix("stacked", "part")?, 0);
        if parts.iter().any(|part| part.gpu().is_some() != first.gpu().is_some()) {
            return Err(Error::shape("stacked", "some parts lie on a device, others on the host"));
        }
        for part in parts {
            let (count, _) = part.matrix("stacked", "part")?;
            part.expect("stacked", "part", &[count, width])?;
            rows += count;
        }
        let Some(gpu) = first.gpu() else {
            return Tensor::new([rows, width], parts.iter().map(|part| part.data()).collect::<Vec<_>>().concat());
        };
        let (mut all, mut at) = (gpu.alloc("tensors", rows * width)?, 0);
        for part in parts {
            if let Storage::Device(data) = &part.storage {
                data.copy_to(0..data.len(), &mut all, at)?;
                at += data.len();
            }
        }
        Tensor::on_device([rows, width], all)
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

fn fits(shape: &[usize], len: usize) -> Result<()> {
    if shape.iter().product::<usize>() == len {
        return Ok(());
    }
    Err(Error::shape("tensor", format!("{len} values for shape {shape:?}")))
}
