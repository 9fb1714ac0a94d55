//! An encoder that is trained along with a model: features are computed in each step, of the texts and images of its mentions
//! and entities, and gradients flow back into the encoder.

mod chunks;
mod config;
mod features;
mod memory;
mod step;
mod validation;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use image::{Rgb, RgbImage};
use rayon::prelude::*;

pub use config::EncoderSettings;
pub use features::Prepared;
pub use step::Gradients;
pub(super) use step::{Rates, step};
pub(super) use validation::{Candidate, directory};

use super::config::{RunConfig, TrainSettings};
use crate::data::{Counts, Dataset, EncodeSettings, Inputs, Manifest, Mention, MissingImage, Sample, Tolerance};
use crate::device::cpu::available_memory;
use crate::encoder::trained::{Role, Tuned, Tuning};
use crate::encoder::{EncoderPaths, Encoders, Precision, TrainableEncoder, image_header};
use crate::error::{Error, Result};
use crate::model::{Modalities, ModelConfig, Reads, Widths};
use crate::span;

/// What a run knows of the encoder that it trains along, but for its weights.
pub struct EncoderRun<'a> {
    dataset: &'a Dataset,
    inputs: Inputs,
    files: TrainableEncoder,
    model: ModelConfig,
    settings: EncoderSettings,
    tuning: Tuning,
    train: TrainSettings,
    encode: EncodeSettings,
    tolerance: Tolerance,
    /// What stands in for a missing image, as the encoder takes it.
    stand_in: Arc<Vec<f32>>,
    images: Mutex<Images>,
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
    /// Of the encoder in a Hugging Face directory, on the texts and images of a dataset.
    pub fn open(folder: &Path, config: &RunConfig, dataset: &'a Dataset, tolerance: Tolerance) -> Result<Self> {
        let RunConfig { model, encode, train, encoder: settings } = config.clone();
        settings.check()?;
        encode.check()?;
        if Manifest::exists(folder) {
            let reason = "is a feature store, which frozen encoders made: --features trains on it, --train-encoder takes the \
                          Hugging Face directory of a CLIP, a SigLIP, a BERT or a ResNet";
            return Err(Error::file(folder, reason));
        }
        let files = TrainableEncoder::read(folder)?;
        let shapes = files.shapes();
        let layers = [shapes.text.layers, shapes.vision.layers];
        if layers.iter().all(|&layers| settings.freeze_layers > layers) {
            let (freeze, [text, vision]) = (settings.freeze_layers, layers);
            let there = match encoded(&files) {
                Modalities::Both => format!("{text} and {vision}"),
                Modalities::Text => text.to_string(),
                Modalities::Image => vision.to_string(),
            };
            return Err(Error::invalid(format!(
                "encoder: freeze_layers = {freeze}: there are {there} layers in {}; less than {} leaves some to train",
                folder.display(),
                text.max(vision)
            )));
        }
        let widest = shapes.text.width.max(shapes.vision.width);
        if settings.lora_rank > widest {
            let rank = settings.lora_rank;
            return Err(Error::invalid(format!(
                "encoder: lora_rank = {rank}: the towers in {} are {widest} wide at most, and a rank above it holds more than the \
                 weights themselves; 4 to 64 is usual, 0 trains the weights",
                folder.display()
            )));
        }
        // What a model reads does not depend on widths.
        let reads = model.with_widths(Widths::default()).reads();
        if reads.image && files.processor().is_none() {
            return Err(Error::file(
                folder,
                "holds a BERT, which encodes texts, and the model reads images: give --modalities text, a model that reads texts \
                 alone (bert, blink), or the directory of a CLIP or a SigLIP",
            ));
        }
        if reads.text && !files.encodes_texts() {
            return Err(Error::file(
                folder,
                "holds a ResNet, which encodes images, and the model reads texts, whose features cannot come from a store while an \
                 encoder is trained along: give --modalities image (--model fissfuse), or the directory of a CLIP or a SigLIP",
            ));
        }
        let tuning = Tuning {
            towers: [reads.text, reads.image],
            freeze_layers: settings.freeze_layers,
            lora_rank: settings.lora_rank,
            lora_alpha: settings.lora_alpha,
            seed: train.seed,
        };
        let parameters = files.parameters();
        if settings.lora_rank > 0 && !parameters.iter().any(|parameter| parameter.role == Role::Query) {
            return Err(Error::invalid(format!(
                "encoder: lora_rank = {}: LoRA changes queries and values, and the encoder in {} has none; 0 trains the weights",
                settings.lora_rank,
                folder.display()
            )));
        }
        memory::expect_room(&parameters, &tuning)?;
        let encode = EncodeSettings { precision: encode.precision.or(Some(Precision::F32)), ..encode };
        let paths = paths(folder, reads);
        let manifest = encode.manifest(&Encoders::open(&paths, encode.precision.unwrap_or_default())?);
        let model = model.for_features(&manifest)?;
        let start = Tuned::new(&parameters, files.weights(folder)?, &tuning)?;
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
                Some(name) => image_header(&self.inputs.root().join(name)).map(drop),
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
        let Some(name) = self.inputs.image(number) else { return Ok(stand_in) };
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
                tracing::warn!("{error}; what stands in for missing images is taken instead");
                images.bad.insert(number);
                Ok(stand_in)
            }
            Err(error) => Err(error),
        }
    }
}

/// What there is an encoder for.
fn encoded(files: &TrainableEncoder) -> Modalities {
    match (files.encodes_texts(), files.processor()) {
        (true, Some(_)) => Modalities::Both,
        (true, None) => Modalities::Text,
        (false, _) => Modalities::Image,
    }
}

/// The directories of the encoders of what a model reads: no features of anything else are made for it.
fn paths(folder: &Path, reads: Reads) -> EncoderPaths {
    let EncoderPaths { text, image } = EncoderPaths::from(folder);
    EncoderPaths { text: text.filter(|_| reads.text), image: image.filter(|_| reads.image) }
}
