//! Gradients of an encoder by chunks of a batch (Gao et al., 2021): what a step keeps for the backward pass is what a chunk
//! needs, whatever the size of the batch.
//!
//! Features are computed without a tape first; the model gives their gradients; then each chunk is computed once more, on a tape
//! of its own, and its gradients are added up, in the order of the chunks.

use super::features::Said;
use super::{EncoderRun, Gradients, Prepared};
use crate::autograd::{Tape, Var};
use crate::encoder::trained::{Layers, States, Tuned};
use crate::error::Result;
use crate::model::{Model, Noise};
use crate::span;
use crate::tensor::{Ragged, Tensor, Textbook};
use crate::trace::on_device;
use crate::train::chunks::{added, chunks};

/// Gradients of the features of texts or images: of tokens and of global vectors, where the model reads them.
type OfFeatures = Option<(Ragged, [Option<Tensor>; 2])>;

impl EncoderRun<'_> {
    /// As [`EncoderRun::gradients`], so many texts or images at a time.
    pub(super) fn gradients_in_chunks(
        &self,
        (model, weights): (&Model, &Tuned),
        prepared: &Prepared,
        noise: Option<Noise>,
        size: usize,
    ) -> Result<Gradients> {
        let (losses, of_model, of_features) = {
            let said = self.said_in_chunks((model, weights), (prepared, noise), size)?;
            self.gradients_of_features(model, said, prepared, noise)?
        };
        let _backward = (span!("backward"), on_device(model.gpu(), "backward", ""));
        let mut encoder: Vec<Option<Tensor>> = weights.trained().iter().map(|_| None).collect();
        for (which, of_features) in of_features.iter().enumerate() {
            let Some((sequences, grads)) = of_features else { continue };
            for chunk in chunks(sequences.len(), size) {
                let tape = Tape::recording().with_checkpoints(self.settings.gradient_checkpointing);
                let vars = weights.bind(&tape)?;
                let layers = Layers { tape: &tape, vars: &vars, gpu: model.gpu(), masks: None };
                let States { tokens, global, .. } = self.say(layers, (prepared, noise), which, chunk.clone())?;
                let rows = sequences.range(chunk.start).start..sequences.range(chunk.end - 1).end;
                let mut seeds = Vec::new();
                for ((output, grad), rows) in [&tokens, &global].into_iter().zip(grads).zip([rows, chunk]) {
                    if let Some(grad) = grad.as_ref().filter(|_| output.is_tracked()) {
                        seeds.push((output, grad.rows(rows)?));
                    }
                }
                // Below what is trained, nothing flows.
                if seeds.is_empty() {
                    continue;
                }
                let mut grads = tape.backward_of(seeds)?;
                for (sum, grad) in encoder.iter_mut().zip(weights.trained().gradients_among(&vars, &mut grads)?) {
                    *sum = added(sum.take(), grad)?;
                }
            }
        }
        Ok(Gradients { losses, model: of_model, encoder })
    }

    /// What the towers say of a batch, as constants.
    fn said_in_chunks(
        &self,
        (model, weights): (&Model, &Tuned),
        (prepared, noise): (&Prepared, Option<Noise>),
        size: usize,
    ) -> Result<Said> {
        let _forward = (span!("forward"), on_device(model.gpu(), "forward", ""));
        let tape = Tape::inference();
        let vars = weights.bind(&tape)?;
        let layers = Layers { tape: &tape, vars: &vars, gpu: model.gpu(), masks: None };
        let all = |which: usize| -> Result<Option<States>> {
            let parts =
                chunks(prepared.len(which), size).map(|chunk| self.say(layers, (prepared, noise), which, chunk));
            joined(parts.collect::<Result<_>>()?)
        };
        Ok([all(0)?, all(1)?])
    }

    /// Losses, gradients of the model, and those of the features that it reads.
    fn gradients_of_features(
        &self,
        model: &Model,
        said: Said,
        prepared: &Prepared,
        noise: Option<Noise>,
    ) -> Result<(Tensor, Vec<Tensor>, [OfFeatures; 2])> {
        let gpu = model.gpu();
        let tape = Tape::recording();
        let own = model.parameters().bind(&tape);
        let leaves = said.map(|states| {
            let leaf = |x: Var| tape.leaf(x.into_tensor());
            states.map(|States { tokens, sequences, global }| States {
                tokens: leaf(tokens),
                sequences,
                global: leaf(global),
            })
        });
        let batch = self.batch(&tape, &leaves, prepared)?;
        gpu.map_or(Ok(()), |gpu| batch.arrive(gpu))?;
        let scores = model.scores(&tape, &own, &batch, noise)?;
        let losses = model.losses(&tape, &scores, &batch)?;
        drop((batch, scores));
        let mut grads = tape.backward(&losses, Tensor::filled(losses.tensor().shape(), 1.0, gpu)?)?;
        let of_features = leaves.map(|states| {
            states.map(|States { tokens, sequences, global }| (sequences, [grads.take(&tokens), grads.take(&global)]))
        });
        Ok((losses.into_tensor(), model.parameters().gradients(own, grads)?, of_features))
    }
}

/// What was said of parts of a batch, as one; nothing of no part.
fn joined(parts: Vec<States>) -> Result<Option<States>> {
    if parts.is_empty() {
        return Ok(None);
    }
    let lengths: Vec<usize> = parts.iter().flat_map(|part| part.sequences.ranges().map(|range| range.len())).collect();
    let textbook = Textbook { sequences: lengths.len(), length: lengths.iter().copied().max().unwrap_or(0) };
    let stacked = |of: fn(&States) -> &Var| {
        Tensor::stacked(&parts.iter().map(|part| of(part).tensor()).collect::<Vec<_>>()).map(Var::constant)
    };
    let (tokens, global) = (stacked(|part| &part.tokens)?, stacked(|part| &part.global)?);
    Ok(Some(States { tokens, sequences: Ragged::new(lengths, textbook)?, global }))
}
