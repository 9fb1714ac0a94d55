//! ResNet (He et al., 2016) with bottleneck layers, in the version that strides in the 3 x 3 convolution (v1.5).

mod config;
mod files;
mod network;
pub mod weights;

use std::path::Path;

use config::Block;
pub use config::ResNetConfig;
pub use files::ResNetFiles;

use super::processor::Kind;
use super::vision::ImageModel;
use super::{Compute, Encoded, ImageProcessor, collect};
use crate::encoder::loader::Loader;
use crate::error::Result;
use crate::ops::convolution::{Convolution, Maps};
use crate::ops::linear::Activation;
use crate::ops::pool::{MaxPool, mean};
use crate::tensor::{Sequences, Shards};

/// A bottleneck is narrower than its output by this factor.
const REDUCTION: usize = 4;

/// Of batch normalization, as transformers sets it.
const EPS: f32 = 1e-5;

/// What the names of the first convolution's tensors begin with.
const EMBEDDER: &str = "embedder.embedder";

/// Behind the first convolution.
const POOL: MaxPool = MaxPool { kernel: 3, stride: 2, padding: 1 };

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
    let loader = Loader::new(shards, compute).under_if("resnet", &format!("{EMBEDDER}.convolution.weight"));
    let normalized = |name: &str, filters| loader.under(name).normalized_convolution(filters, EPS);
    let first = normalized(EMBEDDER, config.first())?.with(Activation::Relu);
    let layers = config.blocks().map(|Block { name, shortcut, parts: [reduce, spatial, expand] }| {
        let part = |i: usize, filters| Ok(normalized(&format!("{name}.layer.{i}"), filters)?.with(Activation::Relu));
        Ok(Bottleneck {
            shortcut: shortcut.map(|filters| normalized(&format!("{name}.shortcut"), filters)).transpose()?,
            reduce: part(0, reduce)?,
            spatial: part(1, spatial)?,
            expand: part(2, expand)?,
        })
    });
    let layers = layers.collect::<Result<_>>()?;
    let (width, side) = (config.hidden_sizes.last().copied().unwrap_or(0), config.patches(size).isqrt());
    Ok((processor, Box::new(ResNet { first, pool: POOL, layers, width, size, side })))
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
