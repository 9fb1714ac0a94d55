//! What training an encoder along needs of memory, before any of it is taken.

use super::{EncoderRun, EncoderSettings};
use crate::bytes::Bytes;
use crate::data::Sample;
use crate::device::Gpu;
use crate::device::cpu::available_memory;
use crate::encoder::clip::{ClipConfig, Tuning, weights};
use crate::error::{Error, Result};
use crate::train::Needs;

/// Bytes of a weight, and what a trained one takes more: its gradient, two moments.
const WEIGHT: u64 = 4;
const TRAINED: u64 = 12;

/// Bytes that a step keeps of a token or a patch in a block of these sizes, at least: inputs of its layers and normalized rows.
fn kept(width: usize, inner: usize) -> u64 {
    4 * (8 * width + inner) as u64
}

/// Fails if the weights alone exceed the free memory.
pub(super) fn expect_room(config: &ClipConfig, settings: &EncoderSettings) -> Result<()> {
    let needed = weights_of(config, settings);
    match available_memory().filter(|&free| needed > free as u64) {
        None => Ok(()),
        Some(free) => Err(Error::invalid(format!(
            "training the encoder needs {} at least for its weights and AdamW, of the host's memory {} are free; raise \
             encoder.freeze_layers, or set encoder.lora_rank",
            Bytes(needed),
            Bytes::of(free)
        ))),
    }
}

fn weights_of(config: &ClipConfig, settings: &EncoderSettings) -> u64 {
    let EncoderSettings { freeze_layers, lora_rank, lora_alpha, .. } = *settings;
    let tuning = Tuning { towers: [true; 2], freeze_layers, lora_rank, lora_alpha, seed: 0 };
    let trained = tuning.count(config);
    let adapters = if lora_rank > 0 { trained.saturating_mul(WEIGHT) } else { 0 };
    weights::count(config)
        .saturating_mul(WEIGHT)
        .saturating_add(trained.saturating_mul(TRAINED))
        .saturating_add(adapters)
}

/// Tokens and images of a batch.
#[derive(Clone, Copy)]
struct Load {
    tokens: u64,
    images: u64,
}

impl EncoderRun<'_> {
    /// What a step on this batch, of those that come, keeps of the blocks that are trained.
    fn activations(&self, load: Load, freeze_layers: usize) -> u64 {
        let (text, vision) = (&self.files.config.text_config, &self.files.config.vision_config);
        let texts = kept(text.hidden_size, text.intermediate_size)
            .saturating_mul(text.num_hidden_layers.saturating_sub(freeze_layers) as u64);
        let images = kept(vision.hidden_size, vision.intermediate_size)
            .saturating_mul(vision.num_hidden_layers.saturating_sub(freeze_layers) as u64);
        let patches = load.images.saturating_mul(vision.patches() as u64);
        texts.saturating_mul(load.tokens).saturating_add(images.saturating_mul(patches))
    }

    /// The model's needs with those of the encoder, of which a step on these samples is an example. Fails if they exceed what
    /// is free where it is computed, and says what would fit.
    pub(in crate::train) fn needs(&self, model: Needs, batch: &[Sample], gpu: Option<&Gpu>) -> Result<Needs> {
        let inputs = self.inputs.batch(batch)?;
        let [texts, images] = &inputs.distinct;
        let reads = self.model.reads();
        let tokens = if reads.text { self.tokens(texts)?.iter().map(|ids| ids.len() as u64).sum() } else { 0 };
        let load = Load { tokens, images: if reads.image { images.len() as u64 } else { 0 } };
        let step = self.activations(load, self.settings.freeze_layers);
        let weights = weights_of(&self.files.config, &self.settings);
        let needs = Needs { model: model.model.saturating_add(weights), step: model.step.saturating_add(step) };
        let free = match gpu {
            Some(gpu) => Some(gpu.available()? as u64),
            None => available_memory().map(|free| free as u64),
        };
        let Some(free) = free.filter(|&free| needs.model.saturating_add(needs.step) > free) else { return Ok(needs) };
        let place = if gpu.is_some() { "device" } else { "host" };
        Err(Error::invalid(format!(
            "training with the encoder needs {} at least: {} for weights and AdamW, {} for a step on {} mentions ({tokens} tokens \
             and {} images); of the {place}'s memory {} are free; {}",
            Bytes(needs.model.saturating_add(needs.step)),
            Bytes(needs.model),
            Bytes(needs.step),
            batch.len(),
            load.images,
            Bytes(free),
            self.what_fits(needs, load, batch.len(), free)
        )))
    }

    fn what_fits(&self, needs: Needs, load: Load, mentions: usize, free: u64) -> String {
        let left = free.saturating_sub(needs.model);
        let mut ways = Vec::new();
        // A step's share grows with its mentions, or slower where they have entities in common.
        let batch = (mentions as u128 * left as u128 / needs.step.max(1) as u128) as usize;
        if batch > 0 {
            ways.push(format!("train.batch_size = {batch} would fit"));
        }
        let config = &self.files.config;
        let layers = config.text_config.num_hidden_layers.max(config.vision_config.num_hidden_layers);
        let own = needs.step.saturating_sub(self.activations(load, self.settings.freeze_layers));
        let mut deeper = self.settings.freeze_layers + 1..=layers;
        if let Some(freeze) = deeper.find(|&freeze| own.saturating_add(self.activations(load, freeze)) <= left) {
            ways.push(format!("encoder.freeze_layers = {freeze} would fit"));
        }
        if self.settings.lora_rank == 0 {
            ways.push("encoder.lora_rank saves the optimizer's memory".to_string());
        }
        ways.push("train.negatives takes fewer entities".to_string());
        ways.join("; ")
    }
}
