//! How the features of a store were made.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::encoder::{ExifOrientation, Precision};
use crate::error::{Error, Result};
use crate::files;
use crate::model::Widths;

const FORMAT: u32 = 2;
const MANIFEST: &str = "manifest.json";

/// What stands in for an image that is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MissingImage {
    /// A white image.
    #[default]
    White,
    /// Features of zero.
    Zeros,
    /// This image file.
    File(PathBuf),
}

/// The identity of an encoder that there is none of: its modality is not read.
const NO_ENCODER: &str = "none";

/// How the features of a store were made. Stores with different manifests do not mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the store's layout.
    pub format: u32,
    /// Kind and fingerprint of the text encoder's files.
    pub text_encoder: String,
    /// Kind and fingerprint of the image encoder's files.
    pub image_encoder: String,
    /// What both computed with.
    #[serde(default)]
    pub precision: Precision,
    /// Widths of the four features.
    #[serde(flatten)]
    pub widths: Widths,
    /// Image patches of an image.
    pub patches: usize,
    /// Most tokens of a text.
    pub max_tokens: usize,
    /// How a mention becomes a text: `{mention}`, `{sentence}`.
    pub mention_template: String,
    /// How an entity becomes a text: `{name}`, `{description}`.
    pub entity_template: String,
    /// What stands in for a missing image.
    pub missing_image: MissingImage,
    /// Whether images' EXIF entries turned them.
    #[serde(default)]
    pub exif_orientation: ExifOrientation,
}

/// Puts texts into the places of a template, in one pass: braces within a text are text.
fn fill(template: &str, places: [(&str, &str); 2]) -> String {
    let (mut filled, mut rest) = (String::new(), template);
    let first = |rest: &str| {
        let found = places.iter().filter_map(|(place, text)| Some((rest.find(place)?, place.len(), *text)));
        found.min_by_key(|(at, ..)| *at)
    };
    while let Some((at, length, text)) = first(rest) {
        filled.extend([&rest[..at], text]);
        rest = &rest[at + length..];
    }
    (filled + rest).trim().to_string()
}

impl Manifest {
    /// The version this code writes.
    pub const FORMAT: u32 = FORMAT;

    /// The text of a mention.
    pub fn mention_text(&self, mention: &str, sentence: &str) -> String {
        fill(&self.mention_template, [("{mention}", mention), ("{sentence}", sentence)])
    }

    /// The text of an entity.
    pub fn entity_text(&self, name: &str, description: &str) -> String {
        fill(&self.entity_template, [("{name}", name), ("{description}", description)])
    }

    /// Kind and fingerprint of an encoder, or that there is none.
    pub fn identity(encoder: Option<&str>) -> String {
        encoder.unwrap_or(NO_ENCODER).to_string()
    }

    /// Whether the store holds features of texts.
    pub fn reads_texts(&self) -> bool {
        self.text_encoder != NO_ENCODER
    }

    /// Whether the store holds features of images.
    pub fn reads_images(&self) -> bool {
        self.image_encoder != NO_ENCODER
    }

    /// Key of a text's features; without an encoder, all texts share one blank.
    pub fn text_key(&self, text: &str) -> u128 {
        super::text_key(if self.reads_texts() { text } else { "" })
    }

    /// Key of an image's features; without an encoder, all images share one blank.
    pub fn image_key(&self, path: Option<&str>) -> u128 {
        super::image_key(path.filter(|_| self.reads_images()))
    }

    /// Whether a folder has a manifest.
    pub fn exists(folder: &Path) -> bool {
        folder.join(MANIFEST).exists()
    }

    /// Reads the manifest of a store.
    pub fn read(folder: &Path) -> Result<Manifest> {
        let path = folder.join(MANIFEST);
        if !Manifest::exists(folder) {
            return Err(Error::file(folder, "is no feature store (no manifest.json); make one with `fissfuse encode`"));
        }
        let refuse = |reason: String| Error::file(&path, reason);
        let unreadable = |e: serde_json::Error| refuse(format!("is no manifest of a feature store: {e}"));
        // Another format may have other fields.
        let manifest: serde_json::Value = serde_json::from_str(&files::read_text(&path)?).map_err(unreadable)?;
        match manifest.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format != u64::from(FORMAT) => {
                Err(refuse(format!("has format {format}, this version reads {FORMAT}; encode again")))
            }
            _ => serde_json::from_value(manifest).map_err(unreadable),
        }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(folder, e.to_string()))?;
        files::write_whole(&folder.join(MANIFEST), |out| writeln!(out, "{text}"))
    }

    /// Names the first setting in which two manifests differ.
    pub fn difference(&self, other: &Manifest) -> Option<String> {
        let (a, b) = (serde_json::to_value(self).ok()?, serde_json::to_value(other).ok()?);
        let (a, b) = (a.as_object()?, b.as_object()?);
        a.iter().find(|(key, value)| b.get(*key) != Some(value)).map(|(key, value)| {
            format!("{key} is {value} in the one, {} in the other", b.get(key).unwrap_or(&serde_json::Value::Null))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_in_a_text_are_text() {
        let mention = [("{mention}", "{sentence}"), ("{sentence}", "a {mention} b")];
        assert_eq!(fill("{mention}. {sentence}", mention), "{sentence}. a {mention} b");
        assert_eq!(fill("{sentence}{sentence} of {mention}", mention), "a {mention} ba {mention} b of {sentence}");
        assert_eq!(fill(" plain {name ", [("{name}", "x"), ("{description}", "y")]), "plain {name");
    }
}
