//! An encoder that is trained along with a model: features are computed in each step, of the texts and images of its mentions
//! and entities, and gradients flow back into the encoder.

mod chunks;
mod config;
mod features;
mod fitting;
mod memory;
mod step;
mod validation;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use image::{Rgb, RgbImage};
use rayon::prelude::*;

pub use config::{Along, EncoderSettings};
pub use features::Prepared;
pub use step::Gradients;
pub(super) use step::{Rates, step};
pub(super) use validation::{Candidate, directory};

use super::config::{RunConfig, TrainSettings};
use crate::data::{Counts, Dataset, EncodeSettings, Image, Inputs, Manifest, Mention, MissingImage, Sample, Tolerance};
use crate::device::cpu::available_memory;
use crate::encoder::trained::{Tuned, Tuning};
use crate::encoder::{EncoderPaths, Encoders, Precision, TrainableEncoders, image_header};
use crate::error::{Error, Result};
use crate::model::{ModelConfig, Reads, Widths};
use crate::span;

/// What a run knows of the encoder that it trains along, but for its weights.
pub struct EncoderRun<'a> {
    dataset: &'a Dataset,
    inputs: Inputs,
    files: TrainableEncoders,
    model: ModelConfig,
    settings: EncoderSettings,
    tuning: Tuning,
    train: TrainSettings,
    encode: EncodeSettings,
    tolerance: Tolerance,
    /// What stands in for a missing image, as the encoder takes it.
    stand_in: Arc<Vec<f32>>,
    images: Mutex<Images>,
    /// What was bad and left out, each once.
    skipped: Mutex<BTreeSet<String>>,
    /// Mentions to validate with.
    valid: Vec<Mention>,
    /// Weights that training starts from, until it does.
    start: Option<Tuned>,
}

/// Images as the encoder takes them.
struct Images {
    kept: HashMap<u32, Arc<Vec<f32>>>,
    /// How many may be kept.
    most: usize,
    /// Those that could not be read, which was said.
    bad: HashSet<u32>,
}

impl<'a> EncoderRun<'a> {
    /// Of the encoders in Hugging Face directories, on the texts and images of a dataset.
    pub fn open(paths: &EncoderPaths, config: &RunConfig, dataset: &'a Dataset, tolerance: Tolerance) -> Result<Self> {
        let RunConfig { model, encode, train, encoder: settings } = config.clone();
        settings.check()?;
        encode.check()?;
        // What a model reads does not depend on widths.
        let reads = model.with_widths(Widths::default()).reads();
        let files = fitting::read(paths, reads)?;
        let parameters = files.parameters();
        fitting::expect_fit(&files, &settings)?;
        let tuning = Tuning {
            towers: [reads.text, reads.image],
            freeze_layers: settings.freeze_layers,
            lora_rank: settings.lora_rank,
            lora_alpha: settings.lora_alpha,
            seed: train.seed,
        };
        memory::expect_room(&parameters, &tuning)?;
        let encode = EncodeSettings { precision: encode.precision.or(Some(Precision::F32)), ..encode };
        let read = of_what_is_read(paths.clone(), reads);
        let manifest = encode.manifest(&Encoders::open(&read, encode.precision.unwrap_or_default())?);
        let model = model.for_features(&manifest)?;
        let start = Tuned::new(&parameters, files.weights()?, &tuning)?;
        let stand_in = match (files.processor(), &encode.missing_image) {
            (None, _) => Vec::new(),
            (Some(processor), MissingImage::White) => {
                processor.process(RgbImage::from_pixel(224, 224, Rgb([255; 3])))?
            }
            (Some(processor), MissingImage::File(path)) => processor.prepare(path, encode.exif_orientation)?,
            // Of which nothing is read.
            (Some(processor), MissingImage::Zeros) => vec![0.0; 3 * processor.size().pow(2)],
        };
        // A quarter of what is free is left to images.
        let most = available_memory().map_or(usize::MAX, |free| free / 4) / (size_of::<f32>() * stand_in.len()).max(1);
        let images = Mutex::new(Images { kept: HashMap::new(), most, bad: HashSet::new() });
        Ok(EncoderRun {
            inputs: Inputs::new(dataset, manifest),
            dataset,
            files,
            model,
            settings,
            tuning,
            train,
            encode,
            tolerance,
            stand_in: Arc::new(stand_in),
            images,
            skipped: Mutex::default(),
            valid: Vec::new(),
            start: Some(start),
        })
    }

    /// The model that is trained on its features.
    pub fn model(&self) -> &ModelConfig {
        &self.model
    }

    /// How the encoder is trained.
    pub fn settings(&self) -> &EncoderSettings {
        &self.settings
    }

