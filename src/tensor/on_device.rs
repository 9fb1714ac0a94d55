//! Tensors in a device's memory: of activations or weights, in f32 or 16 bits, and copies of them (kernels/rows.cu).

use std::ops::Range;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable, cast_slice, cast_slice_mut};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::array::{Data, fits};
use super::normalized::Columns;
use super::{Element, Tensor};
use crate::device::Gpu;
use crate::device::cpu::Buffer;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr, Returning};
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

/// Values in a device's memory. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct DeviceArray {
    bytes: Arc<DeviceBuffer<u8>>,
    element: Element,
    /// The same in 16 bits, if the values are f32 and a product is to come.
    narrow: Option<(Element, Arc<DeviceBuffer<u8>>)>,
    /// What is still to be applied to each row, if it is.
    pub(super) columns: Option<Arc<Columns>>,
}

impl DeviceArray {
    pub fn new(bytes: DeviceBuffer<u8>, element: Element) -> DeviceArray {
        DeviceArray::shared(Arc::new(bytes), element)
    }

    fn shared(bytes: Arc<DeviceBuffer<u8>>, element: Element) -> DeviceArray {
        DeviceArray { bytes, element, narrow: None, columns: None }
    }

    /// Fails if the values are not yet what they stand for.
    fn expect_plain(&self) -> Result<()> {
        match self.columns {
            None => Ok(()),
            Some(_) => Err(Error::shape("tensor", "rows before scale and shift, of which only whole rows are read")),
        }
    }

    pub fn gpu(&self) -> &Gpu {
        self.bytes.gpu()
    }

    pub fn element(&self) -> Element {
        self.element
    }

    pub fn ptr(&self) -> Ptr {
        self.bytes.ptr()
    }

    /// Makes the values nobody else's, so that they can be written to.
    pub fn write(&mut self) -> Result<()> {
        self.expect_plain()?;
        self.narrow = None;
        if Arc::get_mut(&mut self.bytes).is_none() {
            self.bytes = Arc::new(self.bytes.duplicate()?);
        }
        Ok(())
    }

    /// The same of the values and of a copy in f16, if there is one, for whoever writes both. Where the copy lies.
    pub fn write_both(&mut self) -> Result<Option<Ptr>> {
        let copy = self.narrow.take().filter(|(element, _)| *element == Element::F16);
        self.write()?;
        let Some((element, mut copy)) = copy else { return Ok(None) };
        if Arc::get_mut(&mut copy).is_none() {
            copy = Arc::new(copy.duplicate()?);
        }
        let at = copy.ptr();
        self.narrow = Some((element, copy));
        Ok(Some(at))
    }

    /// The values as f32, once everything queued before is done.
    pub fn read(&self) -> Result<Buffer> {
        if let Some(columns) = &self.columns {
            return columns.applied(&DeviceArray { columns: None, ..self.clone() });
        }
        let mut values = Buffer::scratch(self.bytes.len() / self.element.size());
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

    /// The bytes of the f32 values as they are when everything queued before is done; the host goes on meanwhile.
    pub fn read_later(&self) -> Result<Returning> {
        if self.element != Element::F32 {
            return Err(Error::shape(
                "tensor",
                format!("values of {:?}, of which f32 alone are read later", self.element),
            ));
        }
        self.gpu().read_later(&self.bytes)
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

    /// A copy of some values.
    pub fn part(&self, values: Range<usize>) -> Result<DeviceArray> {
        self.expect_plain()?;
        let size = self.element.size();
        let mut copy = self.gpu().alloc("tensors", values.len() * size)?;
        self.bytes.copy_to(values.start * size..values.end * size, &mut copy, 0)?;
        Ok(DeviceArray::new(copy, self.element))
    }

    /// Arrays of f32, `len` values in all, one after the other.
    pub fn joined<'a>(gpu: &Gpu, len: usize, parts: impl Iterator<Item = &'a DeviceArray>) -> Result<DeviceArray> {
        let (mut all, mut at) = (gpu.alloc("tensors", len * Element::F32.size())?, 0);
        for part in parts {
            part.expect_plain()?;
            part.bytes.copy_to(0..part.bytes.len(), &mut all, at)?;
            at += part.bytes.len();
        }
        Ok(DeviceArray::new(all, Element::F32))
    }

    /// A copy of the rows, of `width` values, of these numbers.
    pub fn select(&self, width: usize, rows: &[u32]) -> Result<DeviceArray> {
        self.expect_plain()?;
        let bytes = self.bytes.select_rows("activations", width * self.element.size(), rows)?;
        Ok(DeviceArray::new(bytes, self.element))
    }
}

impl Tensor {
    /// Takes over device memory that holds values of this type; their number must be the product of `shape`.
    pub(super) fn of_bytes(shape: impl Into<Vec<usize>>, bytes: DeviceBuffer<u8>, element: Element) -> Result<Tensor> {
        let shape = shape.into();
        fits(&shape, bytes.len() / element.size())?;
        Ok(Tensor { shape, data: Data::Device(DeviceArray::new(bytes, element)) })
    }

