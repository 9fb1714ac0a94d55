//! SigLIP (Zhai et al., 2023) and SigLIP 2 (Tschannen et al., 2025) for images of one size: a text and a vision transformer
//! without a class token.

mod config;
mod files;
mod pooling;
mod text;
mod towers;
mod vision;
pub mod weights;

use std::path::Path;

pub use self::config::SiglipConfig;
use self::config::{TextConfig, VisionConfig};
pub use self::files::SiglipFiles;
use self::text::SiglipText;
use self::vision::SiglipVision;
use super::processor::Kind;
use super::text::TextModel;
use super::vision::ImageModel;
use super::{Compute, ImageProcessor};
use crate::encoder::loader::Loader;
use crate::error::Result;
use crate::tensor::Shards;
use crate::tokenizer::Tokenizer;

/// Reads the text tower.
pub(super) fn open_text(
    folder: &Path,
    shards: &Shards,
    tokenizer: &Tokenizer,
    compute: &Compute,
) -> Result<Box<dyn TextModel>> {
    let config = TextConfig::read(folder)?;
    let reading = text::Reading::of(folder, tokenizer, config.pad_token_id)?;
    Ok(Box::new(SiglipText::read(&Loader::new(shards, compute), config, reading)?))
}

/// Reads the vision tower and how its images are prepared.
pub(super) fn open_vision(
    folder: &Path,
    shards: &Shards,
    compute: &Compute,
) -> Result<(ImageProcessor, Box<dyn ImageModel>)> {
    let config = VisionConfig::read(folder)?;
    let processor = ImageProcessor::open(folder, Kind::Siglip, Some(config.image_size as u32))?;
    Ok((processor, Box::new(SiglipVision::read(&Loader::new(shards, compute), config, compute)?)))
}
