//! Pairs of an image and a text, from a file of one JSON object per line.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use indicatif::ProgressBar;
use rand::Rng;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_128;

use crate::bytes::Bytes;
use crate::data::{parse_records, record_error, relative};
use crate::encoder::clip::ClipFiles;
use crate::encoder::{ExifOrientation, ImageProcessor, image_header};
use crate::error::{Error, Result};
use crate::files;
use crate::interrupt;
use crate::random::{Purpose, generator};

/// What is said where a signal ends the reading of pairs.
fn not_begun() -> String {
    "training has not begun, and nothing is kept".into()
}

#[derive(Deserialize)]
struct Record {
    image: Option<String>,
    text: Option<String>,
}

/// Pairs as they are read.
#[derive(Debug)]
pub struct Pairs {
    path: PathBuf,
    /// Each image once, in the order of the first pair that has it.
    images: Vec<ImageFile>,
    /// Of each image.
    texts: Vec<Vec<String>>,
    checksum: u128,
}

/// An image, and the line of the first pair that has it.
#[derive(Debug)]
struct ImageFile {
    path: PathBuf,
    line: usize,
}

impl Pairs {
    /// Reads `{"image": PATH, "text": TEXT}` of each line; paths are relative to `folder` and stay in it, and every image must be
    /// there.
    pub fn read(path: &Path, folder: &Path) -> Result<Pairs> {
        let text = files::read_text(path);
        let advice = r#"pairs are lines of {"image": PATH, "text": TEXT} (docs/pretraining.md)"#;
        let text = text.map_err(|error| error.if_missing(advice))?;
        let checksum = xxh3_128(text.as_bytes());
        let (mut numbers, mut images, mut texts) = (HashMap::new(), Vec::new(), Vec::<Vec<String>>::new());
        for (line, record) in parse_records::<Record>(path, &text) {
            let wrong = |reason: String| Err(record_error(path, line, reason));
            let Record { image, text } = record?;
            let Some(image) = image.filter(|image| !image.is_empty()) else {
                return wrong("has no `image`; every pair needs one, by its path in --images".into());
            };
            let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
                return wrong("has no `text`; every pair needs one".into());
            };
            // However it is written, an image is one: two of its texts must not be in one batch.
            let image: PathBuf = match relative(&image) {
                Ok(path) => path.components().filter(|part| *part != Component::CurDir).collect(),
                Err(reason) => return wrong(format!("{reason}; `image` is a path in --images")),
            };
            let at = *numbers.entry(image.clone()).or_insert(images.len());
            if at == images.len() {
                interrupt::check(not_begun)?;
                let path = folder.join(image);
                if let Err(error) = image_header(&path) {
                    return wrong(error.to_string());
                }
                images.push(ImageFile { path, line });
                texts.push(Vec::new());
            }
            texts[at].push(text);
        }
        if images.len() < 2 {
            let found = images.len();
            return Err(Error::file(
                path,
                format!("has pairs of {found} images; each is told from others, so two at least are needed"),
            ));
        }
        Ok(Pairs { path: path.to_path_buf(), images, texts, checksum })
    }

    /// All texts, as a tokenizer learns its words from.
    pub fn texts(&self) -> impl Iterator<Item = &str> + Send {
        self.texts.iter().flatten().map(String::as_str)
    }

    /// Number of images and of texts.
    pub fn counts(&self) -> (usize, usize) {
        (self.images.len(), self.texts.iter().map(Vec::len).sum())
    }

    /// The same as the model takes them. Images are prepared now and kept if all of them take at most so many bytes, or
    /// else again and again; all of them are read now.
    pub fn prepare(self, files: &ClipFiles, most_bytes: usize, bar: &ProgressBar) -> Result<PreparedPairs> {
        let all: Vec<&str> = self.texts().collect();
        let mut tokens = files.tokens(&all)?.into_iter();
        let texts = self.texts.iter().map(|texts| tokens.by_ref().take(texts.len()).collect()).collect();
        let size = files.processor.size();
        let bytes = self.images.len().saturating_mul(3 * size * size * size_of::<f32>());
        bar.set_length(self.images.len() as u64);
        let kept = bytes <= most_bytes;
        if !kept {
            tracing::warn!(
                "{}: its images take {} as the model reads them, more than is left of half of the free memory; each is \
                 prepared anew in each epoch",
                self.path.display(),
                Bytes::of(bytes)
            );
        }
        let source = Source { pairs: self.path, processor: files.processor.clone(), images: self.images };
        let read = |image: &ImageFile| {
            interrupt::check(not_begun)?;
            bar.inc(1);
            let prepared = if kept { source.prepare(image)? } else { Vec::new() };
            Ok((source.checksum(image)?, prepared))
        };
        let (mut all, images): (Vec<u128>, Vec<Vec<f32>>) =
            source.images.par_iter().map(read).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        bar.finish_and_clear();
        all.push(self.checksum);
        let checksum = format!("{:032x}", xxh3_128(bytemuck::cast_slice(&all)));
        let images = if kept { Images::Kept(images) } else { Images::Read(source) };
        Ok(PreparedPairs { images, texts, checksum })
    }
}

