//! Checkpoints: everything a run needs to go on as if it had never stopped, and the weights that link mentions.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::{Schedule, TrainSettings};
use super::encoder::{Along, EncoderSettings};
use crate::autograd::Parameters;
use crate::data::{EncodeSettings, Manifest};
use crate::device::Gpu;
use crate::encoder::EncoderPaths;
use crate::encoder::trained::Tuned;
use crate::error::{Error, Result};
use crate::eval::Metrics;
use crate::files::names::{BEST, LAST};
use crate::model::{Model, ModelConfig};
use crate::ops::Moments;
use crate::provenance::Provenance;
use crate::settings::difference;
use crate::tensor::Tensor;
use crate::tensor::safetensors::{Reader, Writer};

/// Where a run stands. Every random draw is a function of the seed and of these counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs completed.
    pub epoch: usize,
    /// Batches of the current epoch that are done.
    pub batch: usize,
    /// Optimizer steps of the whole run.
    pub step: u64,
    /// Sums of each score's loss over the current epoch's mentions.
    pub loss_sums: Vec<f64>,
    /// Mentions of the current epoch that are done.
    pub mentions: usize,
    /// The best epoch so far (from 1) and its metrics.
    pub best: Option<(usize, Metrics)>,
}

/// What stands in the header of a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    config: ModelConfig,
    settings: TrainSettings,
    manifest: Manifest,
    dataset: String,
    progress: Progress,
    /// How an encoder is trained along, if one is.
    #[serde(default)]
    encoder: Option<Along>,
    /// What wrote it; older versions did not say.
    #[serde(default)]
    provenance: Option<Provenance>,
}

/// What made a model's weights what they are, beside its configuration and its features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Settings of the training, its seed among them.
    pub settings: TrainSettings,
    /// How its encoder was trained along, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<Along>,
    /// The program, the device and the dataset.
    #[serde(flatten)]
    pub provenance: Provenance,
}

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Anew, in a folder without a run.
    New,
    /// From the last checkpoint in its folder.
    Resume {
        /// Whether the number of epochs may differ though the learning rate falls to zero at their end.
        new_horizon: bool,
    },
}

/// A run at one moment.
#[derive(Debug)]
pub struct Checkpoint {
    /// Weights and their configuration.
    pub model: Model,
    /// AdamW's moments of each parameter.
    pub moments: Vec<Moments>,
    /// The encoder that is trained along, if one is.
    pub encoder: Option<EncoderState>,
    /// Where the run stands.
    pub progress: Progress,
}

/// An encoder that is trained along, at one moment.
#[derive(Debug)]
pub struct EncoderState {
    /// Its weights.
    pub weights: Tuned,
    /// AdamW's moments of those that are trained.
    pub moments: Vec<Moments>,
}

impl EncoderState {
    /// Of an encoder that is not trained yet.
    pub fn new(weights: Tuned) -> EncoderState {
        let moments = weights.trained().tensors().iter().map(|t| Moments::zeros(t.shape())).collect();
        EncoderState { weights, moments }
    }

    /// The same in a device's memory, or with `None` in the host's.
    pub fn to(&self, gpu: Option<&Gpu>) -> Result<EncoderState> {
        let moments = self.moments.iter().map(|m| m.to(gpu)).collect::<Result<_>>()?;
        Ok(EncoderState { weights: self.weights.to(gpu)?, moments })
    }

    /// The same, with what a checkpoint says of those that are trained.
    fn read(self, reader: &Reader) -> Result<EncoderState> {
        let read = |(name, tensor): (&str, &Tensor)| {
            let found = reader.tensor_of(&format!("{OF_ENCODER}parameter.{name}"), tensor.shape())?;
            Ok((name.to_string(), found))
        };
        let trained = self.weights.trained().iter().map(read).collect::<Result<Parameters>>()?;
        let moments = read_moments(reader, OF_ENCODER, &trained)?;
        Ok(EncoderState { weights: self.weights.with_trained(trained), moments })
    }
}

