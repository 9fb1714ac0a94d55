//! One step of the optimizer on a model and its encoder.

use super::super::checkpoint::EncoderState;
use super::super::steps::Queued;
use super::{EncoderRun, Prepared};
use crate::autograd::Tape;
use crate::encoder::trained::Tuned;
use crate::error::{Error, Result};
use crate::model::{Model, Noise};
use crate::ops::{AdamW, Moments, clip_norm};
use crate::span;
use crate::tensor::Tensor;
use crate::trace::on_device;

/// What a step computes before the optimizer's turn.
pub struct Gradients {
    /// Loss of each score.
    pub losses: Tensor,
    /// Of the sum of the losses for each parameter of the model.
    pub model: Vec<Tensor>,
    /// The same for each of the encoder's weights that are trained; `None` where nothing that the model reads depends on it.
    pub encoder: Vec<Option<Tensor>>,
}

/// Settings of the optimizer in a step.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Of the model.
    pub model: AdamW,
    /// Of the encoder's weights; its biases, gains and the class have no weight decay.
    pub encoder: AdamW,
    /// The step's number, from 1.
    pub number: u64,
}

impl EncoderRun<'_> {
    /// Losses and gradients of a model and of the encoder with these weights, which lie in one place.
    pub fn gradients(
        &self,
        (model, weights): (&Model, &Tuned),
        prepared: &Prepared,
        noise: Option<Noise>,
    ) -> Result<Gradients> {
        if self.settings.chunk > 0 {
            return self.gradients_in_chunks((model, weights), prepared, noise, self.settings.chunk);
        }
        let gpu = model.gpu();
        let tape = Tape::recording().with_checkpoints(self.settings.gradient_checkpointing);
        let forward = (span!("forward"), on_device(gpu, "forward", ""));
        let (vars, own) = (weights.bind(&tape)?, model.parameters().bind(&tape));
        let batch = self.batch(&tape, &self.said((&tape, &vars, gpu), prepared, noise)?, prepared)?;
        gpu.map_or(Ok(()), |gpu| batch.arrive(gpu))?;
        let scores = model.scores(&tape, &own, &batch, noise)?;
        let losses = model.losses(&tape, &scores, &batch)?;
        // What backward needs of them is on the tape.
        drop((forward, batch, scores));
        let _backward = (span!("backward"), on_device(gpu, "backward", ""));
        let mut grads = tape.backward(&losses, Tensor::filled(losses.tensor().shape(), 1.0, gpu)?)?;
        let encoder = weights.trained().gradients_among(&vars, &mut grads)?;
        Ok(Gradients { losses: losses.into_tensor(), model: model.parameters().gradients(own, grads)?, encoder })
    }
}

/// Forward, backward and AdamW of both; gives the losses of each score. The gradients of both together are clipped first; if
/// their length is no number, nothing is changed, and `place` is named.
pub fn step(
    run: &EncoderRun,
    (model, moments, encoder): (&mut Model, &mut [Moments], &mut EncoderState),
    prepared: &Prepared,
    (noise, rates): (Noise, Rates),
    place: &str,
) -> Result<Queued> {
    let Gradients { losses, model: mut all, encoder: of_encoder } =
        run.gradients((model, &encoder.weights), prepared, Some(noise))?;
    let of_model = all.len();
    let reached: Vec<bool> = of_encoder.iter().map(Option::is_some).collect();
    all.extend(of_encoder.into_iter().flatten());
    let norm = clip_norm(&mut all, run.settings.clip_norm)?;
    if !norm.is_finite() {
        let loss: f32 = losses.to(None)?.data().iter().sum();
        return Err(Error::invalid(format!(
            "the loss is {loss} and the gradients' length {norm} at {place}; lower train.learning_rate or \
             encoder.learning_rate, or raise train.warmup_steps"
        )));
    }
    let _span = (span!("optimizer"), on_device(model.gpu(), "optimizer", ""));
    let of_encoder = all.split_off(of_model);
    if of_model > 0 {
        rates.model.step(rates.number, model.parameters_mut().tensors_mut(), &all, moments)?;
    }
    update(encoder, &reached, &of_encoder, rates)?;
    Ok(Queued { losses: losses.later()?, asked: None })
}

/// Updates the encoder's weights that the loss reached, of which these are the gradients.
fn update(encoder: &mut EncoderState, reached: &[bool], grads: &[Tensor], rates: Rates) -> Result<()> {
    let decaying = encoder.weights.decaying();
    let (tensors, moments) = (encoder.weights.trained_mut().tensors_mut(), &mut encoder.moments[..]);
    let plain = AdamW { weight_decay: 0.0, ..rates.encoder };
    let (mut at, mut grad) = (0, 0);
    // Those that follow each other and are treated alike are updated together.
    let alike = |a: usize, b: usize| reached[a] == reached[b] && (a < decaying) == (b < decaying);
    while at < reached.len() {
        let end = (at..reached.len()).find(|&next| !alike(at, next)).unwrap_or(reached.len());
        if reached[at] {
            let adamw = if at < decaying { rates.encoder } else { plain };
            let of = &grads[grad..grad + end - at];
            adamw.step(rates.number, &mut tensors[at..end], of, &mut moments[at..end])?;
            grad += end - at;
        }
        at = end;
    }
    Ok(())
}