/// Where images come from.
struct Source {
    /// The file of the pairs.
    pairs: PathBuf,
    images: Vec<ImageFile>,
    processor: ImageProcessor,
}

impl Source {
    /// An image as the model takes it.
    fn prepare(&self, image: &ImageFile) -> Result<Vec<f32>> {
        let prepared = self.processor.prepare(&image.path, ExifOrientation::Ignore);
        prepared.map_err(|error| record_error(&self.pairs, image.line, error.to_string()))
    }

    /// Tells an image's file from another's.
    fn checksum(&self, image: &ImageFile) -> Result<u128> {
        let bytes = std::fs::read(&image.path).map_err(Error::io(&image.path, "read"));
        Ok(xxh3_128(&bytes.map_err(|error| record_error(&self.pairs, image.line, error.to_string()))?))
    }
}

/// Images as the model takes them, each with the tokens of its texts.
pub struct PreparedPairs {
    images: Images,
    texts: Vec<Vec<Vec<u32>>>,
    checksum: String,
}

enum Images {
    Kept(Vec<Vec<f32>>),
    Read(Source),
}

impl PreparedPairs {
    /// A checksum of the pairs and of their images' files.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// Bytes of the images that are kept.
    pub fn image_bytes(&self) -> usize {
        match &self.images {
            Images::Kept(images) => images.iter().map(|image| size_of_val(&image[..])).sum(),
            Images::Read(_) => 0,
        }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Each image with one of its texts, in an order drawn by seed, as many together as a batch has. Images are in one
    /// batch once, so that no text of an image is among its negatives. What fills no batch waits for another epoch.
    pub fn epoch(&self, seed: u64, epoch: u64, batch_size: usize) -> Vec<Vec<(usize, usize)>> {
        let mut rng = generator(seed, Purpose::EpochOrder, epoch);
        let mut pairs: Vec<(usize, usize)> =
            self.texts.iter().enumerate().map(|(image, texts)| (image, rng.random_range(0..texts.len()))).collect();
        pairs.shuffle(&mut rng);
        pairs.chunks_exact(batch_size.min(pairs.len())).map(<[_]>::to_vec).collect()
    }

    /// Tokens of a text of an image.
    pub fn text(&self, (image, text): (usize, usize)) -> &[u32] {
        &self.texts[image][text]
    }

    /// The texts of each image.
    pub fn texts(&self) -> &[Vec<Vec<u32>>] {
        &self.texts
    }

    /// Calls `f` with images by their numbers.
    pub fn with_images<T>(&self, numbers: &[usize], f: impl FnOnce(&[&[f32]]) -> Result<T>) -> Result<T> {
        match &self.images {
            Images::Kept(images) => f(&numbers.iter().map(|&i| &images[i][..]).collect::<Vec<_>>()),
            Images::Read(source) => {
                let prepare = |&i: &usize| source.prepare(&source.images[i]);
                let images = numbers.par_iter().map(prepare).collect::<Result<Vec<_>>>()?;
                f(&images.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
        }
    }
}
