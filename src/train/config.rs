//! A run's configuration file (docs/configuration.md, configs/*.toml).

use std::f64::consts::PI;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::encoder::EncoderSettings;
use crate::data::{EncodeSettings, GoldMissing, Manifest};
use crate::error::{Error, Result};
use crate::files;
use crate::model::{Ablation, Architecture, Modalities, ModelConfig, Widths};
use crate::ops::AdamW;

/// Everything a run is made of, but for its data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// The network.
    pub model: ModelSettings,
    /// How texts and images are encoded.
    pub encode: EncodeSettings,
    /// How it is trained.
    pub train: TrainSettings,
    /// How an encoder is trained along, if one is.
    pub encoder: EncoderSettings,
}

/// The network, but for the widths that come with the features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// Which model.
    pub name: Architecture,
    /// Hidden width.
    pub d: usize,
    /// Cross-attention heads.
    pub heads: usize,
    /// Epsilon of every layer normalization.
    pub layer_norm_eps: f32,
    /// Probability of zeroing a projected feature in training.
    pub dropout: f32,
    /// Which of Table 3's parts are removed.
    pub ablation: Ablation,
    /// Which modalities are read.
    pub modalities: Modalities,
    /// How far the right entity is to be ahead, by models that learn from a hinge loss.
    pub margin: f32,
    /// What cosines are divided by, by models that learn from their softmax.
    pub temperature: f32,
    /// Widths of the features; if given, features of other widths are refused.
    pub widths: Option<Widths>,
}

impl Default for ModelSettings {
    fn default() -> ModelSettings {
        let ModelConfig { network: name, d, heads, layer_norm_eps, dropout, ablation, .. } = ModelConfig::default();
        let ModelConfig { modalities, margin, temperature, .. } = ModelConfig::default();
        ModelSettings {
            name,
            d,
            heads,
            layer_norm_eps,
            dropout,
            ablation,
            modalities,
            margin,
            temperature,
            widths: None,
        }
    }
}

impl ModelSettings {
    /// The model's configuration for features of these widths; nothing is checked.
    pub fn with_widths(&self, widths: Widths) -> ModelConfig {
        let ModelSettings {
            name, d, heads, layer_norm_eps, dropout, ablation, modalities, margin, temperature, ..
        } = self.clone();
        ModelConfig {
            network: name,
            widths,
            d,
            heads,
            layer_norm_eps,
            dropout,
            ablation,
            modalities,
            margin,
            temperature,
        }
    }

    /// The model's configuration for features of this store.
    pub fn for_features(&self, manifest: &Manifest) -> Result<ModelConfig> {
        if let Some(widths) = self.widths.filter(|w| *w != manifest.widths) {
            let found = manifest.widths;
            return Err(Error::invalid(format!("the configuration asks for {widths}, the features have {found}")));
        }
        let config = self.with_widths(manifest.widths);
        let network = config.network;
        config.check()?;
        config.check_settings()?;
        let reads = config.reads();
        for (read, there, what, other) in [
            (reads.text, manifest.reads_texts(), "texts", "image"),
            (reads.image, manifest.reads_images(), "images", "text"),
        ] {
            if read && !there {
                let way = match network.settings().contains(&"modalities") {
                    true => format!("set modalities = \"{other}\" (--modalities {other})"),
                    false => format!("take another model than `{network}`, which reads {what}"),
                };
                return Err(Error::invalid(format!(
                    "the feature store was made without an encoder of {what}: {way}, or encode with one"
                )));
            }
        }
        Ok(config)
    }
}

/// How the learning rate changes over the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Not at all, once warm.
    #[default]
    Constant,
    /// It falls in a straight line to zero at the end of the last epoch.
    Linear,
    /// It falls along a cosine to zero at the end of the last epoch.
    Cosine,
}

/// Settings of training. Defaults are the paper's where it states them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// Passes over the training mentions.
    pub epochs: usize,
    /// Mentions of a step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f32,
    /// How it changes.
    pub schedule: Schedule,
    /// Steps over which it rises from zero.
    pub warmup_steps: usize,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Decay rates of AdamW's moments.
    pub betas: (f32, f32),
    /// AdamW's epsilon.
    pub eps: f32,
    /// Negatives sampled from each list and epoch; 0 takes all.
    pub negatives: usize,
    /// Draws weights, orders, negatives and dropout.
    pub seed: u64,
    /// What becomes of mentions whose list lacks the gold entity.
    pub gold_missing: GoldMissing,
    /// Steps between checkpoints within an epoch; 0 writes one at the end of each epoch only.
    pub checkpoint_steps: usize,
    /// Share of the training mentions that are trained on, in (0, 1]. Those of a smaller share are among those of a
    /// larger one of the same seed.
    pub share: f64,
}

impl Default for TrainSettings {
    fn default() -> TrainSettings {
        let AdamW { learning_rate, betas, eps, weight_decay } = AdamW::default();
        TrainSettings {
            epochs: 20,
            batch_size: 256,
            learning_rate,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            weight_decay,
            betas,
            eps,
            negatives: 0,
            seed: 0,
            gold_missing: GoldMissing::Drop,
            checkpoint_steps: 0,
            share: 1.0,
        }
    }
}

