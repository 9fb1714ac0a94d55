//! Convolutions, as products with the windows of images.

use super::{Dense, Rows};
use crate::device::cpu::{Activation, Windows};
use crate::encoder::Precision;
use crate::error::{Error, Result};

/// Images or feature maps: a row for each pixel, image by image, line by line.
#[derive(Debug)]
pub struct Maps {
    /// (images · height · width, channels)
    pub rows: Rows,
    /// Pixels downwards and across.
    pub height: usize,
    pub width: usize,
}

impl Maps {
    /// From images (3, height, width) with their channels apart, as image processors make them.
    pub fn from_planes(images: &[Vec<f32>], height: usize, width: usize) -> Result<Maps> {
        let pixels = height * width;
        let mut values = Vec::with_capacity(images.len() * 3 * pixels);
        for image in images {
            if image.len() != 3 * pixels {
                let reason = format!("{} values of an image, needs (3, {height}, {width})", image.len());
                return Err(Error::shape("images", reason));
            }
            let (red, rest) = image.split_at(pixels);
            let (green, blue) = rest.split_at(pixels);
            values.extend(red.iter().zip(green).zip(blue).flat_map(|((&red, &green), &blue)| [red, green, blue]));
        }
        Ok(Maps { rows: Rows::new(values, 3), height, width })
    }

    /// How many images.
    pub fn images(&self) -> usize {
        self.rows.count() / (self.height * self.width).max(1)
    }
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

/// A convolution; its activation and residual are those of [`Dense`].
pub struct Convolution {
    product: Dense,
    filters: Filters,
}

impl Convolution {
    /// From a weight (outputs, inputs, kernel, kernel).
    pub fn new(weight: &[f32], filters: Filters, bias: Option<Vec<f32>>, precision: Precision) -> Result<Convolution> {
        let Filters { outputs, inputs, kernel, .. } = filters;
        let area = kernel * kernel;
        if weight.len() != outputs * inputs * area || weight.is_empty() {
            return Err(Error::shape("convolution", format!("{} weights for {filters:?}", weight.len())));
        }
        // Windows have the channels of a pixel together, weights have the pixels of a channel.
        let turned: Vec<f32> = weight
            .chunks_exact(inputs * area)
            .flat_map(|filter| (0..inputs * area).map(|i| filter[i % inputs * area + i / inputs]))
            .collect();
        Ok(Convolution { product: Dense::new(&turned, outputs, bias, precision)?, filters })
    }

    /// The same with an activation function.
    pub fn with(self, activation: Activation) -> Convolution {
        Convolution { product: self.product.with(activation), ..self }
    }

    /// The same with outputs in f32.
    pub fn wide(self) -> Convolution {
        Convolution { product: self.product.wide(), ..self }
    }

    /// Maps of the filters' responses.
    pub fn forward(&self, x: &Maps) -> Result<Maps> {
        let windows = self.windows(x);
        let (height, width) = windows.size();
        let rows = self.product.forward_windows(&x.rows, windows, x.images() * height * width)?;
        Ok(Maps { rows, height, width })
    }

    /// Adds to the residual, which has the size of the output, and applies the activation.
    pub fn forward_onto(&self, x: &Maps, residual: &mut Maps) -> Result<()> {
        self.product.forward_windows_onto(&x.rows, self.windows(x), &mut residual.rows)
    }

    fn windows(&self, x: &Maps) -> Windows {
        let Filters { kernel, stride, padding, .. } = self.filters;
        Windows { height: x.height, width: x.width, kernel, stride, padding }
    }
}
