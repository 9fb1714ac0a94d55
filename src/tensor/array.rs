//! The array that everything is computed in: what it is made of, where it lies, and its parts.

use std::ops::Range;
use std::sync::Arc;

use half::bf16;

use super::Element;
use super::on_device::DeviceArray;
use crate::device::Gpu;
use crate::device::cpu::{Buffer, HalfBuffer};
use crate::device::cuda::{DeviceBuffer, Ptr};
use crate::error::{Error, Result};

/// A dense array in row-major order, in the host's memory or a device's. What trains is f32; the activations of inference may
/// have 16 bits. Cloning shares the memory.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub(super) shape: Vec<usize>,
    pub(super) data: Data,
}

/// The values, and where they lie.
#[derive(Clone, Debug)]
pub(super) enum Data {
    F32(Arc<Buffer>),
    Bf16(Arc<HalfBuffer>),
    Device(DeviceArray),
}

/// Values on the host.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

/// Values on the host, for writing.
#[derive(Debug)]
pub(crate) enum HostMut<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

impl Tensor {
    /// Takes over `data`; its length must be the product of `shape`.
    pub fn new(shape: impl Into<Vec<usize>>, data: impl Into<Buffer>) -> Result<Tensor> {
        let (shape, data) = (shape.into(), data.into());
        fits(&shape, data.len())?;
        Ok(Tensor { shape, data: Data::F32(Arc::new(data)) })
    }

    /// Takes over device memory; its length must be the product of `shape`.
    pub fn on_device(shape: impl Into<Vec<usize>>, data: DeviceBuffer<f32>) -> Result<Tensor> {
        Tensor::of_bytes(shape, data.into_bytes(), Element::F32)
    }

    /// Zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Tensor {
        let shape = shape.into();
        let data = Buffer::zeros(shape.iter().product());
        Tensor { shape, data: Data::F32(Arc::new(data)) }
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

    /// An array of any values on the host, to be written in full before they are read.
    pub(crate) fn scratch(shape: impl Into<Vec<usize>>, element: Element) -> Result<Tensor> {
        let shape = shape.into();
        let len = shape.iter().product();
        let data = match element {
            Element::F32 => Data::F32(Arc::new(Buffer::scratch(len))),
            Element::Bf16 => Data::Bf16(Arc::new(HalfBuffer::scratch(len))),
            Element::F16 => return Err(Error::shape("tensor", "values of f16 on the CPU")),
        };
        Ok(Tensor { shape, data })
    }

    /// The device it lies on; `None` for the host.
    pub fn gpu(&self) -> Option<&Gpu> {
        match &self.data {
            Data::F32(_) | Data::Bf16(_) => None,
            Data::Device(array) => Some(array.gpu()),
        }
    }

    /// The device it lies on, for an operation that computes there.
    pub fn device(&self, op: &'static str) -> Result<&Gpu> {
        self.gpu().ok_or_else(|| Error::shape(op, "computes on a device, its input lies on the host"))
    }

    /// What its values are.
    pub fn element(&self) -> Element {
        match &self.data {
            Data::F32(_) => Element::F32,
            Data::Bf16(_) => Element::Bf16,
            Data::Device(array) => array.element(),
        }
    }