/// What stands before the names of an encoder's tensors in a checkpoint.
const OF_ENCODER: &str = "encoder.";

impl Start {
    /// Fails if the folder holds no run to go on with, or one that must not be written over.
    pub fn check(self, folder: &Path) -> Result<()> {
        let last = folder.join(LAST);
        let there = match last.try_exists() {
            // A path through a file is refused where the folder is made.
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => false,
            there => there.map_err(Error::io(&last, "look for"))?,
        };
        let reason = match (there, self) {
            (true, Start::New) => "holds a run already; go on with it by --resume, or choose another folder for --out",
            (false, Start::Resume { .. }) => {
                "holds no last.safetensors, so there is no run to go on with: is --out right? A run that was stopped before its \
                 first checkpoint starts again without --resume"
            }
            _ => return Ok(()),
        };
        Err(Error::file(folder, reason))
    }
}

/// What a checkpoint must agree with to be resumed or written.
#[derive(Clone, Copy, Debug)]
pub struct RunIdentity<'a> {
    /// Settings of training.
    pub settings: &'a TrainSettings,
    /// How the features were made.
    pub manifest: &'a Manifest,
    /// How an encoder is trained along, if one is; the manifest is then of the one that it starts from.
    pub encoder: Option<&'a Along>,
    /// The program, the device and the dataset.
    pub provenance: &'a Provenance,
}

impl RunIdentity<'_> {
    /// The origin of the models that the run keeps.
    pub fn origin(&self) -> Origin {
        let (settings, encoder) = (self.settings.clone(), self.encoder.cloned());
        Origin { settings, encoder, provenance: self.provenance.clone() }
    }
}