    /// An array of any content in a device's memory; `label` names it where memory runs out.
    pub fn alloc(gpu: &Gpu, label: &'static str, element: Element, shape: impl Into<Vec<usize>>) -> Result<Tensor> {
        let shape = shape.into();
        let bytes = gpu.alloc(label, shape.iter().product::<usize>() * element.size())?;
        Tensor::of_bytes(shape, bytes, element)
    }

    /// Rows of activations of any content, of whole chunks of 16 bytes, as many kernels take them.
    pub fn chunked(gpu: &Gpu, element: Element, [rows, width]: [usize; 2]) -> Result<Tensor> {
        if !(width * element.size()).is_multiple_of(16) {
            let reason = format!("rows of {width} values; the kernels take whole chunks of 16 bytes");
            return Err(Error::shape("activations", reason));
        }
        Tensor::alloc(gpu, "activations", element, [rows, width])
    }

    /// Rows of host values, rounded to the element type; their number must be a multiple of `width`.
    pub fn upload(gpu: &Gpu, label: &'static str, values: &[f32], width: usize, element: Element) -> Result<Tensor> {
        if width == 0 || !values.len().is_multiple_of(width) {
            return Err(Error::shape("tensor", format!("{} values of {label} in rows of {width}", values.len())));
        }
        let bytes = match element {
            Element::F32 => gpu.upload(label, cast_slice(values))?,
            Element::Bf16 => gpu.upload(label, cast_slice(&narrowed(values, bf16::ZERO)))?,
            Element::F16 => gpu.upload(label, cast_slice(&narrowed(values, f16::ZERO)))?,
        };
        Tensor::of_bytes([values.len() / width, width], bytes, element)
    }

    /// Kernels that are queued on this device from now on run when the values are there.
    pub fn arrive(&self, gpu: &Gpu) -> Result<()> {
        match &self.data {
            Data::Device(array) if array.gpu().is(gpu) => array.bytes.arrive(),
            _ => Err(Error::shape("tensor", format!("lies on {:?}, needed on {gpu:?}", self.gpu()))),
        }
    }

    /// A copy of f32 as bf16, or of bf16 as f32, on its device.
    pub(crate) fn converted(&self) -> Result<Tensor> {
        let gpu = self.device("rows")?;
        let (kernel, element) = match self.element() {
            Element::F32 => ("rows_narrow", Element::Bf16),
            Element::Bf16 => ("rows_wide", Element::F32),
            Element::F16 => return Err(Error::shape("rows", "no kernel converts f16")),
        };
        let out = Tensor::alloc(gpu, "activations", element, &self.shape[..])?;
        let fours = self.count() * fours(kernel, self.width())?;
        let args = Convert { x: self.address(), out: out.address(), fours: fours as i64 };
        gpu.launch(kernel, Grid::values(fours, 256), &args)?;
        Ok(out)
    }

    /// The same with a copy in 16 bits beside it, which holds until the values are written to.
    pub(crate) fn beside(mut self, narrow: Tensor) -> Tensor {
        if let (Data::Device(array), Data::Device(narrow)) = (&mut self.data, narrow.data) {
            array.narrow = Some((narrow.element, narrow.bytes));
        }
        self
    }

    /// Where a copy in this type lies, if there is one beside the values.
    pub(crate) fn copy_in(&self, element: Element) -> Option<Ptr> {
        match &self.data {
            Data::Device(DeviceArray { narrow: Some((of, narrow)), .. }) if *of == element => Some(narrow.ptr()),
            _ => None,
        }
    }

    /// Where the f32 values lie on their device, and a copy in f16, if there is one, for whoever writes both. What another tensor
    /// shares is copied first.
    pub(crate) fn both_mut(&mut self) -> Result<(Ptr, Option<Ptr>)> {
        let copy = match &mut self.data {
            Data::Device(array) => array.write_both()?,
            _ => None,
        };
        Ok((self.ptr(), copy))
    }

    /// The values in this type, for an operation on their device: converted if need be.
    pub(crate) fn operand(&self, element: Element) -> Result<Tensor> {
        if self.element() == element {
            return Ok(self.clone());
        }
        match &self.data {
            Data::Device(DeviceArray { narrow: Some((of, narrow)), .. }) if *of == element => {
                let array = DeviceArray::shared(narrow.clone(), element);
                Ok(Tensor { shape: self.shape.clone(), data: Data::Device(array) })
            }
            _ => {
                let converted = self.converted()?;
                converted.width_of("rows", element)?;
                Ok(converted)
            }
        }
    }

    /// Its width, if its values are what a kernel takes.
    pub(crate) fn width_of(&self, kernel: &'static str, element: Element) -> Result<usize> {
        match self.element() == element {
            true => Ok(self.width()),
            false => Err(Error::shape(kernel, format!("rows of {:?}, needs {element:?}", self.element()))),
        }
    }

    /// Where the values lie on their device, of whatever type.
    ///
    /// # Panics
    /// If they lie on the host or are [normalized](Tensor::normalized), as [`Tensor::ptr`].
    pub fn address(&self) -> Ptr {
        self.column(0)
    }

    /// Where column `column` of the first row lies; otherwise as [`Tensor::address`].
    pub(crate) fn column(&self, column: usize) -> Ptr {
        match &self.data {
            Data::Device(array) if array.columns.is_none() => array.ptr().offset::<u8>(column * array.element.size()),
            other => panic!("a place on a device of {other:?}"),
        }
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
