//! Rows of activations, which layers take and give.

use half::bf16;

use super::{Compute, Element, Matrix, Tensor};
use crate::device::cpu::{Buffer, HalfBuffer, simd, vector};
use crate::error::{Error, Result};

/// Rows of activations: tokens, patches or pixels.
#[derive(Debug)]
pub struct Rows {
    width: usize,
    data: Data,
}

/// Row-major values.
#[derive(Debug)]
pub(crate) enum Data {
    F32(Buffer),
    Bf16(HalfBuffer),
    Device(Matrix),
}

impl Rows {
    /// From values on the host.
    pub fn new(values: impl Into<Buffer>, width: usize) -> Rows {
        Rows { width, data: Data::F32(values.into()) }
    }

    /// From values on the host, where something computes.
    pub fn on(values: Vec<f32>, width: usize, compute: &Compute) -> Result<Rows> {
        match &compute.gpu {
            Some(gpu) => Ok(Rows::on_device(Matrix::upload(gpu, "activations", &values, width, Element::F32)?)),
            None => Ok(Rows::new(values, width)),
        }
    }

    /// From a matrix in a device's memory.
    pub fn on_device(rows: Matrix) -> Rows {
        Rows { width: rows.width(), data: Data::Device(rows) }
    }

    /// `count` rows of any values, to be written in full before they are read.
    pub(crate) fn scratch(count: usize, width: usize, element: Element) -> Result<Rows> {
        let data = match element {
            Element::F32 => Data::F32(Buffer::scratch(count * width)),
            Element::Bf16 => Data::Bf16(HalfBuffer::scratch(count * width)),
            Element::F16 => return Err(Error::shape("activations", "rows of f16 on the CPU")),
        };
        Ok(Rows { width, data })
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        let len = match &self.data {
            Data::F32(values) => values.len(),
            Data::Bf16(values) => values.len(),
            Data::Device(rows) => return rows.rows(),
        };
        len / self.width
    }

    /// Values in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    pub(crate) fn data(&self) -> &Data {
        &self.data
    }

    pub(crate) fn into_data(self) -> Data {
        self.data
    }

    pub(crate) fn data_mut(&mut self) -> &mut Data {
        &mut self.data
    }

    /// The values in f32, for a layer that takes nothing else.
    pub(crate) fn wide(&self, layer: &'static str) -> Result<&[f32]> {
        match &self.data {
            Data::F32(values) => Ok(values),
            Data::Bf16(_) => Err(Error::shape(layer, "takes rows of f32, not of bf16")),
            Data::Device(_) => Err(Error::shape(layer, "computes on the host, its rows lie on a device")),
        }
    }

    /// Fails unless the rows have this width and lie where a layer's parameters do.
    pub(crate) fn expect_beside(&self, layer: &'static str, parameters: &Tensor, width: usize) -> Result<()> {
        if self.width != width {
            return Err(Error::shape(layer, format!("rows of {}, needs {width}", self.width)));
        }
        match matches!(self.data, Data::Device(_)) == parameters.gpu().is_some() {
            true => Ok(()),
            false => Err(Error::shape(layer, "parameters and rows lie on different devices")),
        }
    }

    /// The rows in a device's memory, for a layer that computes there.
    pub(crate) fn device(&self, layer: &'static str) -> Result<&Matrix> {
        match &self.data {
            Data::Device(rows) => Ok(rows),
            _ => Err(Error::shape(layer, "computes on a device, its rows lie on the host")),
        }
    }

    /// The values in f32 on the host.
    pub fn into_host(self) -> Result<Buffer> {
        match self.data {
            Data::F32(values) => Ok(values),
            Data::Bf16(values) => Ok(widened(&values)),
            Data::Device(rows) => rows.read(),
        }
    }

    /// The same rows in f32, where they lie.
    pub fn into_wide(self) -> Result<Rows> {
        match self.data {
            Data::Device(rows) if rows.element() != Element::F32 => Ok(Rows::on_device(rows.converted()?)),
            Data::Bf16(values) => Ok(Rows::new(widened(&values), self.width)),
            _ => Ok(self),
        }
    }

    /// Each row as a vector of its own on the host.
    pub fn into_vectors(self) -> Result<Vec<Vec<f32>>> {
        let width = self.width;
        Ok(self.into_host()?.chunks_exact(width).map(<[f32]>::to_vec).collect())
    }

    /// A copy of the rows of these numbers.
    pub fn select(&self, numbers: &[usize]) -> Result<Rows> {
        if let Data::Device(rows) = &self.data {
            let numbers: Vec<u32> = numbers.iter().map(|&number| number as u32).collect();
            return Ok(Rows::on_device(rows.select(&numbers)?));
        }
        let x = self.wide("select")?;
        let mut out = Buffer::scratch(numbers.len() * self.width);
        for (out, &number) in out.chunks_exact_mut(self.width).zip(numbers) {
            let row = x.get(number * self.width..(number + 1) * self.width);
            out.copy_from_slice(row.ok_or_else(|| Error::shape("select", format!("no row {number}")))?);
        }
        Ok(Rows::new(out, self.width))
    }
}

fn widened(values: &[bf16]) -> Buffer {
    let mut wide = Buffer::scratch(values.len());
    simd!(vector::widen_bf16(&mut wide, values));
    wide
}
