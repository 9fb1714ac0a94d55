//! Convolutions, as products with the windows of images (kernels/convolution.cu); [`differentiable`]: an operation of its own, with
//! gradients, on windows that are unfolded (kernels/windows.cu).

pub mod differentiable;
pub(super) mod windows;

use rayon::prelude::*;

use super::linear::{Activation, Linear, Windows};
use crate::autograd::Cost;
use crate::device::cpu::Buffer;
use crate::error::{Error, Result};
use crate::tensor::{Compute, Element, Tensor};

/// Images or feature maps: a row for each pixel, image by image, line by line.
#[derive(Debug)]
pub struct Maps {
    /// (images · height · width, channels)
    pub rows: Tensor,
    /// Pixels downwards and across.
    pub height: usize,
    pub width: usize,
}

impl Maps {
    /// From images (3, height, width) with their channels apart, as image processors make them.
    pub fn from_planes(images: &[Vec<f32>], height: usize, width: usize) -> Result<Maps> {
        Ok(Maps { rows: Tensor::of_rows(pixels(images, height, width)?, 3)?, height, width })
    }

    /// How many images.
    pub fn images(&self) -> usize {
        self.rows.count() / (self.height * self.width).max(1)
    }
}

/// Pixels (images · height · width, 3) of images (3, height, width) with their channels apart.
pub fn pixels<T: AsRef<[f32]> + Sync>(images: &[T], height: usize, width: usize) -> Result<Buffer> {
    let pixels = height * width;
    if let Some(image) = images.iter().map(AsRef::as_ref).find(|image| image.len() != 3 * pixels) {
        let reason = format!("{} values of an image, needs (3, {height}, {width})", image.len());
        return Err(Error::shape("images", reason));
    }
    let mut values = Buffer::scratch(images.len() * 3 * pixels);
    values.par_chunks_mut((3 * pixels).max(1)).zip(images).for_each(|(values, planes)| {
        let planes = planes.as_ref();
        for (i, pixel) in values.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&[planes[i], planes[pixels + i], planes[2 * pixels + i]]);
        }
    });
    Ok(values)
}

/// Filters (outputs, inputs · area), as files have them, with the channels of a pixel together: (outputs, area · inputs), each pixel
/// filled up with zeros to so many channels.
pub fn channels_last(filters: &[f32], (inputs, area): (usize, usize), channels: usize) -> Vec<f32> {
    let mut turned = vec![0.0; filters.len() / inputs * channels];
    for (turned, filter) in turned.chunks_exact_mut(area * channels).zip(filters.chunks_exact(inputs * area)) {
        filter.iter().enumerate().for_each(|(i, x)| turned[i % area * channels + i / area] = *x);
    }
    turned
}

/// The inverse of [`channels_last`], where nothing was filled up.
pub fn channels_first(filters: &[f32], (inputs, area): (usize, usize)) -> Vec<f32> {
    // Turned like a filter with pixels and channels changed for each other.
    channels_last(filters, (area, inputs), area)
}

