//! Encoding images that were prepared as a model takes them.

use std::path::Path;

use rayon::prelude::*;

use super::directory::Directory;
use super::image::ExifOrientation;
use super::portion::Portion;
use super::{Compute, Encoded, ImageProcessor};
use crate::device::Gpu;
use crate::error::Result;
use crate::span;
use crate::trace::on_device;

/// A model of images.
pub trait ImageModel: Send + Sync {
    /// Widths of patch states and of the global vector.
    fn widths(&self) -> (usize, usize);

    /// Number of patch states of every image.
    fn patches(&self) -> usize;

    /// Encodes images (3, size, size).
    fn encode(&self, images: &[Vec<f32>]) -> Result<Vec<Encoded>>;
}

/// A model of images with their preprocessing.
pub struct ImageEncoder {
    pub(super) identity: String,
    pub(super) processor: ImageProcessor,
    pub(super) model: Box<dyn ImageModel>,
    pub(super) images: Portion,
}

impl ImageEncoder {
    /// Opens a Hugging Face directory of a CLIP, a SigLIP or a ResNet.
    pub fn open(folder: &Path, compute: impl Into<Compute>) -> Result<ImageEncoder> {
        Directory::open(folder)?.image(&compute.into())
    }

    /// Kind and fingerprint, as a store's manifest records it.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Widths of patch states and of the global vector.
    pub fn widths(&self) -> (usize, usize) {
        self.model.widths()
    }

    /// Number of patch states of every image.
    pub fn patches(&self) -> usize {
        self.model.patches()
    }

    /// How a decoded image becomes the encoder's input.
    pub fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    /// The encoder's input of an image file: (3, height, width).
    pub fn prepare(&self, path: &Path, orientation: ExifOrientation) -> Result<Vec<f32>> {
        self.processor.prepare(path, orientation)
    }

    /// The device that encodes them, so that the processor is free for other work.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.images.gpu.as_ref()
    }

    /// How many images are worth encoding together.
    pub fn group(&self) -> usize {
        self.images.group
    }

    /// Encodes images that the processor prepared.
    pub fn encode_images(&self, images: &[Vec<f32>]) -> Result<Vec<Encoded>> {
        let _span = (span!("forward of images"), on_device(self.gpu(), "forward of images", ""));
        // Batches side by side: their layers need not wait for each other.
        let batches = images.par_chunks(self.images.pass).map(|images| self.model.encode(images));
        Ok(batches.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}
