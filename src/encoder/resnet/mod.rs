//! ResNet (He et al., 2016) with bottleneck layers, in the version that strides in the 3 x 3 convolution (v1.5).

mod config;

use std::path::Path;

pub use config::ResNetConfig;

use super::processor::Kind;
use super::vision::ImageModel;
use super::{Compute, Encoded, ImageProcessor, collect};
use crate::encoder::loader::Loader;
use crate::error::Result;
use crate::ops::convolution::{Convolution, Filters, Maps};
use crate::ops::linear::Activation;
use crate::ops::pool::{MaxPool, mean};
use crate::tensor::{Sequences, Shards};

/// A bottleneck is narrower than its output by this factor.
const REDUCTION: usize = 4;

/// Of batch normalization, as transformers sets it.
const EPS: f32 = 1e-5;

/// A stack of convolutions; the last feature map's pixels are the patches, their mean the global vector.
pub struct ResNet {
    first: Convolution,
    pool: MaxPool,
    layers: Vec<Bottleneck>,
    width: usize,
    /// Of the images.
    size: usize,
    /// Of the last feature map.
    side: usize,
}

/// Three convolutions and a way past them.
struct Bottleneck {
    /// Where the sizes differ; else what comes in goes past unchanged.
    shortcut: Option<Convolution>,
    reduce: Convolution,
    spatial: Convolution,
    expand: Convolution,
}

/// Reads the model, saved alone or with a classifier, and how its images are prepared.
pub(super) fn open(folder: &Path, shards: &Shards, compute: &Compute) -> Result<(ImageProcessor, Box<dyn ImageModel>)> {
    let config = ResNetConfig::read(folder)?;
    let processor = ImageProcessor::open(folder, Kind::ConvNext, None)?;
    let size = processor.size();
    let loader = Loader::new(shards, compute).under_if("resnet", "embedder.embedder.convolution.weight");
    let normalized = |loader: &Loader, outputs, inputs, kernel, stride| {
        let filters = Filters { outputs, inputs, kernel, stride, padding: kernel / 2 };
        loader.normalized_convolution(filters, EPS)
    };
    let first = normalized(&loader.under("embedder.embedder"), config.embedding_size, 3, 7, 2)?;
    let pool = MaxPool { kernel: 3, stride: 2, padding: 1 };
    let mut side = size.div_ceil(2).div_ceil(2);
    let mut layers = Vec::new();
    let mut inputs = config.embedding_size;
    for (s, (&outputs, &depth)) in config.hidden_sizes.iter().zip(&config.depths).enumerate() {
        for d in 0..depth {
            let stride = config.stride(s, d);
            let layer = loader.under(&format!("encoder.stages.{s}.layers.{d}"));
            let narrow = outputs / REDUCTION;
            let part = |i: usize| layer.under(&format!("layer.{i}"));
            let shortcut = (inputs != outputs || stride != 1)
                .then(|| normalized(&layer.under("shortcut"), outputs, inputs, 1, stride));
            layers.push(Bottleneck {
                shortcut: shortcut.transpose()?,
                reduce: normalized(&part(0), narrow, inputs, 1, 1)?.with(Activation::Relu),
                spatial: normalized(&part(1), narrow, narrow, 3, stride)?.with(Activation::Relu),
                expand: normalized(&part(2), outputs, narrow, 1, 1)?.with(Activation::Relu),
            });
            (inputs, side) = (outputs, side.div_ceil(stride));
        }
    }
    let first = first.with(Activation::Relu);
    Ok((processor, Box::new(ResNet { first, pool, layers, width: inputs, size, side })))
}

impl Bottleneck {
    fn forward(&self, x: Maps) -> Result<Maps> {
        let inner = self.spatial.forward(&self.reduce.forward(&x)?)?;
        let mut sum = match &self.shortcut {
            Some(shortcut) => shortcut.forward(&x)?,
            None => x,
        };
        self.expand.forward_onto(&inner, &mut sum)?;
        Ok(sum)
    }
}

impl ImageModel for ResNet {
    fn widths(&self) -> (usize, usize) {
        (self.width, self.width)
    }

    fn patches(&self) -> usize {
        self.side * self.side
    }

    fn encode(&self, images: &[Vec<f32>]) -> Result<Vec<Encoded>> {
        let mut x = self.pool.forward(&self.first.forward(&Maps::from_planes(images, self.size, self.size)?)?)?;
        for layer in &self.layers {
            x = layer.forward(x)?;
        }
        let images = Sequences::equal(images.len(), self.patches());
        let rows = x.rows.into_wide()?;
        let global = mean(&rows, &images)?.into_vectors()?;
        collect(rows, &images, global)
    }
}
