//! A pre-training's configuration file (docs/pretraining.md, configs/pretrain.toml).

use std::f64::consts::PI;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::encoder::clip::ClipSizes;
use crate::error::{Error, Result};
use crate::files;
use crate::ops::AdamW;

/// Everything a pre-training is made of, but for its pairs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PretrainConfig {
    /// Sizes of the encoders; of no effect where they are those of a model that there is.
    pub model: ClipSizes,
    /// How they are trained.
    pub train: PretrainSettings,
}

/// Settings of pre-training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PretrainSettings {
    /// Passes over the images.
    pub epochs: usize,
    /// Pairs of a step; each pair's negatives are the others.
    pub batch_size: usize,
    /// Texts or images whose activations are kept at a time, which bounds memory; 0 keeps those of the whole batch.
    pub chunk: usize,
    /// Whether the input alone is kept of each layer, which backward computes again: the same bits in less memory.
    pub gradient_checkpointing: bool,
    /// Peak learning rate.
    pub learning_rate: f32,
    /// Steps over which it rises from zero; from there on it falls to zero along a cosine.
    pub warmup_steps: u64,
    /// Decoupled weight decay of weights and embeddings; biases, gains, the class and the temperature have none.
    pub weight_decay: f32,
    /// Decay rates of AdamW's moments.
    pub betas: (f32, f32),
    /// AdamW's epsilon.
    pub eps: f32,
    /// Most length of all gradients together.
    pub clip_norm: f32,
    /// Draws weights, orders, and which of an image's texts an epoch reads.
    pub seed: u64,
    /// Steps between checkpoints within an epoch; 0 writes one at the end of each epoch only.
    pub checkpoint_steps: usize,
}

impl Default for PretrainSettings {
    fn default() -> PretrainSettings {
        PretrainSettings {
            epochs: 30,
            batch_size: 128,
            chunk: 0,
            gradient_checkpointing: false,
            learning_rate: 1e-3,
            warmup_steps: 100,
            // As CLIP's.
            weight_decay: 0.2,
            betas: (0.9, 0.98),
            eps: 1e-6,
            clip_norm: 1.0,
            seed: 0,
            checkpoint_steps: 0,
        }
    }
}

impl PretrainSettings {
    /// Fails if a number makes no sense.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::invalid(format!("train: {what}")));
        let (positive, decay) = (|x: f32| x > 0.0 && x.is_finite(), |x: f32| (0.0..1.0).contains(&x));
        if self.epochs == 0 {
            return refuse("epochs = 0: must be at least 1".into());
        }
        if self.batch_size < 2 {
            let size = self.batch_size;
            return refuse(format!(
                "batch_size = {size}: the negatives of a pair are the others of its batch, so 2 at least"
            ));
        }
        for (name, value) in [("learning_rate", self.learning_rate), ("eps", self.eps), ("clip_norm", self.clip_norm)] {
            if !positive(value) {
                return refuse(format!("{name} = {value} is no number above 0"));
            }
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return refuse(format!("weight_decay = {} is no number of at least 0", self.weight_decay));
        }
        for (at, beta) in [self.betas.0, self.betas.1].into_iter().enumerate() {
            if !decay(beta) {
                return refuse(format!("betas[{at}] = {beta} is not in [0, 1)"));
            }
        }
        Ok(())
    }

    /// Learning rate of a step, counted from 0, of a run of `steps`.
    pub fn rate(&self, step: u64, steps: u64) -> f32 {
        let warm = self.warmup_steps.min(steps);
        let part = match step.checked_sub(warm) {
            None => (step + 1) as f64 / warm as f64,
            Some(after) => (1.0 + (PI * after as f64 / (steps - warm).max(1) as f64).cos()) / 2.0,
        };
        (self.learning_rate as f64 * part) as f32
    }

    /// The optimizer of a step, with its weight decay or without.
    pub fn adamw(&self, step: u64, steps: u64, decays: bool) -> AdamW {
        let weight_decay = if decays { self.weight_decay } else { 0.0 };
        AdamW { learning_rate: self.rate(step, steps), betas: self.betas, eps: self.eps, weight_decay }
    }
}

impl PretrainConfig {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<PretrainConfig> {
        let text = files::read_text_or_stream(path);
        let text = text.map_err(|error| error.if_missing("a configuration is a TOML file (docs/pretraining.md)"))?;
        toml::from_str(&text).map_err(|e| Error::file(path, format!("is no configuration of a pre-training:\n{e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::clip::weights;

    #[test]
    fn the_rate_warms_up_and_falls_along_a_cosine() {
        let settings = PretrainSettings { learning_rate: 1.0, warmup_steps: 4, ..PretrainSettings::default() };
        let rates = [0, 3, 4, 6, 8].map(|step| settings.rate(step, 8));
        for (got, want) in rates.into_iter().zip([0.25, 1.0, 1.0, 0.5, 0.0]) {
            assert!((got - want).abs() < 1e-6, "{rates:?}");
        }
        // A run that is shorter than its warm-up.
        assert_eq!(settings.rate(1, 2), 1.0);
    }

    #[test]
    fn a_number_that_makes_no_sense_is_refused_by_its_own_name() {
        let default = PretrainSettings::default;
        for (settings, says) in [
            (PretrainSettings { batch_size: 1, ..default() }, "batch_size = 1"),
            (PretrainSettings { epochs: 0, ..default() }, "epochs"),
            (PretrainSettings { clip_norm: 0.0, ..default() }, "clip_norm = 0"),
            (PretrainSettings { learning_rate: f32::NAN, ..default() }, "learning_rate = NaN"),
            (PretrainSettings { weight_decay: -1.0, ..default() }, "weight_decay = -1"),
            (PretrainSettings { betas: (0.9, 1.0), ..default() }, "betas[1] = 1 is"),
        ] {
            assert!(settings.check().unwrap_err().to_string().contains(says), "{says}");
        }
        default().check().unwrap();
    }

    #[test]
    fn the_file_that_is_shipped_says_what_holds_without_one() {
        let file = PretrainConfig::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/pretrain.toml")).unwrap();
        assert_eq!(file, PretrainConfig::default());
    }

    #[test]
    fn the_other_files_that_are_shipped_are_of_the_sizes_that_they_name() {
        for (name, parameters) in [("pretrain-vit-b-32.toml", 151_277_313), ("demo-encoder.toml", 2_316_801)] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name);
            let PretrainConfig { model, train } = PretrainConfig::read(&path).unwrap();
            train.check().unwrap();
            assert_eq!(weights::count(&model.checked().unwrap()), parameters, "{name}");
        }
    }
}