impl Checkpoint {
    /// Weights, and the moments of each.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let moments = self.moments.iter().flat_map(|Moments { first, second }| [first, second]);
        self.model.parameters().tensors().iter().chain(moments)
    }

    /// The same with weights and moments in a device's memory, or with `None` in the host's.
    pub fn to(&self, gpu: Option<&Gpu>) -> Result<Checkpoint> {
        let moments = self.moments.iter().map(|m| m.to(gpu)).collect::<Result<_>>()?;
        let encoder = self.encoder.as_ref().map(|encoder| encoder.to(gpu)).transpose()?;
        Ok(Checkpoint { model: self.model.to(gpu)?, moments, encoder, progress: self.progress.clone() })
    }

    /// Writes everything, whole or not at all.
    pub fn write(&self, path: &Path, run: RunIdentity) -> Result<()> {
        let _span = crate::span!("checkpoint");
        // What lies on a device is fetched before anything is written.
        let parameters = self.model.parameters().to(None)?;
        let all: Vec<Moments> = self.moments.iter().map(|m| m.to(None)).collect::<Result<_>>()?;
        let encoder = self.encoder.as_ref().map(|encoder| encoder.to(None)).transpose()?;
        let (epoch, step) = (self.progress.epoch + 1, self.progress.step);
        let (mut writer, place) = (Writer::default(), format!("epoch {epoch}, step {step}"));
        add_state(&mut writer, "", (&parameters, &all), (path, &place))?;
        if let Some(EncoderState { weights, moments }) = &encoder {
            add_state(&mut writer, OF_ENCODER, (weights.trained(), moments), (path, &place))?;
        }
        writer.sealed_metadata(&Header {
            config: self.model.config().clone(),
            settings: run.settings.clone(),
            manifest: run.manifest.clone(),
            dataset: run.provenance.dataset.clone(),
            progress: self.progress.clone(),
            encoder: run.encoder.cloned(),
            provenance: Some(run.provenance.clone()),
        })?;
        writer.write(path)
    }

    /// Reads a checkpoint of this very run, whose encoder, if it trains one along, starts as `encoder`; the number of epochs
    /// alone may differ: with a schedule that ends with the last of them, only if `new_horizon` says so.
    pub fn resume(
        path: &Path,
        (config, encoder): (&ModelConfig, Option<EncoderState>),
        run: RunIdentity,
        new_horizon: bool,
    ) -> Result<Checkpoint> {
        let reader = Reader::open(path)?;
        let header: Header = reader.sealed_metadata()?;
        let refuse = |what: String| {
            let reason =
                format!("belongs to another run: {what}; give the settings it was started with, or another --out");
            Err(Error::file(path, reason))
        };
        let sides = ["in that run", "in this call"];
        let of_others = |what: Option<String>| format!("it is of another encoder: {}", what.unwrap_or_default());
        let reads = |manifest: &Manifest| (manifest.reads_texts(), manifest.reads_images());
        // Before the model's widths, which follow from the encoders'.
        if header.encoder.is_some() == run.encoder.is_some()
            && reads(&header.manifest) == reads(run.manifest)
            && header.manifest.is_of_others_than(run.manifest)
        {
            return refuse(of_others(header.manifest.difference(run.manifest, sides)));
        }
        if header.config != *config {
            return refuse(format!("of [model], {}", difference(&header.config, config)));
        }
        let settings = TrainSettings { epochs: run.settings.epochs, ..header.settings.clone() };
        if settings != *run.settings {
            return refuse(format!("of [train], {}", difference(&header.settings, run.settings)));
        }
        let (before, now) = (header.settings.epochs, run.settings.epochs);
        if before != now && run.settings.schedule != Schedule::Constant && !new_horizon {
            let reason = format!(
                "is of a run of {before} epochs, and its learning rate falls to zero at their end: with {now} the rest is not \
                 what a straight run of {now} epochs computes; leave out --epochs, or add --new-horizon if that is meant"
            );
            return Err(Error::file(path, reason));
        }
        match (&header.encoder, run.encoder) {
            (Some(before), Some(now)) => {
                // Of the same bits either way.
                let gradient_checkpointing = now.settings.gradient_checkpointing;
                let settings = EncoderSettings { gradient_checkpointing, ..before.settings.clone() };
                let before = Along { settings, ..*before };
                if before != *now {
                    return refuse(format!("of [encoder], {}", difference(&before, now)));
                }
            }
            (Some(_), None) => return refuse("its encoder is trained along (--train-encoder)".into()),
            (None, Some(_)) => return refuse("its features are of a store (--features)".into()),
            (None, None) => {}
        }
        if let Some(what) = header.manifest.difference(run.manifest, sides) {
            return refuse(what);
        }
        if header.dataset != run.provenance.dataset {
            return refuse("the dataset's files have changed since".into());
        }
        let parameters = Parameters::read_prefixed(&reader, config, "parameter.")?;
        let moments = read_moments(&reader, "", &parameters)?;
        let model = Model::with_parameters(config.clone(), parameters)?;
        let encoder = encoder.map(|encoder| encoder.read(&reader)).transpose()?;
        Ok(Checkpoint { model, moments, encoder, progress: header.progress })
    }
}

/// Adds weights and AdamW's moments to a file, with `prefix` before their names; all of them lie on the host. Fails if a value
/// is NaN or infinite: in the file at this path, at this place of the run.
pub(super) fn add_state<'a>(
    writer: &mut Writer<'a>,
    prefix: &str,
    (parameters, moments): (&'a Parameters, &'a [Moments]),
    (path, place): (&Path, &str),
) -> Result<()> {
    let broken_moment = |((name, _), m): ((&str, _), &Moments)| {
        (!(m.first.all_finite() && m.second.all_finite())).then(|| name.to_string())
    };
    let broken = parameters.not_finite().map(str::to_string);
    if let Some(name) = broken.or_else(|| parameters.iter().zip(moments).find_map(broken_moment)) {
        return Err(broke(path, &name, place));
    }
    parameters.write(writer, &format!("{prefix}parameter."));
    for ((name, _), moments) in parameters.iter().zip(moments) {
        writer.tensor(format!("{prefix}first.{name}"), &moments.first);
        writer.tensor(format!("{prefix}second.{name}"), &moments.second);
    }
    Ok(())
}

