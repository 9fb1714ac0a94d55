//! One run of the encoders over what a store lacks.

use std::collections::HashMap;
use std::path::Path;

use image::{Rgb, RgbImage};
use indicatif::ProgressBar;
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

use super::super::store::{Kind, Manifest, MissingImage, Stamp, StoreWriter, image_key, stamp_of, text_key};
use super::super::{Skipped, Tolerance};
use super::pipeline::pipeline;
use super::{EncodeReport, EncodeSettings, Items, blank};
use crate::encoder::{Encoded, Encoders, ImageEncoder, TextEncoder};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::span;
use crate::trace;

/// What is encoded, and where it goes.
pub struct Run<'a> {
    writer: StoreWriter,
    items: &'a Items<'a>,
    encoders: &'a Encoders,
    settings: &'a EncodeSettings,
    tolerance: Tolerance,
    work: Work,
    /// Features of the stand-in for missing images, once they are known.
    stand_in: Option<Encoded>,
    /// Whose each image is, once one is bad.
    image_owners: Option<HashMap<&'a str, (&'static str, &'a str)>>,
    report: EncodeReport,
}

/// What the store lacks, in the order it is first used.
#[derive(Default)]
struct Work {
    texts: Vec<String>,
    images: Vec<ImageFile>,
}

/// An image of the dataset and the state of its file; no stamp if there is none.
struct ImageFile {
    name: String,
    stamp: Option<Stamp>,
}

impl<'a> Run<'a> {
    /// Opens the store, or starts one, and sees what it lacks.
    pub fn open(
        items: &'a Items<'a>,
        encoders: &'a Encoders,
        settings: &'a EncodeSettings,
        folder: &Path,
        tolerance: Tolerance,
    ) -> Result<Run<'a>> {
        let manifest = settings.manifest(encoders);
        let writer = StoreWriter::open(folder, manifest.clone())?;
        let (work, report) = (Work::default(), EncodeReport::default());
        let mut run =
            Run { writer, items, encoders, settings, tolerance, work, stand_in: None, image_owners: None, report };
        let mut distinct = items.distinct(&manifest);
        run.report.without_image = distinct.without_image;
        run.report.distinct = [distinct.texts.len(), distinct.images.len()];
        let [texts, images] = run.report.distinct.map(|of| items.part.map_or(0..of, |part| part.range(of, 1)));
        for text in distinct.texts.drain(texts) {
            run.lacks_text(text);
        }
        for image in distinct.images.drain(images) {
            run.lacks_image(image);
        }
        Ok(run)
    }

    fn lacks_text(&mut self, text: String) {
        match self.writer.has(Kind::Text, text_key(&text), Stamp::default()) {
            true => self.report.reused += 1,
            false => self.work.texts.push(text),
        }
    }

    fn lacks_image(&mut self, name: String) {
        let stamp = std::fs::metadata(self.items.root.join(&name)).ok().and_then(|file| stamp_of(&file));
        match stamp.is_some_and(|stamp| self.writer.has(Kind::Image, image_key(Some(&name)), stamp)) {
            true => self.report.reused += 1,
            false => self.work.images.push(ImageFile { name, stamp }),
        }
    }

    /// Encodes what the store lacks.
    pub fn encode(mut self, skipped: &mut Skipped, bar: &ProgressBar) -> Result<EncodeReport> {
        let Work { texts, images, .. } = std::mem::take(&mut self.work);
        bar.set_length((texts.len() + images.len()) as u64);
        let key = image_key(None);
        if !self.writer.has(Kind::Image, key, Stamp::default()) {
            let encoded = self.stand_in()?.clone();
            let named = |e| about("the stand-in for missing images", identity(&self.encoders.image), e);
            self.writer.add(Kind::Image, key, &encoded, Stamp::default()).map_err(named)?;
        }
        let encoded = self.encode_missing(&texts, &images, skipped, bar);
        // Whoever asks to stop keeps what was encoded.
        if matches!(encoded, Ok(()) | Err(Error::Stopped { .. })) {
            self.writer.finish()?;
        }
        encoded.map(|()| self.report)
    }

    fn encode_missing(
        &mut self,
        texts: &[String],
        images: &[ImageFile],
        skipped: &mut Skipped,
        bar: &ProgressBar,
    ) -> Result<()> {
        match &self.encoders.text {
            Some(encoder) => self.encode_texts(encoder, texts, bar)?,
            None if self.writer.has(Kind::Text, text_key(""), Stamp::default()) => {}
            None => self.writer.add(Kind::Text, text_key(""), &blank(), Stamp::default())?,
        }
        match &self.encoders.image {
            Some(encoder) => self.encode_images(encoder, images, skipped, bar),
            None => Ok(()),
        }
    }

    fn encode_texts(&mut self, encoder: &TextEncoder, texts: &[String], bar: &ProgressBar) -> Result<()> {
        let mut stored = texts.iter();
        let (items, manifest) = (self.items, self.settings.manifest(self.encoders));
        let encode = |ids: Vec<Vec<u32>>| encoder.encode_ids(&ids);
        pipeline(encoder.groups(texts, self.settings.max_tokens)?, encode, |group| {
            trace::next_step();
            let _span = span!("store");
            for (encoded, text) in group.iter().zip(stored.by_ref()) {
                let named = |e| about(&whose_text(items, &manifest, text), encoder.identity(), e);
                self.writer.add(Kind::Text, text_key(text), encoded, Stamp::default()).map_err(named)?;
            }
            self.report.texts += group.len();
            bar.inc(group.len() as u64);
            interrupt::check(how_to_go_on)
        })
    }

    fn encode_images(
        &mut self,
        encoder: &ImageEncoder,
        images: &[ImageFile],
        skipped: &mut Skipped,
        bar: &ProgressBar,
    ) -> Result<()> {
        let (root, orientation) = (self.items.root, self.settings.exif_orientation);
        // Where the processor only feeds a device, what it does for the current pass must not queue behind the images of the
        // next one: those have threads of their own.
        let threads = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads());
        let threads = encoder.gpu().map(|_| threads.build()).transpose();
        let threads = threads.map_err(|e| Error::invalid(format!("cannot start threads to decode images: {e}")))?;
        let prepared = images.chunks(encoder.group()).map(|group| {
            let _span = span!("batch of images");
            let prepare = |image: &ImageFile| encoder.prepare(&root.join(&image.name), orientation);
            let all = || group.par_iter().map(prepare).collect::<Vec<_>>();
            Ok((group, threads.as_ref().map_or_else(all, |threads| threads.install(all))))
        });
        let encode = |(group, prepared): (_, Vec<Result<Vec<f32>>>)| {
            let mut pixels = Vec::with_capacity(prepared.len());
            let good = |prepared: Result<Vec<f32>>| prepared.map(|good| pixels.push(good));
            let states: Vec<Result<()>> = prepared.into_iter().map(good).collect();
            Ok((group, states, encoder.encode_images(&pixels)?))
        };
        pipeline(prepared, encode, |(group, states, encoded)| {
            trace::next_step();
            let _span = span!("store");
            self.store_images(group, states, &encoded, skipped)?;
            bar.inc(group.len() as u64);
            interrupt::check(how_to_go_on)
        })
    }

    /// Stores the features of a group's good images, and the stand-in's for the others.
    fn store_images(
        &mut self,
        group: &[ImageFile],
        states: Vec<Result<()>>,
        encoded: &[Encoded],
        skipped: &mut Skipped,
    ) -> Result<()> {
        let mut encoded = encoded.iter();
        for (image, state) in group.iter().zip(states) {
            let key = image_key(Some(&image.name));
            match state {
                Ok(()) => {
                    let encoded =
                        encoded.next().ok_or_else(|| Error::invalid("the image encoder left out an image"))?;
                    let named = |e| about(&format!("image `{}`", image.name), identity(&self.encoders.image), e);
                    self.writer.add(Kind::Image, key, encoded, image.stamp.unwrap_or_default()).map_err(named)?;
                    self.report.images += 1;
                }
                Err(error) => {
                    let owners = self.image_owners.get_or_insert_with(|| image_owners(self.items));
                    let owner = owners.get(&*image.name);
                    let owner = owner.map_or_else(|| "an item".into(), |(what, id)| format!("{what} `{id}`"));
                    skipped.take(self.tolerance, self.tolerance.of_image(&owner, error))?;
                    self.report.bad_images += 1;
                    let stand_in = self.stand_in()?.clone();
                    self.writer.add(Kind::Image, key, &stand_in, Stamp::default())?;
                }
            }
        }
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
        let Some(encoder) = &self.encoders.image else { return Ok(blank()) };
        let pixels = match &self.settings.missing_image {
            MissingImage::Zeros => {
                let (width, global) = encoder.widths();
                return Ok(Encoded { tokens: vec![0.0; encoder.patches() * width], global: vec![0.0; global] });
            }
            MissingImage::White => encoder.processor().process(RgbImage::from_pixel(224, 224, Rgb([255; 3])))?,
            MissingImage::File(path) => encoder.prepare(path, self.settings.exif_orientation)?,
        };
        encoder.encode_images(&[pixels])?.pop().ok_or_else(|| Error::invalid("the image encoder gave nothing"))
    }
}

