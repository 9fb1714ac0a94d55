//! One step on a batch of pairs.

use super::config::PretrainSettings;
use super::gradients::Batch;
use crate::autograd::{Parameters, Profile};
use crate::device::Gpu;
use crate::encoder::clip::ClipConfig;
use crate::encoder::clip::weights::decaying;
use crate::error::{Error, Result};
use crate::ops::{Moments, clip_norm};
use crate::span;
use crate::tensor::Tensor;

/// Bounds of the scale's logarithm: cosines are multiplied by 1 at least and by 100 at most, as CLIP's are.
const LOG_SCALES: [f32; 2] = [0.0, 4.605_170_2];

/// A step of a run.
pub struct Step<'a> {
    /// Sizes of the encoders.
    pub config: &'a ClipConfig,
    /// How they are trained.
    pub settings: &'a PretrainSettings,
    /// Steps before it, and those of the whole run.
    pub number: (u64, u64),
    /// Which it is, for errors.
    pub place: &'a str,
    /// Where the weights lie; `None` for the host.
    pub gpu: Option<&'a Gpu>,
    /// Notes the operations, if given.
    pub profile: Option<&'a Profile>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug)]
pub struct Stepped {
    /// Text to image, image to text.
    pub losses: [f32; 2],
    /// Length of the gradients before it was clipped.
    pub norm: f64,
    /// Whether the scale left its bounds and was put back.
    pub clamped: bool,
}

impl Step<'_> {
    /// Forward, backward and AdamW, on texts given by the numbers of their tokens and as many images as the processor prepares
    /// them. Fails, and changes nothing, where the losses or the gradients are not finite.
    pub fn run(
        &self,
        (parameters, moments): (&mut Parameters, &mut [Moments]),
        texts: &[&[u32]],
        images: &[&[f32]],
    ) -> Result<Stepped> {
        let Step { config, settings, gpu, profile, .. } = *self;
        let batch = Batch {
            config,
            parameters,
            gradient_checkpointing: settings.gradient_checkpointing,
            gpu,
            profile,
            texts,
            images,
        };
        let (losses, mut grads) = batch.gradients(settings.chunk)?;
        let losses = losses.to(None)?;
        let norm = clip_norm(&mut grads, settings.clip_norm)?;
        let &[to_image, to_text] = losses.data() else { return Err(Error::invalid("losses that are not two")) };
        if !(losses.all_finite() && norm.is_finite()) {
            let (loss, place) = ((to_image + to_text) / 2.0, self.place);
            return Err(Error::invalid(format!(
                "the loss is {loss} and the gradients' length {norm} at {place}; lower train.learning_rate or \
                 train.weight_decay, or raise train.warmup_steps"
            )));
        }
        let _span = span!("optimizer");
        // Those that decay stand first.
        let split = decaying(config);
        let (weights, others) = parameters.tensors_mut().split_at_mut(split);
        let ((weight_grads, grads), (weight_moments, moments)) = (grads.split_at(split), moments.split_at_mut(split));
        let (before, steps) = self.number;
        settings.adamw(before, steps, true).step(before + 1, weights, weight_grads, weight_moments)?;
        settings.adamw(before, steps, false).step(before + 1, others, grads, moments)?;
        let clamped = others.last_mut().map(clamp).transpose()?.unwrap_or(false);
        Ok(Stepped { losses: [to_image, to_text], norm, clamped })
    }
}

/// Puts the scale's logarithm back into its bounds; says whether it was outside.
fn clamp(log_scale: &mut Tensor) -> Result<bool> {
    let gpu = log_scale.gpu().cloned();
    let mut here = log_scale.to(None)?;
    let [least, most] = LOG_SCALES;
    let (value, bounded) = (here.data()[0], here.data()[0].clamp(least, most));
    if value == bounded {
        return Ok(false);
    }
    here.data_mut()[0] = bounded;
    *log_scale = here.to(gpu.as_ref())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_outside_of_its_bounds_is_put_back() {
        for (value, want, clamped) in [(2.0, 2.0, false), (9.0, 100f32.ln(), true), (-1.0, 0.0, true)] {
            let mut scale = Tensor::new([1], vec![value]).unwrap();
            assert_eq!(clamp(&mut scale).unwrap(), clamped);
            assert_eq!(scale.data(), [want]);
        }
    }
}
