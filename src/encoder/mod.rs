//! Encoders: texts and images to token states and a global vector; frozen, or on a tape (CLIP, BERT).

pub mod bert;
pub mod clip;
mod directory;
mod image;
pub(crate) mod loader;
mod portion;
mod processor;
mod resample;
pub mod resnet;
pub mod siglip;
mod text;
mod trainable;
mod trainables;
pub mod trained;
pub(crate) mod transformer;
mod vision;

use std::path::{Path, PathBuf};

pub use self::image::{ExifOrientation, Header, image_header, image_size, read_image};
pub use crate::tensor::{Compute, Precision};
pub use directory::Fingerprint;
pub use processor::{ImageProcessor, Kind as ProcessorKind};
pub use text::TextEncoder;
pub use trainable::TrainableEncoder;
pub use trainables::{Opened, TrainableEncoders};
pub use vision::ImageEncoder;

use crate::device::cpu::vector;
use crate::error::{Error, Result};
use crate::tensor::safetensors::first_unbounded;
use crate::tensor::{Sequences, Tensor};

/// The precision of this name, if encoders compute in it.
pub fn parse_precision(name: &str) -> Result<Precision, String> {
    match name {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        _ => Err("is none of f32, bf16".into()),
    }
}

/// What an encoder says about one text or image.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// States of its tokens or patches (length, width).
    pub tokens: Vec<f32>,
    /// Its global vector.
    pub global: Vec<f32>,
}

impl Encoded {
    /// Fails if a value is NaN or infinite: no model could make anything of it.
    pub fn expect_finite(&self, whose: &str, encoder: &str) -> Result<()> {
        for (what, values) in [("states", &self.tokens), ("global vector", &self.global)] {
            if let Some(at) = first_unbounded(values) {
                let value = values[at];
                return Err(Error::invalid(format!(
                    "{whose}: the encoder ({encoder}) gave a {what} with {value} (value {at}); are its weights whole?"
                )));
            }
        }
        Ok(())
    }
}

/// Splits the rows of a batch into its sequences.
fn collect(rows: Tensor, sequences: &Sequences, global: Vec<Vec<f32>>) -> Result<Vec<Encoded>> {
    let width = rows.width();
    let rows = rows.into_host()?;
    let tokens = sequences.ranges().map(|range| rows[range.start * width..range.end * width].to_vec());
    Ok(tokens.zip(global).map(|(tokens, global)| Encoded { tokens, global }).collect())
}

/// Each row as a vector of length one.
fn of_length_one(rows: Tensor) -> Result<Vec<Vec<f32>>> {
    let width = rows.width();
    let unit = |row: &[f32]| {
        let length = vector::dot(row, row).sqrt();
        row.iter().map(|x| x / length).collect()
    };
    Ok(rows.into_host()?.chunks_exact(width).map(unit).collect())
}

/// The directories of the encoders: Hugging Face models, one and the same or two. A modality without one is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderPaths {
    /// For texts: CLIP, SigLIP or BERT.
    pub text: Option<PathBuf>,
    /// For images: CLIP, SigLIP or ResNet.
    pub image: Option<PathBuf>,
}

impl From<&Path> for EncoderPaths {
    fn from(both: &Path) -> EncoderPaths {
        EncoderPaths { text: Some(both.into()), image: Some(both.into()) }
    }
}

/// A text and an image encoder, or one of them.
pub struct Encoders {
    /// For texts, if they are read.
    pub text: Option<TextEncoder>,
    /// For images, if they are read.
    pub image: Option<ImageEncoder>,
    /// What both compute with.
    pub precision: Precision,
}

impl Encoders {
    /// Opens the directories; the `config.json` of each says what it holds.
    pub fn open(paths: &EncoderPaths, compute: impl Into<Compute>) -> Result<Encoders> {
        let compute = compute.into();
        let text = paths.text.as_deref().map(|path| TextEncoder::open(path, &compute)).transpose()?;
        let image = paths.image.as_deref().map(|path| ImageEncoder::open(path, &compute)).transpose()?;
        Ok(Encoders { text, image, precision: compute.precision })
    }
}
