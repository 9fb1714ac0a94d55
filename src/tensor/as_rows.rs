//! Tensors as rows: of tokens, patches, pixels. Layers of encoders and decoders take and give them.

use std::sync::Arc;

use half::bf16;

use super::array::{Data, Host, HostMut};
use super::{Element, Tensor};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::{Error, Result};

impl Tensor {
    /// Rows of `width` values on the host.
    pub fn of_rows(values: impl Into<Buffer>, width: usize) -> Result<Tensor> {
        let values = values.into();
        Tensor::new([values.len().checked_div(width).unwrap_or(0), width], values)
    }

    /// Number of rows: what all axes but the last have together.
    pub fn count(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, others)| others.iter().product())
    }

    /// Values of a row: the last axis.
    pub fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The values in f32, for a layer that computes on the host and takes nothing else.
    pub(crate) fn wide(&self, layer: &'static str) -> Result<&[f32]> {
        match self.host(layer)? {
            Host::F32(values) => Ok(values),
            Host::Bf16(_) => Err(Error::shape(layer, "takes rows of f32, not of bf16")),
        }
    }

    /// [`Tensor::wide`] for writing; copies the values first if another tensor shares them.
    pub(crate) fn wide_mut(&mut self, layer: &'static str) -> Result<&mut [f32]> {
        match self.host_mut(layer)? {
            HostMut::F32(values) => Ok(values),
            HostMut::Bf16(_) => Err(Error::shape(layer, "takes rows of f32, not of bf16")),
        }
    }

    /// Fails unless the rows have this width and lie where a layer's parameters do.
    pub(crate) fn expect_beside(&self, layer: &'static str, parameters: &Tensor, width: usize) -> Result<()> {
        if self.width() != width {
            return Err(Error::shape(layer, format!("rows of {}, needs {width}", self.width())));
        }
        match self.gpu().is_some() == parameters.gpu().is_some() {
            true => Ok(()),
            false => Err(Error::shape(layer, "parameters and rows lie on different devices")),
        }
    }

    /// A copy of the values in f32 on the host, once everything queued before is done.
    pub fn read(&self) -> Result<Buffer> {
        match &self.data {
            Data::F32(values) => Ok((**values).clone()),
            Data::Bf16(values) => Ok(widened(values)),
            Data::Device(array) => array.read(),
        }
    }

    /// The values in f32 on the host.
    pub fn into_host(self) -> Result<Buffer> {
        match self.data {
            Data::F32(values) => Ok(Arc::unwrap_or_clone(values)),
            _ => self.read(),
        }
    }

    /// The same rows in f32, where they lie.
    pub fn into_wide(self) -> Result<Tensor> {
        match &self.data {
            Data::Device(_) if self.element() != Element::F32 => self.converted(),
            Data::Bf16(values) => Tensor::new(self.shape, widened(values)),
            _ => Ok(self),
        }
    }

    /// Each row as a vector of its own on the host.
    pub fn into_vectors(self) -> Result<Vec<Vec<f32>>> {
        let width = self.width();
        Ok(self.into_host()?.chunks_exact(width).map(<[f32]>::to_vec).collect())
    }

    /// A copy of the rows of these numbers.
    pub fn select(&self, numbers: &[usize]) -> Result<Tensor> {
        let (count, width) = (self.count(), self.width());
        if let Some(number) = numbers.iter().find(|&&number| number >= count) {
            return Err(Error::shape("select", format!("row {number} of {count}")));
        }
        let shape = vec![numbers.len(), width];
        if let Data::Device(array) = &self.data {
            let numbers: Vec<u32> = numbers.iter().map(|&number| number as u32).collect();
            return Ok(Tensor { shape, data: Data::Device(array.select(width, &numbers)?) });
        }
        let (x, mut out) = (self.wide("select")?, Buffer::scratch(numbers.len() * width));
        for (out, &number) in out.chunks_exact_mut(width.max(1)).zip(numbers) {
            out.copy_from_slice(&x[number * width..][..width]);
        }
        Tensor::new(shape, out)
    }
}

fn widened(values: &[bf16]) -> Buffer {
    let mut wide = Buffer::scratch(values.len());
    simd!(vector::widen_bf16(&mut wide, values));
    wide
}