    /// The tensor in a device's memory, or with `None` in the host's; copied if it is elsewhere. From a device, values come
    /// as f32.
    pub fn to(&self, gpu: Option<&Gpu>) -> Result<Tensor> {
        let data = match (&self.data, gpu) {
            (Data::F32(data), Some(gpu)) => return Tensor::on_device(&self.shape[..], gpu.upload("tensors", data)?),
            (Data::Bf16(data), Some(gpu)) => {
                Data::Device(DeviceArray::new(gpu.upload("tensors", data)?.into_bytes(), Element::Bf16))
            }
            (Data::Device(array), None) => Data::F32(Arc::new(array.read()?)),
            _ => return Ok(self.clone()),
        };
        Ok(Tensor { shape: self.shape.clone(), data })
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

    /// The f32 values in row-major order.
    ///
    /// # Panics
    /// If they lie on a device: whoever computes on the host asks for them by [`Tensor::to`].
    pub fn data(&self) -> &[f32] {
        match &self.data {
            Data::F32(data) => data,
            other => panic!("values of {other:?} read as if they were f32 on the host"),
        }
    }

    /// The f32 values for writing; copies them first if another tensor shares them.
    ///
    /// # Panics
    /// As [`Tensor::data`].
    pub fn data_mut(&mut self) -> &mut [f32] {
        match &mut self.data {
            Data::F32(data) => Arc::<Buffer>::make_mut(data),
            other => panic!("values of {other:?} written as if they were f32 on the host"),
        }
    }

    /// The values, for an operation that computes on the host.
    pub(crate) fn host(&self, op: &'static str) -> Result<Host<'_>> {
        match &self.data {
            Data::F32(data) => Ok(Host::F32(data)),
            Data::Bf16(data) => Ok(Host::Bf16(data)),
            Data::Device(_) => Err(elsewhere(op)),
        }
    }

    /// [`Tensor::host`] for writing; copies them first if another tensor shares them.
    pub(crate) fn host_mut(&mut self, op: &'static str) -> Result<HostMut<'_>> {
        match &mut self.data {
            Data::F32(data) => Ok(HostMut::F32(Arc::<Buffer>::make_mut(data))),
            Data::Bf16(data) => Ok(HostMut::Bf16(Arc::<HalfBuffer>::make_mut(data))),
            Data::Device(_) => Err(elsewhere(op)),
        }
    }

    /// Where the f32 values lie on their device.
    ///
    /// # Panics
    /// If they lie on the host or are not f32: to a kernel, no place means an argument that is left out, and values of another
    /// type mean other values. Whoever computes on a device asks for them by [`Tensor::to`].
    pub fn ptr(&self) -> Ptr {
        match &self.data {
            Data::Device(array) if array.element() == Element::F32 => array.ptr(),
            other => panic!("a place on a device of {other:?}, which is no f32 there"),
        }
    }

    /// Where the f32 values lie on their device, for writing; copies them first if another tensor shares them.
    pub fn ptr_mut(&mut self) -> Result<Ptr> {
        self.written()?;
        Ok(self.ptr())
    }

    /// The tensor for writing where it lies: nobody else's, and without a copy in another type.
    pub(crate) fn written(&mut self) -> Result<&mut Tensor> {
        if let Data::Device(array) = &mut self.data {
            array.write()?;
        }
        Ok(self)
    }

    /// Some rows of a matrix of f32, copied where they lie.
    pub fn rows(&self, rows: Range<usize>) -> Result<Tensor> {
        let (count, width) = self.matrix("rows", "matrix")?;
        if rows.start > rows.end || rows.end > count {
            return Err(Error::shape("rows", format!("{rows:?} of {count}")));
        }
        let (shape, values) = ([rows.len(), width], rows.start * width..rows.end * width);
        match &self.data {
            Data::Device(array) => Ok(Tensor { shape: shape.into(), data: Data::Device(array.part(values)?) }),
            _ => Tensor::new(shape, self.data()[values].to_vec()),
        }
    }

    /// Matrices of f32 and one width below each other, which lie in one place.
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
        let arrays = parts.iter().filter_map(|part| match &part.data {
            Data::Device(array) => Some(array),
            _ => None,
        });
        Ok(Tensor { shape: vec![rows, width], data: Data::Device(DeviceArray::joined(gpu, rows * width, arrays)?) })
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

fn elsewhere(op: &'static str) -> Error {
    Error::shape(op, "computes on the host, its rows lie on a device")
}

/// Fails unless an array of this shape has so many values.
pub(super) fn fits(shape: &[usize], len: usize) -> Result<()> {
    if shape.iter().product::<usize>() == len {
        return Ok(());
    }
    Err(Error::shape("tensor", format!("{len} values for shape {shape:?}")))
}
