//! CLIP (Radford et al., 2021): text and vision transformer, any size.

mod config;
mod random;
mod text;
mod vision;

use std::path::Path;

pub use config::ClipConfig;
pub use random::{RandomClip, write_random};

use self::text::ClipText;
use self::vision::ClipVision;
use super::processor::Kind;
use super::text::TextModel;
use super::transformer::Layout;
use super::vision::ImageModel;
use super::{Compute, ImageProcessor};
use crate::device::cpu::vector;
use crate::encoder::loader::Loader;
use crate::error::{Error, Result};
use crate::ops::linear::Linear;
use crate::tensor::{Rows, Shards};

/// Where the layers of a block of either tower lie.
const BLOCK: Layout = Layout {
    norm_first: true,
    qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.out_proj",
    norm1: "layer_norm1",
    up: "mlp.fc1",
    down: "mlp.fc2",
    norm2: "layer_norm2",
};

/// Reads the text tower.
pub(super) fn open_text(folder: &Path, shards: &Shards, compute: &Compute) -> Result<Box<dyn TextModel>> {
    let config = ClipConfig::read(folder)?;
    config.text_config.sizes().map_err(|e| refused(folder, "text_config", e))?;
    Ok(Box::new(ClipText::read(&Loader::new(shards, compute), &config)?))
}

/// Reads the vision tower and how its images are prepared.
pub(super) fn open_vision(
    folder: &Path,
    shards: &Shards,
    compute: &Compute,
) -> Result<(ImageProcessor, Box<dyn ImageModel>)> {
    let config = ClipConfig::read(folder)?;
    config.vision_config.sizes().map_err(|e| refused(folder, "vision_config", e))?;
    let processor = ImageProcessor::open(folder, Kind::Clip, Some(config.vision_config.image_size as u32))?;
    Ok((processor, Box::new(ClipVision::read(&Loader::new(shards, compute), &config)?)))
}

fn refused(folder: &Path, tower: &str, error: Error) -> Error {
    Error::file(folder.join("config.json"), format!("`{tower}`: {error}"))
}

/// The projected vector of each row, scaled to length one.
fn project(projection: &Linear, rows: &Rows) -> Result<Vec<Vec<f32>>> {
    let projected = projection.forward(rows)?.into_host()?;
    let unit = |row: &[f32]| {
        let length = vector::dot(row, row).sqrt();
        row.iter().map(|x| x / length).collect()
    };
    Ok(projected.chunks_exact(projection.outputs()).map(unit).collect())
}
