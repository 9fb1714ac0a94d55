//! Convolutions without their windows in memory (kernels/encoder_convolution.cu).

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::super::{DeviceBuffer, Gpu, Grid, Ptr};
use super::product::{Output, THREADS, THREADS_F32, tile};
use super::{Activation, Element, Matrix};
use crate::error::{Error, Result};

/// Images or feature maps, a row of channels for each pixel.
#[derive(Debug)]
pub struct Maps {
    /// (images · height · width, channels)
    pub pixels: Matrix,
    pub height: usize,
    pub width: usize,
}

/// Square windows of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Pixels down and across.
    pub size: usize,
    /// Pixels from one to the next.
    pub stride: usize,
    /// Pixels that are added around an image.
    pub border: usize,
}

/// A convolution with a bias of each output, its weights in device memory.
pub struct Convolution {
    /// (outputs, size · size · channels), the channel fastest.
    weight: Matrix,
    bias: Option<DeviceBuffer<f32>>,
    /// Channels that the images come with, and what they are filled up to with zeros.
    inputs: usize,
    channels: usize,
    windows: Windows,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Args {
    image: Ptr,
    weight: Ptr,
    out: Output,
    height: i32,
    width: i32,
    channels: i32,
    out_height: i32,
    out_width: i32,
    rows: i32,
    columns: i32,
    down: i32,
    across: i32,
    border: i32,
}

impl Windows {
    /// How many windows an image of this size has, down and across.
    pub fn output(self, height: usize, width: usize) -> Result<(usize, usize)> {
        let Windows { size, stride, border } = self;
        let along = |pixels: usize| Some((pixels + 2 * border).checked_sub(size)?.checked_div(stride)? + 1);
        along(height).zip(along(width)).ok_or_else(|| {
            Error::shape(
                "encoder_convolution",
                format!("images of {height} x {width} have no windows of {size} x {size}"),
            )
        })
    }

    /// Whether every pixel lies in exactly one window.
    fn are_patches(self, height: usize, width: usize) -> bool {
        let Windows { size, stride, border } = self;
        size == stride && border == 0 && height.is_multiple_of(size) && width.is_multiple_of(size)
    }
}

impl Maps {
    /// Number of images.
    pub fn images(&self) -> usize {
        self.pixels.rows() / (self.height * self.width).max(1)
    }
}

impl Convolution {
    /// From f32 weights (outputs, size · size · inputs), the input channel fastest.
    pub fn new(
        gpu: &Gpu,
        weight: &[f32],
        inputs: usize,
        windows: Windows,
        bias: Option<&[f32]>,
    ) -> Result<Convolution> {
        // Where windows do not overlap, a row of one is contiguous in memory.
        let whole_rows = windows.size == windows.stride && (windows.size * inputs).is_multiple_of(8);
        let channels = match Element::of(gpu) {
            Element::Bf16 if !whole_rows => inputs.next_multiple_of(8),
            _ => inputs,
        };
        let area = windows.size * windows.size;
        let weight = Matrix::upload(gpu, "weights", &widened(weight, inputs, channels), area * channels)?;
        let bias = bias.map(|bias| gpu.upload("weights", bias)).transpose()?;
        if bias.as_ref().is_some_and(|bias| bias.len() != weight.rows()) {
            return Err(Error::shape("encoder_convolution", "weights and bias differ in their outputs"));
        }
        Ok(Convolution { weight, bias, inputs, channels, windows })
    }

    /// Copies f32 pixels (images · height · width, inputs) to the device, with as many channels as the kernels want.
    pub fn upload(&self, pixels: &[f32], height: usize, width: usize) -> Result<Maps> {
        let gpu = self.weight.gpu();
        let pixels = match self.channels == self.inputs {
            true => Matrix::upload(gpu, "images", pixels, self.channels)?,
            false => Matrix::upload(gpu, "images", &widened(pixels, self.inputs, self.channels), self.channels)?,
        };
        Ok(Maps { pixels, height, width })
    }

