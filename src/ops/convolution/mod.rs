//! Convolutions, as products with the windows of images (kernels/convolution.cu).

mod cuda;

use rayon::prelude::*;

pub use cuda::DeviceConvolution;

use super::linear::{Activation, Linear, Windows};
use crate::autograd::Cost;
use crate::device::cpu::Buffer;
use crate::error::{Error, Result};
use crate::tensor::{Compute, Data, Element, Rows};

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
        if let Some(image) = images.iter().find(|image| image.len() != 3 * pixels) {
            let reason = format!("{} values of an image, needs (3, {height}, {width})", image.len());
            return Err(Error::shape("images", reason));
        }
        let mut values = Buffer::scratch(images.len() * 3 * pixels);
        values.par_chunks_mut((3 * pixels).max(1)).zip(images).for_each(|(values, planes)| {
            for (i, pixel) in values.chunks_exact_mut(3).enumerate() {
                pixel.copy_from_slice(&[planes[i], planes[pixels + i], planes[2 * pixels + i]]);
            }
        });
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

/// What a convolution with a bias costs on images of this many windows in all and pixels in all.
pub fn cost(filters: Filters, pixels: usize, windows: usize, operand: Element, output: Element) -> Cost {
    let Filters { outputs, inputs, kernel, .. } = filters;
    let weights = outputs * inputs * kernel * kernel;
    let bytes = operand.size() * (weights + pixels * inputs) + 4 * outputs + windows * outputs * output.size();
    Cost::inference(2 * windows * weights, bytes)
}

/// A convolution; its activation and residual are those of [`Linear`].
pub struct Convolution {
    product: Product,
    filters: Filters,
}

enum Product {
    Host(Linear),
    Device { convolution: DeviceConvolution, activation: Option<Activation>, output: Element },
}

impl Convolution {
    /// From a weight (outputs, inputs, kernel, kernel).
    pub fn new(weight: &[f32], filters: Filters, bias: Option<Vec<f32>>, compute: &Compute) -> Result<Convolution> {
        let Filters { outputs, inputs, kernel, stride, padding } = filters;
        let area = kernel * kernel;
        if weight.len() != outputs * inputs * area || weight.is_empty() {
            return Err(Error::shape("convolution", format!("{} weights for {filters:?}", weight.len())));
        }
        // Windows have the channels of a pixel together, weights have the pixels of a channel.
        let turned: Vec<f32> = weight
            .chunks_exact(inputs * area)
            .flat_map(|filter| (0..inputs * area).map(|i| filter[i % inputs * area + i / inputs]))
            .collect();
        let output = compute.element()?;
        let product = match &compute.gpu {
            None => Product::Host(Linear::new(&turned, outputs, bias, compute)?),
            Some(gpu) => {
                let (sizes, patches) = ((inputs, kernel), kernel == stride && padding == 0);
                let bias = bias.as_deref();
                let convolution = DeviceConvolution::new(gpu, &turned, sizes, patches, bias, output)?;
                Product::Device { convolution, activation: None, output }
            }
        };
        Ok(Convolution { product, filters })
    }

    /// The same with an activation function.
    pub fn with(self, activation: Activation) -> Convolution {
        let product = match self.product {
            Product::Host(product) => Product::Host(product.with(activation)),
            Product::Device { convolution, output, .. } => {
                Product::Device { convolution, activation: Some(activation), output }
            }
        };
        Convolution { product, ..self }
    }

    /// The same with outputs in f32.
    pub fn wide(self) -> Convolution {
        let product = match self.product {
            Product::Host(product) => Product::Host(product.wide()),
            Product::Device { convolution, activation, .. } => {
                Product::Device { convolution, activation, output: Element::F32 }
            }
        };
        Convolution { product, ..self }
    }

    /// Maps of the filters' responses. Images on the host are copied to where the convolution computes.
    pub fn forward(&self, x: &Maps) -> Result<Maps> {
        let windows = self.windows(x);
        let (height, width) = windows.size();
        let rows = match (&self.product, x.rows.data()) {
            (Product::Host(product), _) => product.forward_windows(&x.rows, windows, x.images() * height * width)?,
            (Product::Device { convolution, activation, output }, data) => {
                let forward = |x: &_| convolution.forward(x, windows, *activation, *output);
                Rows::on_device(match data {
                    Data::Device(x) => x.operand(convolution.element(), forward)?,
                    _ => forward(&convolution.upload(x.rows.wide("convolution")?)?)?,
                })
            }
        };
        Ok(Maps { rows, height, width })
    }

    /// Adds to the residual, which has the size of the output, and applies the activation.
    pub fn forward_onto(&self, x: &Maps, residual: &mut Maps) -> Result<()> {
        let windows = self.windows(x);
        match (&self.product, x.rows.data(), residual.rows.data_mut()) {
            (Product::Device { convolution, activation, .. }, Data::Device(x), Data::Device(out)) => {
                let onto = |x: &_| convolution.forward_onto(x, windows, out.written(), *activation);
                x.operand(convolution.element(), onto)
            }
            (Product::Host(product), ..) => product.forward_windows_onto(&x.rows, windows, &mut residual.rows),
            _ => Err(Error::shape("convolution", "weights and images lie on different devices")),
        }
    }

    fn windows(&self, x: &Maps) -> Windows {
        let Filters { kernel, stride, padding, .. } = self.filters;
        Windows { height: x.height, width: x.width, kernel, stride, padding }
    }
}
