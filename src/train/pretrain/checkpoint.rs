//! Everything that a pre-training needs to go on as if it had never stopped.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::config::PretrainSettings;
use crate::autograd::Parameters;
use crate::device::Gpu;
use crate::encoder::clip::ClipConfig;
use crate::error::{Error, Result};
use crate::ops::Moments;
use crate::provenance::Provenance;
use crate::settings::difference;
use crate::tensor::Tensor;
use crate::tensor::safetensors::{Reader, Writer};
use crate::train::checkpoint::{add_state, read_moments};

/// Where a run stands. Every random draw is a function of the seed and of these counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs completed.
    pub epoch: usize,
    /// Steps of the current epoch that are done.
    pub batch: usize,
    /// Steps of the whole run.
    pub step: u64,
    /// Sums over the current epoch's steps of the losses text to image and image to text.
    pub losses: [f64; 2],
    /// The same of the gradients' length before it was clipped.
    pub norms: f64,
    /// Steps of the current epoch after which the temperature was clamped.
    pub clamped: usize,
}

/// What made a run what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Sizes of the encoders.
    pub model: ClipConfig,
    /// Of the files that go with their weights, such as the tokenizer's.
    pub files: String,
    /// The weights that it started from, where these were not drawn.
    pub from: Option<String>,
    /// How they are trained.
    pub settings: PretrainSettings,
    /// The pairs to validate with and their images, where there are any.
    pub valid: Option<String>,
    /// The program, the device, and the pairs with their images.
    #[serde(flatten)]
    pub provenance: Provenance,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    identity: Identity,
    progress: Progress,
}

/// A run at one moment.
pub struct State {
    pub parameters: Parameters,
    /// AdamW's, of each parameter.
    pub moments: Vec<Moments>,
    pub progress: Progress,
}

impl State {
    /// Of a run that has not begun.
    pub fn new(parameters: Parameters) -> State {
        let moments = parameters.tensors().iter().map(|t| Moments::zeros(t.shape())).collect();
        State { parameters, moments, progress: Progress::default() }
    }

    /// The same in a device's memory, or with `None` in the host's.
    pub fn to(&self, gpu: Option<&Gpu>) -> Result<State> {
        let moments = self.moments.iter().map(|m| m.to(gpu)).collect::<Result<_>>()?;
        Ok(State { parameters: self.parameters.to(gpu)?, moments, progress: self.progress.clone() })
    }

    /// Writes everything, whole or not at all.
    pub fn write(&self, path: &Path, identity: &Identity) -> Result<()> {
        let here = self.to(None)?;
        let place = format!("epoch {}, step {}", self.progress.epoch + 1, self.progress.step);
        let mut writer = Writer::default();
        add_state(&mut writer, "", (&here.parameters, &here.moments), (path, &place))?;
        writer.sealed_metadata(&Header { identity: identity.clone(), progress: self.progress.clone() })?;
        writer.write(path)
    }

    /// Reads the checkpoint of this very run, whose parameters have the shapes of `like`.
    pub fn resume(path: &Path, like: &Parameters, identity: &Identity) -> Result<State> {
        let reader = Reader::open(path)?;
        let Header { identity: before, progress } = reader.sealed_metadata()?;
        let refuse = |what: String| {
            let reason =
                format!("belongs to another run: {what}; give the settings it was started with, or another --out");
            Err(Error::file(path, reason))
        };
        // Of the same bits either way.
        let gradient_checkpointing = identity.settings.gradient_checkpointing;
        let settings = PretrainSettings { gradient_checkpointing, ..before.settings.clone() };
        if settings != identity.settings {
            return refuse(difference(&settings, &identity.settings));
        }
        // The version may be another, and the device: only bits depend on it.
        let [was, is] = [&before, identity].map(|of| {
            let Identity { model, files, from, valid, provenance, .. } = of;
            [
                // First: a tokenizer that learned from other pairs is another.
                ("the pairs", provenance.dataset.clone()),
                ("the encoders' sizes", serde_json::json!(model).to_string()),
                ("the encoders' files", files.clone()),
                ("the weights of --from", format!("{from:?}")),
                ("the pairs of --valid", format!("{valid:?}")),
            ]
        });
        if let Some(((what, _), _)) = was.iter().zip(&is).find(|(was, is)| was != is) {
            return refuse(format!("{what} have changed since"));
        }
        let read = |(name, tensor): (&str, &Tensor)| {
            Ok((name.to_string(), reader.tensor_of(&format!("parameter.{name}"), tensor.shape())?))
        };
        let parameters = like.iter().map(read).collect::<Result<Parameters>>()?;
        Ok(State { moments: read_moments(&reader, "", &parameters)?, parameters, progress })
    }
}