    /// What of it makes weights what they are.
    pub fn along(&self) -> Along {
        Along { settings: self.settings.clone(), two_encoders: self.files.are_two() }
    }

    /// Where the encoders of what the model reads are in the folder of a run that kept an epoch.
    pub fn kept(&self, run: &Path) -> EncoderPaths {
        of_what_is_read(self.files.written(&directory(run)), self.model.reads())
    }

    /// How features of the encoder that training starts from would be made.
    pub fn manifest(&self) -> &Manifest {
        self.inputs.manifest()
    }

    /// Samples to train on. Fails if an image of theirs or of their candidates is none, so that no epoch ends by it.
    pub fn train(&mut self, mentions: &[Mention]) -> Result<(Vec<Sample>, Counts)> {
        let (samples, counts) = self.inputs.samples(mentions, self.train.seed, self.train.gold_missing)?;
        if self.model.reads().image && self.tolerance != Tolerance::Skip {
            let names = self.inputs.batch(&samples)?.distinct;
            let check = |&number: &u32| match self.inputs.image(number) {
                Some(Image { name, owner }) => image_header(&self.inputs.root().join(name))
                    .map(drop)
                    .map_err(|error| self.tolerance.of_image(owner, error)),
                None => Ok(()),
            };
            names[1].par_iter().try_for_each(check)?;
        }
        Ok((samples, counts))
    }

    /// Samples to validate with.
    pub fn valid(&mut self, mentions: Vec<Mention>) -> Result<(Vec<Sample>, Counts)> {
        let samples = self.train(&mentions);
        self.valid = mentions;
        samples
    }

    /// The weights that training starts from, on the host: once.
    pub fn take_start(&mut self) -> Result<Tuned> {
        self.start.take().ok_or_else(|| Error::invalid("an encoder starts one run"))
    }

    /// The texts and images of a batch as the encoder takes them.
    pub fn prepare(&self, samples: &[Sample]) -> Result<Prepared> {
        let batch = self.inputs.batch(samples)?;
        let [texts, images] = &batch.distinct;
        let [reads_texts, reads_images] = [self.model.reads().text, self.model.reads().image];
        let ids = if reads_texts { self.tokens(texts)? } else { Vec::new() };
        let _span = span!("batch of images");
        let image = |&number: &u32| self.image(number);
        let pixels = if reads_images { images.par_iter().map(image).collect::<Result<_>>()? } else { Vec::new() };
        Ok(Prepared { batch, ids, pixels })
    }

    fn tokens(&self, texts: &[u32]) -> Result<Vec<Vec<u32>>> {
        let _span = span!("tokens");
        let texts: Vec<&str> = texts.iter().map(|&number| self.inputs.text(number)).collect();
        self.files.tokens_at_most(&texts, self.encode.max_tokens)
    }

    /// An image, or what stands in for it; `None` where that is features of zero.
    fn image(&self, number: u32) -> Result<Option<Arc<Vec<f32>>>> {
        let stand_in = (self.encode.missing_image != MissingImage::Zeros).then(|| self.stand_in.clone());
        let images = || self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Image { name, owner }) = self.inputs.image(number) else { return Ok(stand_in) };
        {
            let images = images();
            if let Some(kept) = images.kept.get(&number) {
                return Ok(Some(kept.clone()));
            }
            if images.bad.contains(&number) {
                return Ok(stand_in);
            }
        }
        let Some(processor) = self.files.processor() else { return Ok(stand_in) };
        let prepared = processor.prepare(&self.inputs.root().join(name), self.encode.exif_orientation);
        let prepared = prepared.map_err(|error| self.tolerance.of_image(owner, error));
        let mut images = images();
        match prepared {
            Ok(pixels) => {
                let pixels = Arc::new(pixels);
                if images.kept.len() < images.most {
                    images.kept.insert(number, pixels.clone());
                }
                Ok(Some(pixels))
            }
            Err(error) if self.tolerance == Tolerance::Skip && error.concerns_input() => {
                self.leave_out(&error);
                images.bad.insert(number);
                Ok(stand_in)
            }
            Err(error) => Err(error),
        }
    }
}

impl EncoderRun<'_> {
    /// Says that something is bad and left out, once.
    fn leave_out(&self, error: &Error) {
        let said = error.to_string();
        let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        if skipped.insert(said.clone()) {
            tracing::warn!("{said}; what stands in for missing images is taken instead");
        }
    }

    /// How many images could not be read and were left out.
    pub fn left_out(&self) -> usize {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// The directories of the encoders of what a model reads: no features of anything else are made for it.
fn of_what_is_read(EncoderPaths { text, image }: EncoderPaths, reads: Reads) -> EncoderPaths {
    EncoderPaths { text: text.filter(|_| reads.text), image: image.filter(|_| reads.image) }
}
