//! Frozen encoders: texts and images to token states and a global vector.

pub mod clip;
mod directory;
mod image;
mod layers;
mod resample;
mod text;

use std::path::Path;

pub use self::image::{ImageProcessor, image_size, read_image};
pub use directory::Fingerprint;
pub use text::Tokenizer;

use crate::error::{Error, Result};
use crate::files;

/// What an encoder says about one text or image.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// States of its tokens or patches (length, width).
    pub tokens: Vec<f32>,
    /// Its global vector.
    pub global: Vec<f32>,
}

/// Encodes texts.
pub trait TextEncoder: Send + Sync {
    /// Kind and fingerprint, as a store's manifest records it.
    fn identity(&self) -> String;

    /// Widths of token states and of the global vector.
    fn widths(&self) -> (usize, usize);

    /// Encodes texts, each cut to `max_tokens` and else at its own length.
    fn encode_texts(&self, texts: &[&str], max_tokens: usize) -> Result<Vec<Encoded>>;
}

/// Encodes images.
pub trait ImageEncoder: Send + Sync {
    /// Kind and fingerprint, as a store's manifest records it.
    fn identity(&self) -> String;

    /// Widths of patch states and of the global vector.
    fn widths(&self) -> (usize, usize);

    /// Number of patch states of every image.
    fn patches(&self) -> usize;

    /// How a decoded image becomes the encoder's input.
    fn processor(&self) -> &ImageProcessor;

    /// Encodes images that the processor prepared.
    fn encode_images(&self, pixels: &[Vec<f32>]) -> Result<Vec<Encoded>>;
}

/// A text and an image encoder.
pub struct Encoders {
    /// For texts.
    pub text: Box<dyn TextEncoder>,
    /// For images.
    pub image: Box<dyn ImageEncoder>,
}

impl Encoders {
    /// Opens a Hugging Face directory; its `config.json` says what it holds.
    pub fn open(folder: &Path) -> Result<Encoders> {
        let path = folder.join("config.json");
        if !path.exists() {
            let reason = "has no config.json; give the directory of a Hugging Face model";
            return Err(Error::file(folder, reason));
        }
        let config: serde_json::Value = serde_json::from_str(&files::read_text(&path)?)
            .map_err(|e| Error::file(&path, format!("is no JSON: {e}")))?;
        match config.get("model_type").and_then(|m| m.as_str()) {
            Some("clip") => {
                let clip = std::sync::Arc::new(clip::Clip::open(folder)?);
                Ok(Encoders { text: Box::new(clip.clone()), image: Box::new(clip) })
            }
            other => {
                let found = other.map_or("no model_type".into(), |m| format!("model_type `{m}`"));
                Err(Error::file(&path, format!("has {found}; this version reads `clip`")))
            }
        }
    }
}
