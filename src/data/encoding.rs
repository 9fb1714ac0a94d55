//! Encoding a dataset into a feature store: each text and image once, in shards, resuming where it stopped.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use image::{Rgb, RgbImage};
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::store::{Kind, Manifest, MissingImage, Stamp, StoreWriter, image_key, text_key};
use super::{Dataset, Entity, Mention, Skipped, Split, Tolerance};
use crate::encoder::{Encoded, Encoders, Precision, read_image};
use crate::error::{Error, Result};
use crate::model::Widths;

/// Texts or images that are prepared together and then encoded together.
const GROUP: usize = 128;

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
            text_encoder: None,
            image_encoder: None,
            precision: None,
        }
    }
}

impl EncodeSettings {
    /// The settings with which a store was made.
    pub fn of(manifest: &Manifest) -> EncodeSettings {
        let Manifest { max_tokens, mention_template, entity_template, missing_image, .. } = manifest.clone();
        EncodeSettings { max_tokens, mention_template, entity_template, missing_image, ..EncodeSettings::default() }
    }

    /// What a store made with these encoders and settings records.
    pub fn manifest(&self, encoders: &Encoders) -> Manifest {
        let ((text, text_global), (image, image_global)) = (encoders.text.widths(), encoders.image.widths());
        let EncodeSettings { max_tokens, mention_template, entity_template, missing_image, .. } = self.clone();
        Manifest {
            format: Manifest::FORMAT,
            text_encoder: encoders.text.identity().into(),
            image_encoder: encoders.image.identity().into(),
            precision: encoders.precision,
            widths: Widths { text, text_global, image, image_global },
            patches: encoders.image.patches(),
            max_tokens,
            mention_template,
            entity_template,
            missing_image,
        }
    }
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
}

/// Encodes all texts and images of a dataset that `folder` does not have yet.
pub fn encode(
    dataset: &Dataset,
    encoders: &Encoders,
    settings: &EncodeSettings,
    folder: &Path,
    tolerance: Tolerance,
    skipped: &mut Skipped,
    bar: &ProgressBar,
) -> Result<EncodeReport> {
    let mut run = Run::open(dataset.root(), encoders, settings, folder, tolerance)?;
    run.collect_entities(dataset.entities());
    for split in Split::ALL.into_iter().filter(|&split| dataset.has(split)) {
        run.collect_mentions(&dataset.mentions(split, skipped)?);
    }
    run.finish(skipped, bar)
}

/// Encodes the texts and images of some entities, which `folder` may not have yet. `root` is the folder that their images
/// are relative to.
pub fn encode_entities(
    (root, entities): (&Path, &[Entity]),
    encoders: &Encoders,
    settings: &EncodeSettings,
    folder: &Path,
    tolerance: Tolerance,
    skipped: &mut Skipped,
    bar: &ProgressBar,
) -> Result<EncodeReport> {
    let mut run = Run::open(root, encoders, settings, folder, tolerance)?;
    run.collect_entities(entities);
    run.finish(skipped, bar)
}

struct Run<'a> {
    writer: StoreWriter,
    manifest: Manifest,
    root: &'a Path,
    encoders: &'a Encoders,
    settings: &'a EncodeSettings,
    tolerance: Tolerance,
    work: Work,
    /// Features of the stand-in for missing images, once they are known.
    stand_in: Option<Encoded>,
    report: EncodeReport,
}

/// What the store lacks, in the order it is first used.
#[derive(Default)]
struct Work {
    texts: Vec<String>,
    images: Vec<ImageFile>,
    seen: HashSet<u128>,
}

/// An image of the dataset and the state of its file; no stamp if there is none.
struct ImageFile {
    name: String,
    stamp: Option<Stamp>,
}

