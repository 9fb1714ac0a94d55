//! The encoders that are trained along with a model: one of all that it reads, or one of its texts and one of its images.

use std::path::{Path, PathBuf};

use super::trained::{Layers, Parameter, Shapes, States, Tower, weights};
use super::{EncoderPaths, ImageProcessor, TrainableEncoder};
use crate::autograd::Parameters;
use crate::error::{Error, Result};
use crate::files;
use crate::tensor::Precision;

/// Names of the two, where there are two: of their folders in the one that they are written to, and before those of their weights.
const NAMES: [&str; 2] = ["text", "image"];

/// Directories of encoders but for their weights.
pub struct TrainableEncoders {
    /// Of all that is read, or of texts.
    first: Opened,
    /// Of images, where it is another. The tower of the other modality, where one of both has it, stays as it is.
    images: Option<Opened>,
}

/// A directory.
pub struct Opened {
    /// Where it is.
    pub folder: PathBuf,
    /// What it holds.
    pub files: TrainableEncoder,
}

impl Opened {
    fn read(folder: &Path) -> Result<Opened> {
        Ok(Opened { folder: folder.to_path_buf(), files: TrainableEncoder::read(folder)? })
    }
}

impl TrainableEncoders {
    /// Of directories, which may be one and the same. Fails if there is none.
    pub fn read(paths: &EncoderPaths) -> Result<TrainableEncoders> {
        let (first, images) = match (&paths.text, &paths.image) {
            (Some(text), Some(image)) if !same(text, image) => (text, Some(image)),
            (Some(one), _) | (None, Some(one)) => (one, None),
            (None, None) => return Err(Error::invalid("no encoder is given to be trained along")),
        };
        let images = images.map(|image| Opened::read(image)).transpose()?;
        Ok(TrainableEncoders { first: Opened::read(first)?, images })
    }

    /// Whether texts and images have an encoder each.
    pub fn are_two(&self) -> bool {
        self.images.is_some()
    }

    /// The encoder of texts, or the one of all.
    pub fn of_texts(&self) -> &Opened {
        &self.first
    }

    /// The encoder of images, or the one of all.
    pub fn of_images(&self) -> &Opened {
        self.images.as_ref().unwrap_or(&self.first)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Opened> {
        [&self.first].into_iter().chain(&self.images)
    }

    /// Their folders, as errors name them.
    pub fn shown(&self) -> String {
        self.all().map(|one| one.folder.display().to_string()).collect::<Vec<_>>().join(" and ")
    }

    /// How images are prepared, if they are encoded.
    pub fn processor(&self) -> Option<&ImageProcessor> {
        self.of_images().files.processor()
    }

    /// All parameters, those that decay first. Of two encoders, each one's names begin with its own.
    pub fn parameters(&self) -> Vec<Parameter> {
        if !self.are_two() {
            return self.first.files.parameters();
        }
        let of = |(which, one): (usize, &Opened)| {
            let (own, name) = ([Tower::Text, Tower::Vision][which], NAMES[which]);
            let renamed = move |parameter: Parameter| Parameter {
                name: format!("{name}.{}", parameter.name),
                read: parameter.tower == own,
                ..parameter
            };
            one.files.parameters().into_iter().map(renamed)
        };
        weights::ordered(self.all().enumerate().flat_map(of).collect())
    }

    /// Reads the weights of the directories.
    pub fn weights(&self) -> Result<Parameters> {
        if !self.are_two() {
            return self.first.files.weights(&self.first.folder);
        }
        let mut all = Vec::new();
        for (one, name) in self.all().zip(NAMES) {
            let weights = one.files.weights(&one.folder)?;
            all.extend(weights.iter().map(|(rest, tensor)| (format!("{name}.{rest}"), tensor.clone())));
        }
        Ok(all.into_iter().collect())
    }

    /// Sizes of the blocks of what encodes texts, and of what encodes images.
    pub fn shapes(&self) -> Shapes {
        let images = self.of_images().files.shapes();
        if self.are_two() { Shapes { text: self.of_texts().files.shapes().text, ..images } } else { images }
    }

    /// Numbers of texts' tokens, at most so many and no more than the encoder takes. Fails if it does not know one of them.
    pub fn tokens_at_most(&self, texts: &[&str], most: usize) -> Result<Vec<Vec<u32>>> {
        self.of_texts().files.tokens_at_most(texts, most)
    }

    /// Tokens that are computed for a text of so many.
    pub fn computed(&self, tokens: usize) -> usize {
        self.of_texts().files.computed(tokens)
    }

    /// What is said on a tape of texts given by the numbers of their tokens.
    pub fn text_states(&self, layers: Layers, ids: &[&[u32]]) -> Result<States> {
        self.with_own(0, layers, |layers| self.of_texts().files.text_states(layers, ids))
    }

    /// What is said on a tape of images as [`Self::processor`] prepares them.
    pub fn image_states(&self, layers: Layers, images: &[&[f32]]) -> Result<States> {
        self.with_own(1, layers, |layers| self.of_images().files.image_states(layers, images))
    }

    /// Computes with the weights of the encoder of texts (0) or images (1), by the names that its files give them.
    fn with_own<T>(&self, which: usize, layers: Layers, compute: impl FnOnce(Layers) -> Result<T>) -> Result<T> {
        if !self.are_two() {
            return compute(layers);
        }
        compute(Layers { vars: &layers.vars.within(NAMES[which]), ..layers })
    }

    /// Writes the directory with these weights, whole or not at all; of two, one with a directory of each. They lie on the host.
    pub fn write(&self, parameters: &Parameters, precision: Precision, folder: &Path) -> Result<()> {
        if !self.are_two() {
            return self.first.files.write(parameters, precision, folder);
        }
        files::write_folder_whole(folder, |temp| {
            let write =
                |(one, name): (&Opened, &str)| one.files.write(&parameters.within(name), precision, &temp.join(name));
            self.all().zip(NAMES).try_for_each(write)
        })
    }

    /// Where the encoders of texts and of images are in a folder that they were written to.
    pub fn written(&self, folder: &Path) -> EncoderPaths {
        EncoderPaths::trained(folder, self.are_two())
    }
}

impl EncoderPaths {
    /// Where the encoders of a model that was trained together with one, or with two, are in a folder that they were written to.
    pub fn trained(folder: &Path, two: bool) -> EncoderPaths {
        match two {
            false => EncoderPaths::from(folder),
            true => EncoderPaths { text: Some(folder.join(NAMES[0])), image: Some(folder.join(NAMES[1])) },
        }
    }
}

/// What to give where an encoder's folder has no configuration: one of those that were trained together, if it holds them.
pub(super) fn instead_of(folder: &Path, advice: &str) -> String {
    let has_one = |name: &&str| folder.join(name).join("config.json").exists();
    let within: Vec<&str> = NAMES.into_iter().filter(has_one).collect();
    match within.is_empty() {
        true => advice.to_string(),
        false => format!("there is one in its {}: give that folder", within.join(" and in its ")),
    }
}

/// Whether two paths are of one folder.
fn same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
