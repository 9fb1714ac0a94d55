//! Row-major matrices of activations or weights in device memory, and copies of them (kernels/rows.cu).

use bytemuck::{Pod, Zeroable, cast_slice, cast_slice_mut};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::Element;
use crate::device::Gpu;
use crate::device::cpu::Buffer;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr};
use crate::error::{Error, Result};

/// Values that a thread converts at a time.
const CONVERTED: usize = 1 << 14;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Convert {
    x: Ptr,
    out: Ptr,
    fours: i64,
}

/// A row-major matrix in a device's memory.
#[derive(Debug)]
pub struct Matrix {
    bytes: DeviceBuffer<u8>,
    element: Element,
    rows: usize,
    width: usize,
    /// The same in bf16, if the rows are f32 and a product is to come.
    narrow: Option<Box<Matrix>>,
}

impl Matrix {
    /// A matrix of any content; `label` names it where memory runs out.
    pub fn alloc(gpu: &Gpu, label: &'static str, element: Element, rows: usize, width: usize) -> Result<Matrix> {
        Ok(Matrix { bytes: gpu.alloc(label, rows * width * element.size())?, element, rows, width, narrow: None })
    }

    /// Rows of activations of any content, of whole chunks of 16 bytes, as many kernels take them.
    pub fn chunked(gpu: &Gpu, element: Element, rows: usize, width: usize) -> Result<Matrix> {
        if !(width * element.size()).is_multiple_of(16) {
            let reason = format!("rows of {width} values; the kernels take whole chunks of 16 bytes");
            return Err(Error::shape("activations", reason));
        }
        Matrix::alloc(gpu, "activations", element, rows, width)
    }

    /// A copy of host values, rounded to the element type; their number must be a multiple of `width`.
    pub fn upload(gpu: &Gpu, label: &'static str, values: &[f32], width: usize, element: Element) -> Result<Matrix> {
        match element {
            Element::F32 => Matrix::of_bytes(gpu, label, cast_slice(values), element, width),
            Element::Bf16 => Matrix::of_bytes(gpu, label, cast_slice(&narrowed(values, bf16::ZERO)), element, width),
            Element::F16 => Matrix::of_bytes(gpu, label, cast_slice(&narrowed(values, f16::ZERO)), element, width),
        }
    }

    fn of_bytes(gpu: &Gpu, label: &'static str, bytes: &[u8], element: Element, width: usize) -> Result<Matrix> {
        let row = width * element.size();
        if row == 0 || !bytes.len().is_multiple_of(row) {
            let count = bytes.len() / element.size();
            return Err(Error::shape("matrix", format!("{count} values of {label} in rows of {width}")));
        }
        Ok(Matrix { bytes: gpu.upload(label, bytes)?, element, rows: bytes.len() / row, width, narrow: None })
    }

    /// The values as f32, once everything queued before is done.
    pub fn read(&self) -> Result<Buffer> {
        let mut values = Buffer::scratch(self.rows * self.width);
        // Of an empty array there is nothing to read.
        if values.is_empty() {
            return Ok(values);
        }
        match self.element {
            Element::F32 => self.bytes.read(cast_slice_mut(&mut values))?,
            Element::Bf16 => self.widen_into(&mut values, bf16::ZERO)?,
            Element::F16 => self.widen_into(&mut values, f16::ZERO)?,
        }
        Ok(values)
    }

    fn widen_into<T: Pod + Sync>(&self, values: &mut [f32], zero: T) -> Result<()>
    where
        [T]: HalfFloatSliceExt,
    {
        let mut narrow = vec![zero; values.len()];
        self.bytes.read(cast_slice_mut(&mut narrow))?;
        let chunks = values.par_chunks_mut(CONVERTED).zip(narrow.par_chunks(CONVERTED));
        chunks.for_each(|(wide, narrow)| narrow.convert_to_f32_slice(wide));
        Ok(())
    }

    /// A copy of f32 as bf16, or of bf16 as f32.
    pub fn converted(&self) -> Result<Matrix> {
        let (kernel, element) = match self.element {
            Element::F32 => ("rows_narrow", Element::Bf16),
            Element::Bf16 => ("rows_wide", Element::F32),
            Element::F16 => return Err(Error::shape("rows", "no kernel converts f16")),
        };
        let out = Matrix::alloc(self.gpu(), "activations", element, self.rows, self.width)?;
        let fours = self.rows * fours(kernel, self.width)?;
        let args = Convert { x: self.ptr(), out: out.ptr(), fours: fours as i64 };
        self.gpu().launch(kernel, Grid::values(fours, 256), &args)?;
        Ok(out)
    }

    /// The same with a copy in bf16 beside it, which holds until the rows are written to.
    pub(crate) fn beside(self, narrow: Matrix) -> Matrix {
        Matrix { narrow: Some(Box::new(narrow)), ..self }
    }

    /// Calls a layer with the rows in this type, converted if need be.
    pub(crate) fn operand<R>(&self, element: Element, layer: impl FnOnce(&Matrix) -> Result<R>) -> Result<R> {
        match &self.narrow {
            _ if self.element == element => layer(self),
            Some(narrow) if element == Element::Bf16 => layer(narrow),
            _ => layer(&self.converted()?),
        }
    }

    /// The rows for writing.
    pub(crate) fn written(&mut self) -> &mut Matrix {
        self.narrow = None;
        self
    }

    /// A copy of the rows of these numbers.
    pub fn select(&self, rows: &[u32]) -> Result<Matrix> {
        let bytes = self.bytes.select_rows("activations", self.width * self.element.size(), rows)?;
        Ok(Matrix { bytes, element: self.element, rows: rows.len(), width: self.width, narrow: None })
    }

    /// Its width, if its values are what a kernel takes.
    pub(crate) fn width_of(&self, kernel: &'static str, element: Element) -> Result<usize> {
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

/// A quarter of a width, of which the kernels take four values at a time.
pub(crate) fn fours(kernel: &'static str, width: usize) -> Result<usize> {
    match width.is_multiple_of(4) {
        true => Ok(width / 4),
        false => Err(Error::shape(kernel, format!("rows of {width}: must be a multiple of 4"))),
    }
}

/// Values rounded to 16 bits, to nearest and ties to even.
fn narrowed<T: Pod + Send + Sync>(values: &[f32], zero: T) -> Vec<T>
where
    [T]: HalfFloatSliceExt,
{
    let mut narrow = vec![zero; values.len()];
    let chunks = narrow.par_chunks_mut(CONVERTED).zip(values.par_chunks(CONVERTED));
    chunks.for_each(|(narrow, wide)| narrow.convert_from_f32_slice(wide));
    narrow
}
