//! Encoding a dataset into a feature store: each text and image once, in shards, resuming where it stopped.

mod pipeline;
mod run;

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use self::run::Run;
use super::store::{Manifest, MissingImage, image_key, text_key};
use super::{Dataset, Entity, Mention, Skipped, Split, Tolerance};
use crate::encoder::{Encoded, Encoders, ExifOrientation, Precision};
use crate::error::{Error, Result};
use crate::model::Widths;
use crate::shard::Shard;

/// How texts are made and what stands in for missing images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncodeSettings {
    /// Most tokens of a text.
    pub max_tokens: usize,
    /// A mention's text, of `{mention}` and `{sentence}`.
    pub mention_template: String,
    /// An entity's text, of `{name}` and `{description}`.
    pub entity_template: String,
    /// What stands in for a missing image.
    pub missing_image: MissingImage,
    /// Whether an image's EXIF entry turns it.
    pub exif_orientation: ExifOrientation,
    /// Hugging Face directory of the text encoder.
    pub text_encoder: Option<PathBuf>,
    /// Hugging Face directory of the image encoder.
    pub image_encoder: Option<PathBuf>,
    /// What the encoders compute with; else the faster one on this processor.
    pub precision: Option<Precision>,
}

impl Default for EncodeSettings {
    fn default() -> EncodeSettings {
        EncodeSettings {
            max_tokens: 64,
            mention_template: "{mention}. {sentence}".into(),
            entity_template: "{name}. {description}".into(),
            missing_image: MissingImage::White,
            exif_orientation: ExifOrientation::Ignore,
            text_encoder: None,
            image_encoder: None,
            precision: None,
        }
    }
}

impl EncodeSettings {
    /// The settings with which a store was made.
    pub fn of(manifest: &Manifest) -> EncodeSettings {
        let Manifest { max_tokens, mention_template, entity_template, missing_image, exif_orientation, .. } =
            manifest.clone();
        EncodeSettings {
            max_tokens,
            mention_template,
            entity_template,
            missing_image,
            exif_orientation,
            ..EncodeSettings::default()
        }
    }

    /// Fails if a template has no place for a text, or one for a text that there is not, or if encoders do not compute in the
    /// precision.
    pub fn check(&self) -> Result<()> {
        if let Some(precision @ (Precision::F16 | Precision::Int8 | Precision::Int4)) = self.precision {
            return Err(Error::invalid(format!("encode: precision = \"{precision}\": must be \"f32\" or \"bf16\"")));
        }
        for (setting, template, places) in [
            ("mention_template", &self.mention_template, ["{mention}", "{sentence}"]),
            ("entity_template", &self.entity_template, ["{name}", "{description}"]),
        ] {
            let rest = template.replace(places[0], " ").replace(places[1], " ");
            if rest == *template || rest.contains(['{', '}']) {
                let [first, second] = places;
                let reason =
                    format!("encode: {setting} = {template:?}: must hold {first} or {second}, and no other braces");
                return Err(Error::invalid(reason));
            }
        }
        Ok(())
    }

    /// What a store made with these encoders and settings records.
    pub fn manifest(&self, encoders: &Encoders) -> Manifest {
        // A modality without an encoder has one blank of one number for all its items.
        let (text, text_global) = encoders.text.as_ref().map_or((1, 1), |encoder| encoder.widths());
        let (image, image_global) = encoders.image.as_ref().map_or((1, 1), |encoder| encoder.widths());
        let EncodeSettings { max_tokens, mention_template, entity_template, missing_image, exif_orientation, .. } =
            self.clone();
        Manifest {
            format: Manifest::FORMAT,
            text_encoder: Manifest::identity(encoders.text.as_ref().map(|encoder| encoder.identity())),
            image_encoder: Manifest::identity(encoders.image.as_ref().map(|encoder| encoder.identity())),
            precision: encoders.precision,
            widths: Widths { text, text_global, image, image_global },
            patches: encoders.image.as_ref().map_or(1, |encoder| encoder.patches()),
            max_tokens,
            mention_template,
            entity_template,
            missing_image,
            exif_orientation,
        }
    }
}

/// Features of every item of a modality that has no encoder.
pub fn blank() -> Encoded {
    Encoded { tokens: vec![0.0], global: vec![0.0] }
}

/// What an encoding run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeReport {
    /// Texts encoded now.
    pub texts: usize,
    /// Images encoded now.
    pub images: usize,
    /// Texts and images that the store had already.
    pub reused: usize,
    /// Mentions and entities that name no image.
    pub without_image: usize,
    /// Image files that are missing or unreadable and were replaced by the stand-in.
    pub bad_images: usize,
    /// Distinct texts and images of all items, whether this part encodes them or another.
    pub distinct: [usize; 2],
}

/// Whose texts and images are encoded.
pub struct Items<'a> {
    /// The folder that images are relative to.
    pub root: &'a Path,
    /// Their names and descriptions make texts.
    pub entities: &'a [Entity],
    /// Of any split; their sentences make texts.
    pub mentions: Vec<Mention>,
    /// Which part of their distinct texts, and of their images, is encoded; else all.
    pub part: Option<Shard>,
}

/// What is encoded: each text and each image once, in the order they are first used.
#[derive(Debug, Default)]
pub struct Distinct {
    /// Texts; none without an encoder of texts.
    pub texts: Vec<String>,
    /// Names of images; none without an encoder of images.
    pub images: Vec<String>,
    /// Mentions and entities that name no image.
    pub without_image: usize,
}

impl Items<'_> {
    /// What a store of this manifest has to hold.
    pub fn distinct(&self, manifest: &Manifest) -> Distinct {
        let (mut distinct, mut seen) = (Distinct::default(), HashSet::new());
        let mut need = |text: String, image: Option<&str>| {
            if manifest.reads_texts() && seen.insert(text_key(&text)) {
                distinct.texts.push(text);
            }
            match image {
                None => distinct.without_image += 1,
                // An image's name may be the same string as a text.
                Some(name) if manifest.reads_images() && seen.insert(!image_key(Some(name))) => {
                    distinct.images.push(name.to_string());
                }
                Some(_) => {}
            }
        };
        for entity in self.entities {
            need(manifest.entity_text(&entity.name, &entity.description), entity.image.as_deref());
        }
        for mention in &self.mentions {
            need(manifest.mention_text(&mention.mention, &mention.sentence), mention.image.as_deref());
        }
        distinct
    }

    /// Whether any of them names an image.
    pub fn have_images(&self) -> bool {
        self.entities.iter().any(|entity| entity.image.is_some())
            || self.mentions.iter().any(|mention| mention.image.is_some())
    }
}

impl<'a> Items<'a> {
    /// All entities and mentions of a dataset.
    pub fn of(dataset: &'a Dataset, skipped: &mut Skipped) -> Result<Items<'a>> {
        let mut mentions = Vec::new();
        for split in Split::ALL.into_iter().filter(|&split| dataset.has(split)) {
            mentions.extend(dataset.mentions(split, skipped)?);
        }
        Ok(Items { root: dataset.root(), entities: dataset.entities(), mentions, part: None })
    }
}

/// Encodes the texts and images that the store in `folder` does not have yet.
pub fn encode(
    items: &Items,
    encoders: &Encoders,
    settings: &EncodeSettings,
    folder: &Path,
    tolerance: Tolerance,
    skipped: &mut Skipped,
    bar: &ProgressBar,
) -> Result<EncodeReport> {
    settings.check()?;
    Run::open(items, encoders, settings, folder, tolerance)?.encode(skipped, bar)
}
