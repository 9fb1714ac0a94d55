//! CLIP (Radford et al., 2021): text and vision transformer, any size.

mod config;
mod files;
mod open_clip;
mod parameters;
mod random;
mod text;
mod towers;
mod vision;
pub mod weights;

use std::path::{Path, PathBuf};

pub use config::ClipConfig;
pub use files::{ClipFiles, ClipSizes, TowerSizes};
pub(super) use open_clip::{CONFIG as OPEN_CLIP_CONFIG, is_in as is_open_clip};
pub use random::{RandomClip, write_random};
pub use towers::Towers;

use self::text::ClipText;
use self::vision::ClipVision;
use super::processor::Kind;
use super::text::TextModel;
use super::vision::ImageModel;
use super::{Compute, ImageProcessor};
use crate::encoder::loader::Loader;
use crate::error::{Error, Result};
use crate::tensor::Shards;

/// Reads the text tower.
pub(super) fn open_text(folder: &Path, shards: &Shards, compute: &Compute) -> Result<Box<dyn TextModel>> {
    let config = ClipConfig::read(folder)?;
    config.text_config.sizes().map_err(|e| refused(folder, "text_config", e))?;
    Ok(Box::new(ClipText::read(&loader(folder, shards, compute), &config)?))
}

/// Reads the vision tower and how its images are prepared.
pub(super) fn open_vision(
    folder: &Path,
    shards: &Shards,
    compute: &Compute,
) -> Result<(ImageProcessor, Box<dyn ImageModel>)> {
    let config = ClipConfig::read(folder)?;
    config.vision_config.sizes().map_err(|e| refused(folder, "vision_config", e))?;
    let processor = processor(folder, &config)?;
    Ok((processor, Box::new(ClipVision::read(&loader(folder, shards, compute), &config)?)))
}

/// How a directory's images are prepared.
fn processor(folder: &Path, config: &ClipConfig) -> Result<ImageProcessor> {
    let size = config.vision_config.image_size as u32;
    match open_clip::is_in(folder) {
        true => ImageProcessor::open_clip(&folder.join(OPEN_CLIP_CONFIG), size),
        false => ImageProcessor::open(folder, Kind::Clip, Some(size)),
    }
}

/// The file that says what a directory's sizes are.
fn config_file(folder: &Path) -> PathBuf {
    folder.join(if open_clip::is_in(folder) { OPEN_CLIP_CONFIG } else { "config.json" })
}

fn loader<'a>(folder: &Path, shards: &'a Shards, compute: &'a Compute) -> Loader<'a> {
    let loader = Loader::new(shards, compute);
    if open_clip::is_in(folder) { loader.with_aliases(open_clip::alias) } else { loader }
}

fn refused(folder: &Path, tower: &str, error: Error) -> Error {
    Error::file(config_file(folder), format!("`{tower}`: {error}"))
}