/// Reads AdamW's moments of these parameters.
pub(super) fn read_moments(reader: &Reader, prefix: &str, parameters: &Parameters) -> Result<Vec<Moments>> {
    let moment = |which: &str, (name, tensor): (&str, &Tensor)| {
        reader.tensor_of(&format!("{prefix}{which}.{name}"), tensor.shape())
    };
    let moments = parameters.iter().map(|p| Ok(Moments { first: moment("first", p)?, second: moment("second", p)? }));
    moments.collect()
}

/// An error about weights or moments that are NaN or infinite when they are to be written.
fn broke(path: &Path, name: &str, place: &str) -> Error {
    let reason = format!(
        "has NaN or infinite values at {place}, which are not kept; lower train.learning_rate or train.weight_decay, or go on from the \
         checkpoint before, if there is one, with --resume"
    );
    Error::tensor(path, name, reason)
}

/// What stands in the header of a trained model.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ModelHeader {
    config: ModelConfig,
    manifest: Manifest,
    epoch: usize,
    metrics: Option<Metrics>,
    /// Older versions did not say.
    #[serde(default)]
    origin: Option<Origin>,
}

/// A trained model and what it takes to use it.
#[derive(Debug)]
pub struct TrainedModel {
    /// Weights and their configuration.
    pub model: Model,
    /// How the features it was trained on were made.
    pub manifest: Manifest,
    /// The epoch it is of, from 1.
    pub epoch: usize,
    /// Its metrics on the validation mentions, if there were any.
    pub metrics: Option<Metrics>,
    /// What made it what it is, where its file says so.
    pub origin: Option<Origin>,
}

/// What to give where there is no model.
const NO_MODEL: &str =
    "a model is the folder of a run of `fissfuse train` that got through an epoch, or its best.safetensors";

impl TrainedModel {
    /// Writes a model of a run for use.
    pub fn write(path: &Path, model: &Model, run: RunIdentity, epoch: usize, metrics: Option<Metrics>) -> Result<()> {
        let parameters = model.parameters().to(None)?;
        if let Some(name) = parameters.not_finite() {
            return Err(broke(path, name, &format!("the end of epoch {epoch}")));
        }
        let mut writer = Writer::default();
        parameters.write(&mut writer, "");
        let (config, manifest, origin) = (model.config().clone(), run.manifest.clone(), Some(run.origin()));
        writer.sealed_metadata(&ModelHeader { config, manifest, epoch, metrics, origin })?;
        writer.write(path)
    }

    /// Reads a model; `path` is the file or the folder of its run.
    pub fn read(path: &Path) -> Result<TrainedModel> {
        let file = if path.is_dir() { path.join(BEST) } else { path.to_path_buf() };
        let reader = Reader::open(&file).map_err(|error| error.if_missing(NO_MODEL))?;
        let ModelHeader { config, manifest, epoch, metrics, origin } = reader.sealed_metadata()?;
        let parameters = Parameters::read(&reader, &config)?;
        Ok(TrainedModel { model: Model::with_parameters(config, parameters)?, manifest, epoch, metrics, origin })
    }

    /// Fails unless features made so are those the model was trained on.
    pub fn check(&self, manifest: &Manifest, place: &Path) -> Result<()> {
        let Some(what) = self.manifest.difference(manifest, ["in the model", "in the store"]) else { return Ok(()) };
        let which = match self.manifest.is_of_others_than(manifest) {
            true => "holds features of another encoder than the model was trained on",
            false => "holds features that are made otherwise than those the model was trained on",
        };
        // What the model was trained along with lies beside it.
        let encoders = match self.origin.as_ref().and_then(|origin| origin.encoder.as_ref()) {
            Some(along) => EncoderPaths::trained(Path::new("MODEL/encoder"), along.two_encoders),
            None => EncoderPaths::from(Path::new("ENCODER")),
        };
        // All else is said in a configuration.
        let plain = EncodeSettings::of(&self.manifest) == EncodeSettings::default();
        let command = self.manifest.encode_command("DATA", &encoders, (!plain).then_some("CONFIG"), "FEATURES");
        Err(Error::file(place, format!("{which}: {what}; features that fit are made by `{command}`")))
    }
}