/// Which encoder of images it is.
fn identity(encoder: &Option<ImageEncoder>) -> &str {
    encoder.as_ref().map_or("none", ImageEncoder::identity)
}

/// An error about an item's features that names it and what encoded it.
fn about(item: &str, encoder: &str, error: Error) -> Error {
    match error {
        Error::Invalid(reason) => Error::invalid(format!("{item}: {reason} (encoder {encoder})")),
        error => error,
    }
}

/// The first entity or mention that has this text: looked up where its features are refused, not kept for each.
fn whose_text(items: &Items, manifest: &Manifest, text: &str) -> String {
    let entity = items.entities.iter().find(|e| manifest.entity_text(&e.name, &e.description) == text);
    let mention = || items.mentions.iter().find(|m| manifest.mention_text(&m.mention, &m.sentence) == text);
    match entity {
        Some(entity) => format!("entity `{}`", entity.qid),
        None => mention().map_or_else(|| "a text".into(), |mention| format!("mention `{}`", mention.id)),
    }
}

/// The first entity or mention of each image, by its kind and identifier.
fn image_owners<'a>(items: &'a Items<'a>) -> HashMap<&'a str, (&'static str, &'a str)> {
    let entities = items.entities.iter().map(|entity| (&entity.image, ("entity", &*entity.qid)));
    let mentions = items.mentions.iter().map(|mention| (&mention.image, ("mention", &*mention.id)));
    let mut owners = HashMap::new();
    for (image, owner) in entities.chain(mentions) {
        if let Some(image) = image {
            owners.entry(image.as_str()).or_insert(owner);
        }
    }
    owners
}

fn how_to_go_on() -> String {
    "what was encoded is kept; the same command goes on".into()
}
