//! Encoders that can be trained along with a model, of one kind or another.

use std::path::Path;

use super::ImageProcessor;
use super::bert::{self, BertFiles, BertTower};
use super::clip::{self, ClipConfig, ClipFiles, Towers};
use super::resnet::ResNetFiles;
use super::siglip::{self, SiglipFiles};
use super::trainables::instead_of;
use super::trained::{Layers, Parameter, Shapes, States};
use crate::autograd::Parameters;
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::files;
use crate::tensor::{Precision, Shards};

/// The directory of an encoder but for its weights.
pub enum TrainableEncoder {
    /// Of texts and images.
    Clip(Box<ClipFiles>),
    /// Of both, too.
    Siglip(Box<SiglipFiles>),
    /// Of texts: a BERT or a DistilBERT.
    Bert(BertFiles),
    /// Of images.
    ResNet(ResNetFiles),
}

impl TrainableEncoder {
    /// Of a Hugging Face directory, or one of OpenCLIP's. Fails if what it holds cannot be trained, and says what there is.
    pub fn read(folder: &Path) -> Result<TrainableEncoder> {
        if clip::is_open_clip(folder) {
            return ClipFiles::read(folder).map(|files| TrainableEncoder::Clip(Box::new(files)));
        }
        let advice = "--train-encoder takes the directory of a CLIP, a SigLIP, a BERT or a ResNet";
        let config = files::config_of(folder, &instead_of(folder, advice))?;
        match Fields::read(&config)?.text("model_type")? {
            Some("bert" | "distilbert") => BertFiles::read(folder).map(TrainableEncoder::Bert),
            Some("resnet") => ResNetFiles::read(folder).map(TrainableEncoder::ResNet),
            Some("siglip") => SiglipFiles::read(folder).map(|files| TrainableEncoder::Siglip(Box::new(files))),
            _ => ClipFiles::read(folder).map(|files| TrainableEncoder::Clip(Box::new(files))).map_err(|error| {
                match ClipConfig::read(folder).is_ok() {
                    true => error,
                    false => error.advising(
                        "--train-encoder trains a CLIP, a SigLIP, a BERT or a ResNet; features of others are of a store \
                         (fissfuse encode, --features)",
                    ),
                }
            }),
        }
    }

    /// How images are prepared, if they are encoded.
    pub fn processor(&self) -> Option<&ImageProcessor> {
        match self {
            TrainableEncoder::Clip(files) => Some(&files.processor),
            TrainableEncoder::Siglip(files) => Some(&files.processor),
            TrainableEncoder::ResNet(files) => Some(&files.processor),
            TrainableEncoder::Bert(_) => None,
        }
    }

    /// Whether it encodes texts.
    pub fn encodes_texts(&self) -> bool {
        !matches!(self, TrainableEncoder::ResNet(_))
    }

    /// All parameters, those that decay first.
    pub fn parameters(&self) -> Vec<Parameter> {
        match self {
            TrainableEncoder::Clip(files) => clip::weights::all(&files.config),
            TrainableEncoder::Siglip(files) => siglip::weights::all(&files.config),
            TrainableEncoder::Bert(files) => bert::weights::all(&files.config),
            TrainableEncoder::ResNet(files) => files.parameters(),
        }
    }

    /// Reads the weights of the directory.
    pub fn weights(&self, folder: &Path) -> Result<Parameters> {
        let shards = Shards::open(folder)?;
        match self {
            TrainableEncoder::Clip(files) => files.weights(&shards),
            TrainableEncoder::Siglip(files) => siglip::weights::read(&shards, &files.config),
            TrainableEncoder::Bert(files) => bert::weights::read(&shards, &files.config),
            TrainableEncoder::ResNet(files) => files.weights(&shards),
        }
    }

    /// Sizes of its blocks.
    pub fn shapes(&self) -> Shapes {
        match self {
            TrainableEncoder::Clip(files) => files.config.shapes(),
            TrainableEncoder::Siglip(files) => files.config.shapes(),
            TrainableEncoder::Bert(files) => files.config.shapes(),
            TrainableEncoder::ResNet(files) => files.shapes(),
        }
    }

    /// Numbers of texts' tokens, at most so many and no more than it takes. Fails if it does not know one of them.
    pub fn tokens_at_most(&self, texts: &[&str], most: usize) -> Result<Vec<Vec<u32>>> {
        match self {
            TrainableEncoder::Clip(files) => files.tokens_at_most(texts, most),
            TrainableEncoder::Siglip(files) => files.tokens_at_most(texts, most),
            TrainableEncoder::Bert(files) => files.tokens_at_most(texts, most),
            TrainableEncoder::ResNet(_) => Err(no_texts()),
        }
    }

    /// Tokens that it computes for a text of so many.
    pub fn computed(&self, tokens: usize) -> usize {
        match self {
            TrainableEncoder::Siglip(files) => files.config.text.max_position_embeddings,
            TrainableEncoder::Clip(_) | TrainableEncoder::Bert(_) | TrainableEncoder::ResNet(_) => tokens,
        }
    }

    /// What it says on a tape of texts given by the numbers of their tokens.
    pub fn text_states(&self, layers: Layers, ids: &[&[u32]]) -> Result<States> {
        match self {
            TrainableEncoder::Clip(files) => Towers { config: &files.config, layers }.text_states(ids),
            TrainableEncoder::Siglip(files) => files.towers(layers).text_states(ids),
            TrainableEncoder::Bert(files) => BertTower { config: &files.config, layers }.text_states(ids),
            TrainableEncoder::ResNet(_) => Err(no_texts()),
        }
    }

    /// What it says on a tape of images as [`Self::processor`] prepares them.
    pub fn image_states(&self, layers: Layers, images: &[&[f32]]) -> Result<States> {
        match self {
            TrainableEncoder::Clip(files) => Towers { config: &files.config, layers }.image_states(images),
            TrainableEncoder::Siglip(files) => files.towers(layers).image_states(images),
            TrainableEncoder::ResNet(files) => files.network(layers).image_states(images),
            TrainableEncoder::Bert(_) => Err(Error::shape("images", "a BERT encodes texts alone")),
        }
    }

    /// Writes the directory with these weights, whole or not at all. They lie on the host.
    pub fn write(&self, parameters: &Parameters, precision: Precision, folder: &Path) -> Result<()> {
        match self {
            TrainableEncoder::Clip(files) => files.write(parameters, precision, folder),
            TrainableEncoder::Siglip(files) => files.write(parameters, precision, folder),
            TrainableEncoder::Bert(files) => files.write(parameters, precision, folder),
            TrainableEncoder::ResNet(files) => files.write(parameters, precision, folder),
        }
    }
}

fn no_texts() -> Error {
    Error::shape("texts", "a ResNet encodes images alone")
}
