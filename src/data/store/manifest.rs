//! How the features of a store were made.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::encoder::{EncoderPaths, ExifOrientation, Precision};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::files;
use crate::model::Widths;
use crate::printable::command_line;

const FORMAT: u32 = 2;
/// Name of a store's manifest.
pub(super) const MANIFEST: &str = "manifest.json";

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
        files::expect_folder(folder, "make a feature store with `fissfuse encode`")?;
        if !Manifest::exists(folder) {
            return Err(Error::file(folder, "is no feature store (no manifest.json); make one with `fissfuse encode`"));
        }
        let fields = Fields::read(&folder.join(MANIFEST))?;
        // Another format may have other fields.
        let format = whole(&fields, "format")?;
        if format != FORMAT as usize {
            return Err(fields.error(format!("has format {format}, this version reads {FORMAT}; encode again")));
        }
        let default = Widths::default();
        Ok(Manifest {
            format: FORMAT,
            text_encoder: text(&fields, "text_encoder")?,
            image_encoder: text(&fields, "image_encoder")?,
            precision: one_of(&fields, "precision", "a precision such as `f32`")?.unwrap_or_default(),
            widths: Widths {
                text: fields.positive("text_dim", default.text)?,
                text_global: fields.positive("text_global_dim", default.text_global)?,
                image: fields.positive("image_dim", default.image)?,
                image_global: fields.positive("image_global_dim", default.image_global)?,
            },
            patches: whole(&fields, "patches")?,
            max_tokens: whole(&fields, "max_tokens")?,
            mention_template: text(&fields, "mention_template")?,
            entity_template: text(&fields, "entity_template")?,
            missing_image: one_of(&fields, "missing_image", "`white`, `zeros` or {\"file\": \"PATH\"}")?
                .ok_or_else(|| missing(&fields, "missing_image"))?,
            exif_orientation: one_of(&fields, "exif_orientation", "`ignore` or `apply`")?.unwrap_or_default(),
        })
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(folder, e.to_string()))?;
        files::write_whole(&folder.join(MANIFEST), |out| writeln!(out, "{text}"))
    }

    /// Names the settings in which two manifests differ, and which is whose, such as "in the model" and "in the store"; of other
    /// encoders, without the sizes that follow from them.
    pub fn difference(&self, other: &Manifest, [this, that]: [&str; 2]) -> Option<String> {
        let (a, b) = (serde_json::to_value(self).ok()?, serde_json::to_value(other).ok()?);
        let (a, b) = (a.as_object()?, b.as_object()?);
        let follows = |key: &str| self.is_of_others_than(other) && (key.ends_with("_dim") || key == "patches");
        let differing = a.iter().filter(|(key, value)| b.get(*key) != Some(value) && !follows(key));
        let said = |(key, value)| {
            let other = b.get(key).unwrap_or(&Value::Null);
            format!("{key} is {value} {this}, {other} {that}")
        };
        let said: Vec<String> = differing.map(said).collect();
        (!said.is_empty()).then(|| said.join("; "))
    }

    /// Whether other encoders made these features, or one that there is none of in the other.
    pub fn is_of_others_than(&self, other: &Manifest) -> bool {
        (&self.text_encoder, &self.image_encoder) != (&other.text_encoder, &other.image_encoder)
    }

    /// The command that makes features so, of the encoders in these directories, with a configuration file.
    pub fn encode_command(&self, data: &str, encoders: &EncoderPaths, config: Option<&str>, out: &str) -> String {
        let kind = |identity: &str| identity.split(['-', ':']).next().map(String::from);
        let shown = |path: &Option<PathBuf>| path.as_deref().map_or(String::new(), |path| path.display().to_string());
        let [text, image] = [&encoders.text, &encoders.image].map(shown);
        let (text, image) = (text.as_str(), image.as_str());
        let of_one_kind = kind(&self.text_encoder) == kind(&self.image_encoder);
        let (modalities, encoders) = match (self.reads_texts(), self.reads_images()) {
            (true, false) => ("text", vec!["--encoder", text]),
            (false, true) => ("image", vec!["--encoder", image]),
            _ if of_one_kind && text == image => ("both", vec!["--encoder", text]),
            _ => ("both", vec!["--text-encoder", text, "--image-encoder", image]),
        };
        let precision = self.precision.to_string();
        let config = config.map_or(Vec::new(), |path| vec!["--config", path]);
        let rest = ["--modalities", modalities, "--out", out];
        let words =
            [&["fissfuse", "encode", "--data", data], &encoders[..], &["--precision", &precision], &config, &rest];
        command_line(words.concat())
    }
}

