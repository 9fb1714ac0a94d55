//! A ResNet's Hugging Face directory but for the weights that may be trained; with trained ones it becomes a directory again.

use std::collections::HashSet;
use std::path::Path;

use super::network::Network;
use super::{EMBEDDER, ResNetConfig, weights};
use crate::autograd::Parameters;
use crate::encoder::ImageProcessor;
use crate::encoder::processor::Kind;
use crate::encoder::trained::{self, Beside, Kept, Layers, Parameter, Role, Shapes};
use crate::error::Result;
use crate::tensor::{Precision, Shards};

/// Files of a directory that go with its weights where they are there.
const FILES: [&str; 3] = ["preprocessor_config.json", "processor_config.json", "config.json"];

/// See the module's documentation.
pub struct ResNetFiles {
    /// Sizes of the model.
    pub config: ResNetConfig,
    /// Of its images.
    pub processor: ImageProcessor,
    /// What its tensors' names begin with: a model saved with a classifier has one.
    prefix: &'static str,
    /// Statistics, counts of batches and the classifier, if there is one.
    kept: Kept,
    files: Beside,
}

impl ResNetFiles {
    /// Of the model in a directory, saved alone or with a classifier, whose files are taken as they are.
    pub fn read(folder: &Path) -> Result<ResNetFiles> {
        let config = ResNetConfig::read(folder)?;
        if let Some((name, size)) = config.absurd() {
            return Err(trained::absurd(folder, name, size));
        }
        let processor = ImageProcessor::open(folder, Kind::ConvNext, None)?;
        let shards = Shards::open(folder)?;
        let prefix = match shards.contains(&format!("resnet.{EMBEDDER}.convolution.weight")) {
            true => "resnet.",
            false => "",
        };
        let all = weights::all(&config, prefix);
        let may_train = all.iter().filter(|parameter| parameter.role != Role::Statistics);
        let may_train: HashSet<&str> = may_train.map(|parameter| parameter.name.as_str()).collect();
        let kept = Kept::read(&shards, |name| !may_train.contains(name))?;
        Ok(ResNetFiles { config, processor, prefix, kept, files: Beside::read(folder, &FILES)? })
    }

    /// All parameters and statistics, those that decay first.
    pub fn parameters(&self) -> Vec<Parameter> {
        weights::all(&self.config, self.prefix)
    }

    /// Reads the parameters and statistics of the directory.
    pub fn weights(&self, shards: &Shards) -> Result<Parameters> {
        weights::read(shards, &self.config, self.prefix)
    }

    /// Sizes of its bottlenecks.
    pub fn shapes(&self) -> Shapes {
        self.config.shapes(self.processor.size())
    }

    /// The network with weights on a tape.
    pub fn network<'a>(&'a self, layers: Layers<'a>) -> Network<'a> {
        Network { config: &self.config, size: self.processor.size(), prefix: self.prefix, layers }
    }

    /// Writes the directory with these weights in f32 or bf16, whole or not at all: with all tensors that it was read with. They lie on
    /// the host.
    pub fn write(&self, parameters: &Parameters, precision: Precision, folder: &Path) -> Result<()> {
        let (stored, list) = weights::as_stored(self.parameters(), parameters)?;
        let write = |path: &Path| trained::weights::write(&stored, &list, &self.kept, precision, path);
        self.files.write(folder, "model.safetensors", write)
    }
}
