//! What pre-training needs of memory, before any of it is taken.

use super::config::PretrainSettings;
use super::pairs::PreparedPairs;
use crate::bytes::Bytes;
use crate::device::Gpu;
use crate::device::cpu::available_memory;
use crate::encoder::clip::{ClipConfig, weights};
use crate::error::{Error, Result};
use crate::train::activations::{Load, Saving, activations};

/// Bytes of a parameter: its value, its gradient, two moments.
const PARAMETER: u64 = 16;

/// A batch of pairs whose texts have so many tokens in the mean.
fn load(pairs: usize, tokens: f64) -> Load {
    Load { texts: pairs as u64, tokens: (pairs as f64 * tokens) as u64, images: pairs as u64 }
}

/// Fails if the weights, AdamW's moments and what a step keeps exceed what is free where it is computed; says what may fit.
pub fn check(config: &ClipConfig, settings: &PretrainSettings, pairs: &PreparedPairs, gpu: Option<&Gpu>) -> Result<()> {
    let (free, place) = match gpu {
        Some(gpu) => {
            // Weights and both moments are made on the host, wherever they go then.
            let made = weights::count(config).saturating_mul(PARAMETER - 4);
            if let Some(free) = available_memory().filter(|&free| made > free as u64) {
                return Err(Error::invalid(format!(
                    "the encoders and AdamW take {} of the host's memory until they are on the device, {} are free; lower the sizes \
                     in [model]",
                    Bytes(made),
                    Bytes::of(free)
                )));
            }
            (Some(gpu.available()?), "device")
        }
        None => (available_memory(), "host"),
    };
    let lengths = || pairs.texts().iter().flatten().map(Vec::len);
    let tokens = lengths().sum::<usize>() as f64 / lengths().count().max(1) as f64;
    match free {
        Some(free) => expect_room(config, settings, (pairs.len(), tokens), (free as u64, place)),
        None => Ok(()),
    }
}

fn expect_room(
    config: &ClipConfig,
    settings: &PretrainSettings,
    (pairs, tokens): (usize, f64),
    (free, place): (u64, &str),
) -> Result<()> {
    let (batch, chunk) = (settings.batch_size.min(pairs), settings.chunk);
    let weights = weights::count(config).saturating_mul(PARAMETER);
    let checkpointing = settings.gradient_checkpointing;
    let step = |pairs: usize, chunk: usize, gradient_checkpointing: bool| {
        let saving = Saving { freeze_layers: 0, chunk, gradient_checkpointing };
        activations(&config.shapes(), load(pairs, tokens), saving)
    };
    let needed = weights.saturating_add(step(batch, chunk, checkpointing));
    if needed <= free {
        return Ok(());
    }
    let left = free.saturating_sub(weights);
    let mut ways = Vec::new();
    // The same bits: it comes first.
    if !checkpointing && step(batch, chunk, true) <= left {
        ways.push("train.gradient_checkpointing = true may".to_string());
    }
    let smaller = [256, 64, 16, 4, 1]
        .into_iter()
        .find(|&size| (chunk == 0 || size < chunk) && step(batch, size, checkpointing) <= left);
    if let Some(size) = smaller {
        ways.push(format!("train.chunk = {size} may"));
    }
    // A smaller batch is another training: it comes last.
    let fewer = (2..batch).rev().find(|&pairs| chunk == 0 && step(pairs, 0, checkpointing) <= left);
    if let Some(pairs) = fewer {
        ways.push(format!("train.batch_size = {pairs} may"));
    }
    let advice = match ways.is_empty() {
        true => "lower the sizes in [model]".to_string(),
        false => format!("{} fit", ways.join(", ")),
    };
    Err(Error::invalid(format!(
        "training needs {} at least, {} for the encoders and AdamW and {} for a step on {batch} pairs, of the {place}'s memory \
         {} are free; {advice}",
        Bytes(needed),
        Bytes(weights),
        Bytes(needed - weights),
        Bytes(free)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_fit_is_said_by_its_settings() {
        let config = ClipConfig { projection_dim: 512, ..ClipConfig::default() };
        let settings = PretrainSettings { batch_size: 1024, ..PretrainSettings::default() };
        let weights = 16 * weights::count(&config);
        let saving = Saving { freeze_layers: 0, chunk: 0, gradient_checkpointing: false };
        let step = activations(&config.shapes(), load(1024, 16.0), saving);
        let said = |settings: &PretrainSettings, free: u64| {
            expect_room(&config, settings, (5000, 16.0), (free, "host")).map_err(|e| e.to_string())
        };
        assert!(said(&settings, weights + step).is_ok());
        let half = said(&settings, weights + step / 2).unwrap_err();
        assert!(
            half.contains("1024 pairs")
                && half.contains(
                    "train.gradient_checkpointing = true may, train.chunk = 256 may, train.batch_size = 512 may fit"
                ),
            "{half}"
        );
        // One row of ten is kept of each of twelve layers, and one layer of them is whole: a fifth.
        let checkpointed = PretrainSettings { gradient_checkpointing: true, ..settings.clone() };
        assert!(said(&checkpointed, weights + step / 5).is_ok());
        let less = said(&checkpointed, weights + step / 20).unwrap_err();
        assert!(less.contains("train.chunk = ") && !less.contains("gradient_checkpointing"), "{less}");
        let chunked = PretrainSettings { chunk: 256, ..settings.clone() };
        assert!(said(&chunked, weights + step / 2).is_ok());
        let less = said(&chunked, weights + step / 16).unwrap_err();
        assert!(less.contains("train.chunk = 16 may fit") || less.contains("train.chunk = 64 may fit"), "{less}");
        let none = said(&settings, weights / 2).unwrap_err();
        assert!(none.contains("lower the sizes in [model]"), "{none}");
    }
}
