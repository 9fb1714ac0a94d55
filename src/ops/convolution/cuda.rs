//! Convolutions without their windows in memory (kernels/convolution.cu).

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use crate::device::Gpu;
use crate::device::cuda::{DeviceBuffer, Grid, Ptr};
use crate::error::{Error, Result};
use crate::ops::linear::tiled::{Output, THREADS, THREADS_F32, tile};
use crate::ops::linear::{Activation, DeviceLinear, Windows};
use crate::tensor::{Element, Matrix};

/// A convolution with square windows, its weights in device memory.
pub struct DeviceConvolution {
    /// Of a window's pixels, each with all its channels.
    product: DeviceLinear,
    /// Channels that images have, and what they are filled up to with zeros.
    inputs: usize,
    channels: usize,
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

impl DeviceConvolution {
    /// From weights (outputs, kernel · kernel · inputs), the input channel fastest. `patches` says that windows will follow
    /// each other without gaps, overlap or border.
    pub fn new(
        gpu: &Gpu,
        weight: &[f32],
        (inputs, kernel): (usize, usize),
        patches: bool,
        bias: Option<&[f32]>,
        element: Element,
    ) -> Result<DeviceConvolution> {
        // The kernels copy eight values at a time; of patches, a whole row of pixels is contiguous in memory.
        let together = if patches { inputs * kernel } else { inputs };
        let whole = element == Element::F32 || together.is_multiple_of(8);
        let channels = if whole { inputs } else { inputs.next_multiple_of(8) };
        let weight = widened(weight, inputs, channels);
        let product = DeviceLinear::new(gpu, &weight, kernel * kernel * channels, bias, element)?;
        Ok(DeviceConvolution { product, inputs, channels })
    }

    /// Number of the filters.
    pub fn outputs(&self) -> usize {
        self.product.outputs()
    }

    /// What the weights are.
    pub fn element(&self) -> Element {
        self.product.element()
    }

    /// Copies f32 pixels (n, inputs) to the device, with as many channels as the kernels want.
    pub fn upload(&self, pixels: &[f32]) -> Result<Matrix> {
        let (gpu, element) = (self.product.weight.gpu(), self.product.element());
        match self.channels == self.inputs {
            true => Matrix::upload(gpu, "images", pixels, self.channels, element),
            false => {
                Matrix::upload(gpu, "images", &widened(pixels, self.inputs, self.channels), self.channels, element)
            }
        }
    }

    /// activation(windows of x · Wᵀ + b): (images · height · width, channels) -> (images · windows, outputs)
    pub fn forward(
        &self,
        x: &Matrix,
        windows: Windows,
        activation: Option<Activation>,
        output: Element,
    ) -> Result<Matrix> {
        if windows.are_pixels() {
            return self.product.forward(x, activation, output);
        }
        let (down, across) = windows.size();
        let rows = x.rows() / (windows.height * windows.width).max(1) * down * across;
        let out = Matrix::alloc(x.gpu(), "activations", output, rows, self.outputs())?;
        self.launch(x, windows, &out, Ptr::NULL, activation)?;
        Ok(out)
    }

    /// The same plus the residual (images · windows, outputs) before the activation, in its place.
    pub fn forward_onto(
        &self,
        x: &Matrix,
        windows: Windows,
        residual: &mut Matrix,
        activation: Option<Activation>,
    ) -> Result<()> {
        match windows.are_pixels() {
            true => self.product.forward_onto(x, residual, activation),
            false => self.launch(x, windows, residual, residual.ptr(), activation),
        }
    }

    fn launch(
        &self,
        x: &Matrix,
        windows: Windows,
        out: &Matrix,
        residual: Ptr,
        activation: Option<Activation>,
    ) -> Result<()> {
        let Windows { height, width, kernel, stride, padding } = windows;
        let DeviceLinear { weight, bias } = &self.product;
        let (element, n, (down, across)) = (weight.element(), weight.rows(), windows.size());
        let m = x.rows() / (height * width).max(1) * down * across;
        let fits = (x.width(), x.element()) == (self.channels, element) && (out.rows(), out.width()) == (m, n);
        // A row of a patch is as well one pixel of many channels.
        let patches = kernel == stride && padding == 0 && width.is_multiple_of(kernel);
        let fold = if patches { kernel } else { 1 };
        let channels = self.channels * fold;
        if !fits || (element == Element::Bf16 && !channels.is_multiple_of(8)) || i32::try_from(m).is_err() {
            let (rows, found, kind, needed) = (x.rows(), x.width(), x.element(), self.channels);
            let reason = format!(
                "({rows}, {found}) {kind:?} as images of {height} x {width}, needs {needed} channels of {element:?}; \
                 ({}, {}) for an output of ({m}, {n})",
                out.rows(),
                out.width()
            );
            return Err(Error::shape("convolution", reason));
        }
        let bias = bias.as_ref().map_or(Ptr::NULL, DeviceBuffer::ptr);
        let sums = (bias, residual, out.ptr());
        let args = Args {
            image: x.ptr(),
            weight: weight.ptr(),
            out: Output::new("convolution", (m, n), activation.into(), sums, (n, n), out.element())?,
            height: height as i32,
            width: (width / fold) as i32,
            channels: channels as i32,
            out_height: down as i32,
            out_width: across as i32,
            rows: kernel as i32,
            columns: (kernel / fold) as i32,
            down: stride as i32,
            across: (stride / fold) as i32,
            border: padding as i32,
        };
        let (side, shared) = tile(x.gpu(), element, m, n)?;
        let (kernel, threads) = match (element, side) {
            (Element::F32, _) => ("convolution_f32", THREADS_F32),
            (Element::Bf16, 128) => ("convolution_128", THREADS),
            (Element::Bf16, _) => ("convolution_64", THREADS),
            (Element::F16, _) => return Err(Error::shape("convolution", "images of f16")),
        };
        let blocks = m.div_ceil(side) * n.div_ceil(side);
        x.gpu().launch(kernel, Grid { shared, ..Grid::line(blocks, threads) }, &args)
    }
}

/// Rows of `from` values filled up with zeros to `to`.
fn widened(rows: &[f32], from: usize, to: usize) -> Vec<f32> {
    let mut wide = vec![0.0; rows.len() / from.max(1) * to];
    let pairs = wide.par_chunks_exact_mut(to.max(1)).zip(rows.par_chunks_exact(from.max(1)));
    pairs.for_each(|(wide, row)| wide[..from].copy_from_slice(row));
    wide
}
