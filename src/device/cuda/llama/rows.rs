//! Activations, and what happens to each row of them alone.

use bytemuck::{Pod, Zeroable, cast_slice, cast_slice_mut};
use half::slice::HalfFloatSliceExt;
use half::vec::HalfFloatVecExt;
use half::{bf16, f16};

use super::super::{DeviceBuffer, Gpu, Grid, Ptr};
use crate::error::{Error, Result};

/// What activations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F32,
    Bf16,
    F16,
}

/// Activations (rows, width) in a device's memory.
#[derive(Debug)]
pub struct Rows {
    bytes: DeviceBuffer<u8>,
    rows: usize,
    width: usize,
    element: Element,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RmsNorm {
    x: Ptr,
    gain: Ptr,
    out: Ptr,
    width: i32,
    eps: f32,
}

impl Element {
    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 | Element::F16 => 2,
        }
    }

    /// Of the kernels for f32, bf16 and f16, the one for this.
    pub(super) fn choose<T: Copy>(self, [f32, bf16, f16]: [T; 3]) -> T {
        match self {
            Element::F32 => f32,
            Element::Bf16 => bf16,
            Element::F16 => f16,
        }
    }
}

impl Rows {
    /// Rows of any content.
    pub fn alloc(gpu: &Gpu, element: Element, rows: usize, width: usize) -> Result<Rows> {
        if !(width * element.size()).is_multiple_of(16) {
            let reason = format!("rows of {width} values; the kernels take whole chunks of 16 bytes");
            return Err(Error::shape("llama", reason));
        }
        Rows::any_width(gpu, element, rows, width)
    }

    /// Rows of logits: products write them, choices and the host read them, and their width is any.
    pub fn any_width(gpu: &Gpu, element: Element, rows: usize, width: usize) -> Result<Rows> {
        Ok(Rows { bytes: gpu.alloc("activations", rows * width * element.size())?, rows, width, element })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// What the values are.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Where they lie.
    pub fn ptr(&self) -> Ptr {
        self.bytes.ptr()
    }

    /// The device they lie on.
    pub fn gpu(&self) -> &Gpu {
        self.bytes.gpu()
    }

    /// A copy of host values, rounded to `element`; their number must be a multiple of `width`, which is any in f32.
    pub fn upload(gpu: &Gpu, element: Element, values: &[f32], width: usize) -> Result<Rows> {
        let count = values.len() / width.max(1);
        let mut rows = match element {
            Element::F32 => Rows::any_width(gpu, element, count, width)?,
            _ => Rows::alloc(gpu, element, count, width)?,
        };
        let written = match element {
            Element::F32 => rows.bytes.write(0, cast_slice(values)),
            Element::Bf16 => rows.bytes.write(0, cast_slice(&Vec::<bf16>::from_f32_slice(values))),
            Element::F16 => rows.bytes.write(0, cast_slice(&Vec::<f16>::from_f32_slice(values))),
        };
        written.map(|()| rows)
    }

    /// Copies the values to the host as f32, once everything queued before is done.
    pub fn read(&self) -> Result<Vec<f32>> {
        let len = self.rows * self.width;
        // Of an empty array there is nothing to read.
        if len == 0 {
            return Ok(Vec::new());
        }
        let mut values = vec![0.0f32; len];
        if self.element == Element::F32 {
            return self.bytes.read(cast_slice_mut(&mut values)).map(|()| values);
        }
        let mut narrow = vec![0u16; len];
        self.bytes.read(cast_slice_mut(&mut narrow))?;
        match self.element {
            Element::Bf16 => cast_slice::<u16, bf16>(&narrow).convert_to_f32_slice(&mut values),
            _ => cast_slice::<u16, f16>(&narrow).convert_to_f32_slice(&mut values),
        }
        Ok(values)
    }

    /// gain · x / sqrt(mean(x²) + eps), row by row, of f32 rows; as `element`. `gain` (width) f32.
    pub fn rms_norm(&self, gain: &DeviceBuffer<f32>, eps: f32, element: Element) -> Result<Rows> {
        if self.element != Element::F32 || gain.len() != self.width {
            let reason = format!("{} gains for {:?} rows of {}", gain.len(), self.element, self.width);
            return Err(Error::shape("rms_norm", reason));
        }
        let out = Rows::alloc(self.gpu(), element, self.rows, self.width)?;
        let args = RmsNorm { x: self.ptr(), gain: gain.ptr(), out: out.ptr(), width: self.width as i32, eps };
        let kernel = element.choose(["llama_rms_norm_f32", "llama_rms_norm_bf16", "llama_rms_norm_f16"]);
        self.gpu().launch(kernel, Grid::line(self.rows, 256), &args)?;
        Ok(out)
    }

    /// The rows of these numbers.
    pub fn select(&self, rows: &[u32]) -> Result<Rows> {
        let bytes = self.bytes.select_rows("activations", self.width * self.element.size(), rows)?;
        Ok(Rows { bytes, rows: rows.len(), width: self.width, element: self.element })
    }
}