/// Sizes of a convolution with square filters.
#[derive(Clone, Copy, Debug)]
pub struct Filters {
    pub outputs: usize,
    pub inputs: usize,
    /// Width and height.
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

/// What a convolution with a bias costs on images of this many windows in all and pixels in all.
pub fn cost(filters: Filters, pixels: usize, windows: usize, operand: Element, output: Element) -> Cost {
    let Filters { outputs, inputs, kernel, .. } = filters;
    let weights = outputs * inputs * kernel * kernel;
    let bytes = operand.size() * (weights + pixels * inputs) + 4 * outputs + windows * outputs * output.size();
    Cost::inference(2 * windows * weights, bytes)
}

/// A convolution: a product with the windows of images; its activation and residual are those of [`Linear`].
pub struct Convolution {
    product: Linear,
    filters: Filters,
    /// Channels of a pixel, filled up with zeros.
    channels: usize,
    compute: Compute,
}

impl Convolution {
    /// From a weight (outputs, inputs, kernel, kernel).
    pub fn new(weight: &[f32], filters: Filters, bias: Option<Vec<f32>>, compute: &Compute) -> Result<Convolution> {
        let Filters { outputs, inputs, kernel, stride, padding } = filters;
        let area = kernel * kernel;
        if weight.len() != outputs * inputs * area || weight.is_empty() {
            return Err(Error::shape("convolution", format!("{} weights for {filters:?}", weight.len())));
        }
        // A device's kernels copy eight values at a time; of patches, a whole row of pixels is contiguous in memory.
        let together = if kernel == stride && padding == 0 { inputs * kernel } else { inputs };
        let whole = compute.gpu.is_none() || compute.element()? == Element::F32 || together.is_multiple_of(8);
        let channels = if whole { inputs } else { inputs.next_multiple_of(8) };
        // Windows have the channels of a pixel together, weights have the pixels of a channel.
        let turned = channels_last(weight, (inputs, area), channels);
        let product = Linear::new(&turned, outputs, bias, compute)?;
        Ok(Convolution { product, filters, channels, compute: compute.clone() })
    }

    /// The same with an activation function.
    pub fn with(self, activation: Activation) -> Convolution {
        Convolution { product: self.product.with(activation), ..self }
    }

    /// The same with outputs in f32.
    pub fn wide(self) -> Convolution {
        Convolution { product: self.product.wide(), ..self }
    }

    /// Maps of the filters' responses. Images on the host are copied to where the convolution computes.
    pub fn forward(&self, x: &Maps) -> Result<Maps> {
        let copied = self.copied(x)?;
        let x = copied.as_ref().unwrap_or(x);
        let windows = self.windows(x);
        let (height, width) = windows.size();
        let rows = self.product.forward_windows(&x.rows, windows)?;
        Ok(Maps { rows, height, width })
    }

    /// Adds to the residual, which has the size of the output, and applies the activation.
    pub fn forward_onto(&self, x: &Maps, residual: &mut Maps) -> Result<()> {
        let copied = self.copied(x)?;
        let x = copied.as_ref().unwrap_or(x);
        self.product.forward_windows_onto(&x.rows, self.windows(x), &mut residual.rows)
    }

    /// Images on the host, if a device computes: in its memory, with as many channels as the kernels want, and without what
    /// is left over at the right and below whole patches, so that a row of a patch's pixels is contiguous there.
    fn copied(&self, x: &Maps) -> Result<Option<Maps>> {
        let (Some(gpu), None) = (&self.compute.gpu, x.rows.gpu()) else { return Ok(None) };
        let pixels = x.rows.wide("convolution")?;
        let Filters { inputs, kernel, stride, padding, .. } = self.filters;
        let patches = kernel == stride && padding == 0;
        let whole = |side: usize| if patches { side / kernel * kernel } else { side };
        let (height, width, channels) = (whole(x.height), whole(x.width), self.channels);
        let upload = |pixels: &[f32]| Tensor::upload(gpu, "images", pixels, channels, self.compute.element()?);
        let rows = match (height, width, channels) == (x.height, x.width, inputs) {
            true => upload(pixels)?,
            false => {
                let images = pixels.len() / (x.height * x.width * inputs).max(1);
                let mut copied = Buffer::zeros(images * height * width * channels);
                copied.par_chunks_exact_mut((width * channels).max(1)).enumerate().for_each(|(i, line)| {
                    let from = (i / height * x.height + i % height) * x.width * inputs;
                    let pairs = line.chunks_exact_mut(channels).zip(pixels[from..].chunks_exact(inputs));
                    pairs.for_each(|(to, pixel)| to[..inputs].copy_from_slice(pixel));
                });
                upload(&copied)?
            }
        };
        Ok(Some(Maps { rows, height, width }))
    }

    fn windows(&self, x: &Maps) -> Windows {
        let Filters { kernel, stride, padding, .. } = self.filters;
        Windows { height: x.height, width: x.width, kernel, stride, padding }
    }
}