    /// Responses (images · windows, outputs), of the output's type.
    pub fn forward(&self, x: &Maps, activation: Activation, output: Element) -> Result<Maps> {
        let (height, width) = self.windows.output(x.height, x.width)?;
        let rows = x.images() * height * width;
        let pixels = Matrix::alloc(x.pixels.gpu(), "activations", output, rows, self.weight.rows())?;
        let out = Maps { pixels, height, width };
        self.launch(x, &out, Ptr::NULL, activation)?;
        Ok(out)
    }

    /// Adds the residual, which the sum replaces, before the activation.
    pub fn forward_onto(&self, x: &Maps, residual: &mut Maps, activation: Activation) -> Result<()> {
        self.launch(x, residual, residual.pixels.ptr(), activation)
    }

    fn launch(&self, x: &Maps, out: &Maps, residual: Ptr, activation: Activation) -> Result<()> {
        let (gpu, element, n) = (x.pixels.gpu(), self.weight.element(), self.weight.rows());
        let (out_height, out_width) = self.windows.output(x.height, x.width)?;
        let m = x.images() * out_height * out_width;
        let fits = x.pixels.width() == self.channels
            && x.pixels.element() == element
            && (out.pixels.rows(), out.pixels.width()) == (m, n);
        if !fits || i32::try_from(x.pixels.rows().max(m)).is_err() {
            let (found, needed) = (x.pixels.width(), self.channels);
            let reason = format!(
                "{} images of {} x {} with {found} channels of {:?}, needs {needed} of {element:?} and ({m}, {n}) of output",
                x.images(),
                x.height,
                x.width,
                x.pixels.element()
            );
            return Err(Error::shape("encoder_convolution", reason));
        }
        let bias = self.bias.as_ref().map_or(Ptr::NULL, DeviceBuffer::ptr);
        let output = out.pixels.element();
        let sums =
            Output::new("encoder_convolution", (m, n), activation, (bias, residual, out.pixels.ptr()), (n, n), output)?;
        let Windows { size, stride, border } = self.windows;
        // A row of a patch as one pixel of many channels.
        let patches = self.windows.are_patches(x.height, x.width);
        let fold = if patches { size } else { 1 };
        if element == Element::Bf16 && !(self.channels * fold).is_multiple_of(8) {
            let (height, width) = (x.height, x.width);
            let reason = format!("images of {height} x {width} are not made of patches of {size} x {size}");
            return Err(Error::shape("encoder_convolution", reason));
        }
        let args = Args {
            image: x.pixels.ptr(),
            weight: self.weight.ptr(),
            out: sums,
            height: x.height as i32,
            width: (x.width / fold) as i32,
            channels: (self.channels * fold) as i32,
            out_height: out_height as i32,
            out_width: out_width as i32,
            rows: size as i32,
            columns: (size / fold) as i32,
            down: stride as i32,
            across: (stride / fold) as i32,
            border: border as i32,
        };
        let (side, shared) = tile(gpu, element, m, n)?;
        let (kernel, threads) = match (element, side) {
            (Element::F32, _) => ("encoder_convolution_f32", THREADS_F32),
            (Element::Bf16, 128) => ("encoder_convolution_128", THREADS),
            (Element::Bf16, _) => ("encoder_convolution_64", THREADS),
        };
        let blocks = m.div_ceil(side) * n.div_ceil(side);
        gpu.launch(kernel, Grid { shared, ..Grid::line(blocks, threads) }, &args)
    }
}

/// Rows of `from` values filled up with zeros to `to`.
fn widened(rows: &[f32], from: usize, to: usize) -> Vec<f32> {
    let mut wide = vec![0.0; rows.len() / from.max(1) * to];
    wide.par_chunks_exact_mut(to).zip(rows.par_chunks_exact(from)).for_each(|(wide, row)| {
        wide[..from].copy_from_slice(row);
    });
    wide
}
