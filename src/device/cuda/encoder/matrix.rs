//! Row-major matrices of the device's element type.

use bytemuck::{cast_slice, cast_slice_mut};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::super::{Arithmetic, DeviceBuffer, Gpu, Ptr};
use crate::device::cpu::Buffer;
use crate::error::{Error, Result};

/// Values that a thread converts at a time.
const CONVERTED: usize = 1 << 14;

/// What the values of a [`Matrix`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    Bf16,
    F32,
}

impl Element {
    /// What layers compute on under a device's arithmetic.
    pub fn of(gpu: &Gpu) -> Element {
        match gpu.arithmetic() {
            Arithmetic::Mixed => Element::Bf16,
            Arithmetic::F32 => Element::F32,
        }
    }

    /// The kernel for this type.
    pub(super) fn kernel(self, bf16: &'static str, f32: &'static str) -> &'static str {
        match self {
            Element::Bf16 => bf16,
            Element::F32 => f32,
        }
    }

    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Element::Bf16 => 2,
            Element::F32 => 4,
        }
    }
}

/// A row-major matrix in a device's memory.
#[derive(Debug)]
pub struct Matrix {
    bytes: DeviceBuffer<u8>,
    element: Element,
    rows: usize,
    width: usize,
}

impl Matrix {
    /// A matrix of any content; `label` names it where memory runs out.
    pub fn alloc(gpu: &Gpu, label: &'static str, element: Element, rows: usize, width: usize) -> Result<Matrix> {
        Ok(Matrix { bytes: gpu.alloc(label, rows * width * element.size())?, element, rows, width })
    }

    /// A copy of host values, rounded to the device's element type; their number must be a multiple of `width`.
    pub fn upload(gpu: &Gpu, label: &'static str, values: &[f32], width: usize) -> Result<Matrix> {
        match Element::of(gpu) {
            Element::F32 => Matrix::upload_f32(gpu, label, values, width),
            Element::Bf16 => Matrix::upload_bf16(gpu, label, &to_bf16(values), width),
        }
    }

    /// A copy of host values as f32, whatever the device's arithmetic.
    pub fn upload_f32(gpu: &Gpu, label: &'static str, values: &[f32], width: usize) -> Result<Matrix> {
        Matrix::of_bytes(gpu, label, cast_slice(values), Element::F32, width)
    }

    /// A copy of host values that are bf16 already, whatever the device's arithmetic.
    pub fn upload_bf16(gpu: &Gpu, label: &'static str, values: &[bf16], width: usize) -> Result<Matrix> {
        Matrix::of_bytes(gpu, label, cast_slice(values), Element::Bf16, width)
    }

    fn of_bytes(gpu: &Gpu, label: &'static str, bytes: &[u8], element: Element, width: usize) -> Result<Matrix> {
        let row = width * element.size();
        if row == 0 || !bytes.len().is_multiple_of(row) {
            let count = bytes.len() / element.size();
            return Err(Error::shape("matrix", format!("{count} values of {label} in rows of {width}")));
        }
        Ok(Matrix { bytes: gpu.upload(label, bytes)?, element, rows: bytes.len() / row, width })
    }

    /// The values as f32, once everything queued before is done.
    pub fn read(&self) -> Result<Buffer> {
        let mut values = Buffer::scratch(self.rows * self.width);
        match self.element {
            Element::F32 => self.bytes.read(cast_slice_mut(&mut values))?,
            Element::Bf16 => {
                let mut narrow = vec![bf16::ZERO; values.len()];
                self.bytes.read(cast_slice_mut(&mut narrow))?;
                let chunks = values.par_chunks_mut(CONVERTED).zip(narrow.par_chunks(CONVERTED));
                chunks.for_each(|(wide, narrow)| narrow.convert_to_f32_slice(wide));
            }
        }
        Ok(values)
    }

    /// The same values in rows of another width.
    pub fn reshaped(self, width: usize) -> Result<Matrix> {
        let count = self.rows * self.width;
        if width == 0 || !count.is_multiple_of(width) {
            return Err(Error::shape("matrix", format!("{count} values in rows of {width}")));
        }
        Ok(Matrix { rows: count / width, width, ..self })
    }

    /// Its width, if its values are what a kernel takes.
    pub(super) fn width_of(&self, kernel: &'static str, element: Element) -> Result<usize> {
        match self.element == element {
            true => Ok(self.width),
            false => Err(Error::shape(kernel, format!("rows of {:?}, needs {element:?}", self.element))),
        }
    }

    /// What its values are.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Where it lies.
    pub fn ptr(&self) -> Ptr {
        self.bytes.ptr()
    }

    /// Where column `column` of its first row lies.
    pub fn column(&self, column: usize) -> Ptr {
        self.ptr().offset::<u8>(column * self.element.size())
    }

    /// The device it lies on.
    pub fn gpu(&self) -> &Gpu {
        self.bytes.gpu()
    }
}

/// Values rounded to bf16, to nearest and ties to even.
pub(super) fn to_bf16(values: &[f32]) -> Vec<bf16> {
    let mut narrow = vec![bf16::ZERO; values.len()];
    let chunks = narrow.par_chunks_mut(CONVERTED).zip(values.par_chunks(CONVERTED));
    chunks.for_each(|(narrow, wide)| narrow.convert_from_f32_slice(wide));
    narrow
}
