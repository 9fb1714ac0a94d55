//! How an encoder is trained along with a model (docs/configuration.md, `[encoder]`).

use std::ops::Not;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The largest rank that makes sense: with it, no count of values overflows.
const LARGEST: usize = 1 << 16;

/// Settings of an encoder that is trained along. What it shares with the model's training is in
/// [`TrainSettings`](crate::train::TrainSettings).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncoderSettings {
    /// Peak learning rate of the encoder; it rises and falls as the model's does.
    pub learning_rate: f32,
    /// Layers of each tower that stay as they are, from below, and with them the embeddings; 0 trains all.
    pub freeze_layers: usize,
    /// Most length of all gradients together, the model's and the encoder's.
    pub clip_norm: f32,
    /// Texts or images whose activations a step keeps at a time, each of which is computed twice then; 0 keeps all.
    pub chunk: usize,
    /// Whether the input alone is kept of each layer, which backward computes again: the same bits in less memory.
    pub gradient_checkpointing: bool,
    /// Rank of LoRA on queries and values; 0 trains the weights themselves.
    pub lora_rank: usize,
    /// LoRA's product counts `lora_alpha / lora_rank` times.
    pub lora_alpha: f32,
    /// Probability with which a value is dropped of what goes into a tower's layers, and of what each adds, in [0, 1).
    pub dropout: f32,
}

/// How encoders are trained along, beside what the model's training has: what runs and models keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Along {
    /// Of the configuration.
    #[serde(flatten)]
    pub settings: EncoderSettings,
    /// Whether texts and images have an encoder each.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub two_encoders: bool,
}

impl Default for EncoderSettings {
    fn default() -> EncoderSettings {
        EncoderSettings {
            learning_rate: 1e-5,
            freeze_layers: 0,
            clip_norm: 1.0,
            chunk: 0,
            gradient_checkpointing: false,
            lora_rank: 0,
            lora_alpha: 16.0,
            dropout: 0.0,
        }
    }
}

impl EncoderSettings {
    /// Fails if a number makes no sense.
    pub fn check(&self) -> Result<()> {
        let EncoderSettings { learning_rate, clip_norm, lora_rank, lora_alpha, dropout, .. } = *self;
        for (name, value) in [("learning_rate", learning_rate), ("clip_norm", clip_norm), ("lora_alpha", lora_alpha)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::invalid(format!("encoder: {name} = {value} is no number above 0")));
            }
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(Error::invalid(format!("encoder: dropout = {dropout} is not in [0, 1)")));
        }
        if lora_rank > LARGEST {
            return Err(Error::invalid(format!("encoder: lora_rank = {lora_rank} is beyond {LARGEST}, the largest")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_makes_no_sense_is_refused_by_its_own_name() {
        let default = EncoderSettings::default;
        for (settings, says) in [
            (EncoderSettings { learning_rate: 0.0, ..default() }, "learning_rate = 0"),
            (EncoderSettings { clip_norm: f32::NAN, ..default() }, "clip_norm = NaN"),
            (EncoderSettings { lora_alpha: -1.0, ..default() }, "lora_alpha = -1"),
            (EncoderSettings { lora_rank: usize::MAX, ..default() }, "lora_rank"),
            (EncoderSettings { dropout: 1.0, ..default() }, "dropout = 1"),
            (EncoderSettings { dropout: f32::NAN, ..default() }, "dropout = NaN"),
        ] {
            assert!(settings.check().unwrap_err().to_string().contains(says), "{says}");
        }
        default().check().unwrap();
    }
}
