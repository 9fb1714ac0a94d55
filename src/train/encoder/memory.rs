//! What training an encoder along needs of memory, before any of it is taken.

use super::{EncoderRun, EncoderSettings};
use crate::bytes::Bytes;
use crate::data::Sample;
use crate::device::Gpu;
use crate::device::cpu::available_memory;
use crate::encoder::trained::{Parameter, Shapes, Tuning, weights};
use crate::error::{Error, Result};
use crate::train::Needs;
use crate::train::activations::{Load, Saving, activations, states};

/// Bytes of a weight, and what a trained one takes more: its gradient, two moments.
const WEIGHT: u64 = 4;
const TRAINED: u64 = 12;

/// Bytes of an encoder's weights and of what training them takes.
fn weights_of(parameters: &[Parameter], tuning: &Tuning) -> u64 {
    let trained = tuning.count(parameters);
    let adapters = if tuning.lora_rank > 0 { trained } else { 0 };
    let all = weights::count(parameters).saturating_add(adapters);
    all.saturating_mul(WEIGHT).saturating_add(trained.saturating_mul(TRAINED))
}

/// Fails if the weights alone exceed the free memory.
pub(super) fn expect_room(parameters: &[Parameter], tuning: &Tuning) -> Result<()> {
    let needed = weights_of(parameters, tuning);
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

/// Bytes that a step on this batch keeps, at least: of the blocks that are trained, and with chunks the features of all besides.
fn step(shapes: &Shapes, load: Load, saving: Saving) -> u64 {
    let all = activations(shapes, load, Saving { chunk: 0, ..saving });
    match saving.chunk {
        0 => all,
        _ => activations(shapes, load, saving).saturating_add(states(shapes, load)).min(all),
    }
}

impl From<&EncoderSettings> for Saving {
    fn from(settings: &EncoderSettings) -> Saving {
        let EncoderSettings { freeze_layers, chunk, gradient_checkpointing, .. } = *settings;
        Saving { freeze_layers, chunk, gradient_checkpointing }
    }
}

/// What to change so that what is needed at least, on a batch of so many mentions, is no more than what is free.
fn what_may_fit(
    shapes: &Shapes,
    settings: &EncoderSettings,
    (needs, free): (Needs, u64),
    (load, mentions): (Load, usize),
) -> String {
    let saving = Saving::from(settings);
    let Saving { freeze_layers, chunk, gradient_checkpointing } = saving;
    let Some(left) = free.checked_sub(needs.model) else {
        return "raise encoder.freeze_layers or set encoder.lora_rank, so that AdamW needs less".to_string();
    };
    // What is not the encoder's.
    let other = needs.step.saturating_sub(step(shapes, load, saving));
    let fits = |saving: Saving| other.saturating_add(step(shapes, load, saving)) <= left;
    let mut ways = Vec::new();
    if !gradient_checkpointing && fits(Saving { gradient_checkpointing: true, ..saving }) {
        ways.push("encoder.gradient_checkpointing = true may".to_string());
    }
    // A step takes less of fewer mentions, in proportion where they have no entities in common.
    let batch = mentions as u128 * left as u128 / needs.step.max(1) as u128;
    if batch > 0 {
        ways.push(format!("train.batch_size = {batch} may"));
    }
    let mut smaller = [256, 64, 16, 4, 1].into_iter().filter(|&size| chunk == 0 || size < chunk);
    if let Some(chunk) = smaller.find(|&chunk| fits(Saving { chunk, ..saving })) {
        ways.push(format!("encoder.chunk = {chunk} may"));
    }
    let layers = shapes.text.layers.max(shapes.vision.layers);
    if let Some(freeze) = (freeze_layers + 1..=layers).find(|&freeze_layers| fits(Saving { freeze_layers, ..saving })) {
        ways.push(format!("encoder.freeze_layers = {freeze} may"));
    }
    match ways.is_empty() {
        true => "take a smaller encoder".to_string(),
        false => format!("{} fit", ways.join(", ")),
    }
}

impl EncoderRun<'_> {
    /// The model's needs with those of the encoder, of which a step on these samples is an example. Fails if they exceed what
    /// is free where it is computed, and says what may fit.
    pub(in crate::train) fn needs(&self, model: Needs, batch: &[Sample], gpu: Option<&Gpu>) -> Result<Needs> {
        let inputs = self.inputs.batch(batch)?;
        let ([texts, images], reads) = (&inputs.distinct, self.model.reads());
        let ids = if reads.text { self.tokens(texts)? } else { Vec::new() };
        let load = Load {
            texts: ids.len() as u64,
            tokens: ids.iter().map(|ids| self.files.computed(ids.len()) as u64).sum(),
            images: if reads.image { images.len() as u64 } else { 0 },
        };
        let (shapes, settings) = (&self.files.shapes(), &self.settings);
        let step = step(shapes, load, settings.into());
        let weights = weights_of(&self.files.parameters(), &self.tuning);
        let needs = Needs { model: model.model.saturating_add(weights), step: model.step.saturating_add(step) };
        let (free, place) = match gpu {
            Some(gpu) => (Some(gpu.available()? as u64), "device"),
            None => (available_memory().map(|free| free as u64), "host"),
        };
        let Some(free) = free.filter(|&free| needs.model.saturating_add(needs.step) > free) else { return Ok(needs) };
        Err(Error::invalid(format!(
            "training with the encoder needs {} at least, {} for weights and AdamW and {} for a step on {} mentions ({} tokens, \
             {} images), of the {place}'s memory {} are free; {}",
            Bytes(needs.model.saturating_add(needs.step)),
            Bytes(needs.model),
            Bytes(needs.step),
            batch.len(),
            load.tokens,
            load.images,
            Bytes(free),
            what_may_fit(shapes, settings, (needs, free), (load, batch.len()))
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::clip::ClipConfig;
    use crate::encoder::resnet::ResNetConfig;

    #[test]
    fn what_may_fit_is_said_by_its_settings() {
        let (shapes, settings) = (ClipConfig::default().shapes(), EncoderSettings::default());
        let load = Load { texts: 700, tokens: 14_000, images: 700 };
        let saving =
            |freeze_layers: usize, chunk: usize| Saving { freeze_layers, chunk, gradient_checkpointing: false };
        let whole = step(&shapes, load, saving(0, 0));
        // Of each patch in each of twelve blocks: eight rows of 768 and one of 3072 values.
        assert!(whole > 700 * 50 * 12 * 4 * (8 * 768 + 3072));
        let needs = Needs { model: 1_000_000_000, step: whole };
        let said = |free: u64| what_may_fit(&shapes, &settings, (needs, free), (load, 64));
        let half = said(needs.model + whole / 2);
        for says in [
            "encoder.gradient_checkpointing = true may",
            "train.batch_size = 32 may",
            "encoder.chunk = 256 may",
            "encoder.freeze_layers = 6 may",
        ] {
            assert!(half.contains(says), "{half}");
        }
        // Of both towers' rows what goes into each layer, and one layer of patches.
        let kept = 4 * (14_000 * 12 * 512 + 700 * 50 * (12 * 768 + 7 * 768 + 3072));
        assert_eq!(step(&shapes, load, Saving { gradient_checkpointing: true, ..saving(0, 0) }), kept);
        let settings = EncoderSettings { gradient_checkpointing: true, ..settings.clone() };
        assert!(
            !what_may_fit(&shapes, &settings, (needs, needs.model + whole / 2), (load, 64)).contains("checkpointing")
        );
        let hundredth = said(needs.model + whole / 100);
        assert!(hundredth.contains("encoder.chunk = 1 may") && !hundredth.contains("batch_size"), "{hundredth}");
        assert!(said(needs.model / 2).contains("encoder.lora_rank"));
        // With every block frozen nothing is kept of them, and chunks never need more than all at once.
        assert_eq!(step(&shapes, load, saving(12, 0)), 0);
        assert!(step(&shapes, load, saving(0, 1000)) <= whole);
        let endless = Load { texts: u64::MAX, tokens: u64::MAX, images: u64::MAX };
        assert_eq!(step(&shapes, endless, saving(0, 0)), u64::MAX);
    }

    #[test]
    fn a_step_keeps_of_each_bottleneck_what_its_maps_are() {
        let shapes = ResNetConfig { depths: vec![3, 4, 23, 3], ..ResNetConfig::default() }.shapes(224);
        assert_eq!((shapes.vision.layers, shapes.vision.width, shapes.patches), (33, 2048, 49));
        let saving = Saving { freeze_layers: 0, chunk: 0, gradient_checkpointing: false };
        let load = Load { texts: 0, tokens: 0, images: 2 };
        let of = |freeze_layers: usize| step(&shapes, load, Saving { freeze_layers, ..saving });
        // Two images' f32, narrow maps and the output: of the last, of the first, and of the one that strides.
        assert_eq!((of(33), of(32)), (0, 2 * 4 * 7 * 7 * (512 + 512 + 2048)));
        assert_eq!(of(0) - of(1), 2 * 4 * 56 * 56 * (64 + 64 + 256));
        assert_eq!(of(3) - of(4), 2 * 4 * (56 * 56 * 128 + 28 * 28 * (128 + 512)));
        // Of the last two alone what goes in, and the last one's narrow maps.
        let checkpointed = Saving { freeze_layers: 31, gradient_checkpointing: true, ..saving };
        assert_eq!(step(&shapes, load, checkpointed), 2 * 4 * 7 * 7 * (2048 + 2 * 512 + 2048));
    }
}