impl TrainSettings {
    /// Fails if a number makes no sense.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::invalid(format!("train: {what}")));
        let decay = |x: f32| (0.0..1.0).contains(&x);
        for (name, number) in [("epochs", self.epochs), ("batch_size", self.batch_size)] {
            if number == 0 {
                return refuse(format!("{name} = 0: must be at least 1"));
            }
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return refuse(format!("learning_rate = {} is no number above 0", self.learning_rate));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return refuse(format!("weight_decay = {} is no number of at least 0", self.weight_decay));
        }
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return refuse(format!("eps = {} is no number above 0", self.eps));
        }
        for (at, beta) in [self.betas.0, self.betas.1].into_iter().enumerate() {
            if !decay(beta) {
                return refuse(format!("betas[{at}] = {beta} is not in [0, 1)"));
            }
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            return refuse(format!("share = {} is not in (0, 1]", self.share));
        }
        Ok(())
    }

    /// Learning rate of a step, counted from 0, of a run of `steps`.
    pub fn rate(&self, step: u64, steps: u64) -> f32 {
        self.learning_rate * self.share_of_rate(step, steps)
    }

    /// The share that the rate of a step has of its peak.
    pub fn share_of_rate(&self, step: u64, steps: u64) -> f32 {
        let warm = ((step + 1) as f32 / self.warmup_steps.max(1) as f32).min(1.0);
        let left = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - step as f32 / steps.max(1) as f32,
            Schedule::Cosine => (0.5 + 0.5 * (PI * step as f64 / steps.max(1) as f64).cos()) as f32,
        };
        warm * left
    }
}

impl RunConfig {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<RunConfig> {
        let text = files::read_text_or_stream(path);
        let text = text.map_err(|error| error.if_missing("a configuration is a TOML file (docs/configuration.md)"))?;
        toml::from_str(&text).map_err(|e| Error::file(path, format!("is no configuration:\n{e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_and_falls() {
        let settings = TrainSettings {
            learning_rate: 1.0,
            warmup_steps: 4,
            schedule: Schedule::Linear,
            ..TrainSettings::default()
        };
        assert_eq!([0, 3, 5].map(|step| settings.rate(step, 10)), [0.25, 0.7, 0.5]);
        let cosine = TrainSettings { schedule: Schedule::Cosine, ..settings.clone() };
        for (step, want) in [(0, 0.25), (5, 0.5), (10, 0.0)] {
            // The cosine is rounded to f32.
            assert!((cosine.rate(step, 10) - want).abs() < 1e-6, "{step}");
        }
        assert_eq!(TrainSettings { warmup_steps: 0, schedule: Schedule::Constant, ..settings }.rate(9, 10), 1.0);
    }

    #[test]
    fn a_number_that_makes_no_sense_is_refused_by_its_own_name() {
        let default = TrainSettings::default;
        for (settings, says) in [
            (TrainSettings { weight_decay: f32::NAN, ..default() }, "weight_decay = NaN"),
            (TrainSettings { weight_decay: -1.0, ..default() }, "weight_decay = -1"),
            (TrainSettings { eps: f32::INFINITY, ..default() }, "eps = inf"),
            (TrainSettings { learning_rate: f32::NAN, ..default() }, "learning_rate = NaN"),
            (TrainSettings { betas: (f32::NAN, 0.9), ..default() }, "betas"),
            (TrainSettings { share: 0.0, ..default() }, "share = 0"),
            (TrainSettings { share: 1.5, ..default() }, "share = 1.5"),
            (TrainSettings { share: f64::NAN, ..default() }, "share = NaN"),
        ] {
            assert!(settings.check().unwrap_err().to_string().contains(says), "{says}");
        }
        default().check().unwrap();
    }

    #[test]
    fn without_a_file_the_settings_are_those_of_wikimel() {
        let file = RunConfig::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/wikimel.toml")).unwrap();
        let RunConfig { model, encode, train, encoder } = RunConfig::default();
        let encode = EncodeSettings {
            text_encoder: file.encode.text_encoder.clone(),
            image_encoder: file.encode.image_encoder.clone(),
            ..encode
        };
        assert_eq!(file, RunConfig { model, encode, train, encoder });
    }

    #[test]
    fn settings_of_a_checkpoint_without_a_share_are_of_all_mentions() {
        let mut settings = serde_json::to_value(TrainSettings { seed: 7, ..TrainSettings::default() }).unwrap();
        settings.as_object_mut().unwrap().remove("share").unwrap();
        let read: TrainSettings = serde_json::from_value(settings).unwrap();
        assert_eq!((read.share, read.seed), (1.0, 7));
    }

    #[test]
    fn unknown_settings_are_refused_by_name() {
        let error = toml::from_str::<RunConfig>("[train]\nlearning_rat = 1.0\n").unwrap_err();
        assert!(error.to_string().contains("learning_rat"), "{error}");
    }
}