/// What to do about a manifest that lacks something.
fn missing(fields: &Fields, key: &str) -> Error {
    fields.error(format!("is no manifest of a feature store: it has no `{key}`; encode again"))
}

/// A size that must be there.
fn whole(fields: &Fields, key: &str) -> Result<usize> {
    fields.size(key)?.ok_or_else(|| missing(fields, key))
}

/// A text that must be there.
fn text(fields: &Fields, key: &str) -> Result<String> {
    Ok(fields.text(key)?.ok_or_else(|| missing(fields, key))?.to_string())
}

/// A value out of a few, if there is one.
fn one_of<T: DeserializeOwned>(fields: &Fields, key: &str, needs: &str) -> Result<Option<T>> {
    let read = |value: &Value| T::deserialize(value).map_err(|_| fields.wrong(key, needs));
    fields.get(key).map(read).transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_manifest_is_said_by_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let good = Manifest {
            format: FORMAT,
            text_encoder: "a".into(),
            image_encoder: "b".into(),
            precision: Precision::Bf16,
            widths: Widths { text: 1, text_global: 2, image: 3, image_global: 4 },
            patches: 5,
            max_tokens: 6,
            mention_template: "{mention}".into(),
            entity_template: "{name}".into(),
            missing_image: MissingImage::File("white.png".into()),
            exif_orientation: ExifOrientation::Apply,
        };
        good.write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), good);
        let path = folder.path().join(MANIFEST);
        let written: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for (key, value, says) in [
            ("format", json!(1), "has format 1, this version reads 2; encode again"),
            ("format", json!("2"), "`format` is `2`, needs a whole number"),
            ("text_encoder", json!(3), "`text_encoder` is 3, needs a text"),
            (
                "image_encoder",
                json!(null),
                "is no manifest of a feature store: it has no `image_encoder`; encode again",
            ),
            ("precision", json!("f99"), "`precision` is `f99`, needs a precision such as `f32`"),
            ("text_dim", json!("wide"), "`text_dim` is `wide`, needs a whole number"),
            ("image_dim", json!(0), "`image_dim` is 0, needs a size of at least 1"),
            ("patches", json!(-1), "`patches` is -1, needs a whole number"),
            ("max_tokens", json!(1u64 << 40), "`max_tokens` is 1099511627776, needs a size that makes sense"),
            (
                "missing_image",
                json!("black"),
                "`missing_image` is `black`, needs `white`, `zeros` or {\"file\": \"PATH\"}",
            ),
            ("missing_image", json!(null), "has no `missing_image`"),
            ("exif_orientation", json!(true), "`exif_orientation` is true, needs `ignore` or `apply`"),
        ] {
            let mut manifest = written.clone();
            manifest[key] = value;
            std::fs::write(&path, manifest.to_string()).unwrap();
            let error = Manifest::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains("manifest.json: ") && error.contains(says), "{error}");
        }
    }

    #[test]
    fn braces_in_a_text_are_text() {
        let mention = [("{mention}", "{sentence}"), ("{sentence}", "a {mention} b")];
        assert_eq!(fill("{mention}. {sentence}", mention), "{sentence}. a {mention} b");
        assert_eq!(fill("{sentence}{sentence} of {mention}", mention), "a {mention} ba {mention} b of {sentence}");
        assert_eq!(fill(" plain {name ", [("{name}", "x"), ("{description}", "y")]), "plain {name");
    }
}