impl<'a> Run<'a> {
    fn open(
        root: &'a Path,
        encoders: &'a Encoders,
        settings: &'a EncodeSettings,
        folder: &Path,
        tolerance: Tolerance,
    ) -> Result<Run<'a>> {
        let manifest = settings.manifest(encoders);
        let writer = StoreWriter::open(folder, manifest.clone())?;
        let (work, report) = (Work::default(), EncodeReport::default());
        Ok(Run { writer, manifest, root, encoders, settings, tolerance, work, stand_in: None, report })
    }

    fn collect_entities(&mut self, entities: &[Entity]) {
        for entity in entities {
            let text = self.manifest.entity_text(&entity.name, &entity.description);
            self.need(text, entity.image.as_deref());
        }
    }

    fn collect_mentions(&mut self, mentions: &[Mention]) {
        for mention in mentions {
            let text = self.manifest.mention_text(&mention.mention, &mention.sentence);
            self.need(text, mention.image.as_deref());
        }
    }

    /// Encodes what was collected.
    fn finish(mut self, skipped: &mut Skipped, bar: &ProgressBar) -> Result<EncodeReport> {
        let Work { texts, images, .. } = std::mem::take(&mut self.work);
        bar.set_length((texts.len() + images.len()) as u64);
        let key = image_key(None);
        if !self.writer.has(Kind::Image, key, Stamp::default()) {
            let encoded = self.stand_in()?.clone();
            self.writer.add(Kind::Image, key, &encoded, Stamp::default())?;
        }
        for group in texts.chunks(GROUP) {
            self.encode_texts(group)?;
            bar.inc(group.len() as u64);
        }
        self.encode_images(&images, skipped, bar)?;
        self.writer.finish()?;
        Ok(self.report)
    }

    fn need(&mut self, text: String, image: Option<&str>) {
        let (work, key) = (&mut self.work, text_key(&text));
        if work.seen.insert(key) {
            if self.writer.has(Kind::Text, key, Stamp::default()) {
                self.report.reused += 1;
            } else {
                work.texts.push(text);
            }
        }
        let Some(name) = image else {
            self.report.without_image += 1;
            return;
        };
        // An image's name may be the same string as a text.
        if work.seen.insert(!image_key(Some(name))) {
            let stamp = stamp_of(&self.root.join(name));
            if stamp.is_some_and(|stamp| self.writer.has(Kind::Image, image_key(Some(name)), stamp)) {
                self.report.reused += 1;
            } else {
                work.images.push(ImageFile { name: name.to_string(), stamp });
            }
        }
    }

    fn encode_texts(&mut self, texts: &[String]) -> Result<()> {
        let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
        let encoded = self.encoders.text.encode_texts(&borrowed, self.settings.max_tokens)?;
        for (text, encoded) in texts.iter().zip(&encoded) {
            self.writer.add(Kind::Text, text_key(text), encoded, Stamp::default())?;
        }
        self.report.texts += texts.len();
        Ok(())
    }

    /// Encodes images group by group, while another thread reads and prepares the next one with all cores.
    fn encode_images(&mut self, images: &[ImageFile], skipped: &mut Skipped, bar: &ProgressBar) -> Result<()> {
        let (root, processor) = (self.root, self.encoders.image.processor());
        let prepare = |image: &ImageFile| processor.process(read_image(&root.join(&image.name))?);
        std::thread::scope(|scope| {
            let (send, receive) = std::sync::mpsc::sync_channel(1);
            scope.spawn(move || {
                let prepared = |group: &[ImageFile]| group.par_iter().map(prepare).collect::<Vec<_>>();
                // It ends early where the encoding below failed and nobody receives.
                images.chunks(GROUP).all(|group| send.send(prepared(group)).is_ok())
            });
            for (group, prepared) in images.chunks(GROUP).zip(receive) {
                self.encode_prepared(group, prepared, skipped)?;
                bar.inc(group.len() as u64);
            }
            Ok(())
        })
    }

    fn encode_prepared(
        &mut self,
        images: &[ImageFile],
        prepared: Vec<Result<Vec<f32>>>,
        skipped: &mut Skipped,
    ) -> Result<()> {
        let (mut good, mut pixels) = (Vec::new(), Vec::new());
        for (image, prepared) in images.iter().zip(prepared) {
            match prepared {
                Ok(prepared) => {
                    good.push(image);
                    pixels.push(prepared);
                }
                Err(error) => {
                    skipped.take(self.tolerance, error)?;
                    self.report.bad_images += 1;
                    let encoded = self.stand_in()?.clone();
                    self.writer.add(Kind::Image, image_key(Some(&image.name)), &encoded, Stamp::default())?;
                }
            }
        }
        let encoded = self.encoders.image.encode_images(&pixels)?;
        for (image, encoded) in good.iter().zip(&encoded) {
            let stamp = image.stamp.unwrap_or_default();
            self.writer.add(Kind::Image, image_key(Some(&image.name)), encoded, stamp)?;
        }
        self.report.images += good.len();
        Ok(())
    }

    /// Features of the stand-in for missing images.
    fn stand_in(&mut self) -> Result<&Encoded> {
        let encoded = match self.stand_in.take() {
            Some(encoded) => encoded,
            None => self.encode_stand_in()?,
        };
        Ok(self.stand_in.insert(encoded))
    }

    fn encode_stand_in(&self) -> Result<Encoded> {
        let image = match &self.settings.missing_image {
            MissingImage::Zeros => {
                let (width, global) = self.encoders.image.widths();
                let tokens = vec![0.0; self.encoders.image.patches() * width];
                return Ok(Encoded { tokens, global: vec![0.0; global] });
            }
            MissingImage::White => RgbImage::from_pixel(224, 224, Rgb([255; 3])),
            MissingImage::File(path) => read_image(path)?,
        };
        let pixels = self.encoders.image.processor().process(image)?;
        let mut encoded = self.encoders.image.encode_images(&[pixels])?;
        encoded.pop().ok_or_else(|| Error::invalid("the image encoder gave nothing"))
    }
}

/// Size and modification time of a file.
fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    let time = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some([metadata.len(), time.as_nanos() as u64])
}
