//! Arithmetic and memory traffic of a training step, operation by operation.

use half::f16;
use serde::Serialize;

use super::synthetic::Shape;
use crate::autograd::{Cost, Tape};
use crate::encoder::clip::ClipConfig;
use crate::error::Result;
use crate::model::{Model, ModelConfig, Noise, Scorer};

/// Cost of all runs of one operation in a step.
#[derive(Clone, Debug, Serialize)]
pub struct OpCost {
    /// The operation.
    pub op: &'static str,
    /// How often a step runs it.
    pub calls: usize,
    /// All calls together.
    pub cost: Cost,
}

/// Cost of a training step.
#[derive(Clone, Debug, Serialize)]
pub struct StepCost {
    /// The batch.
    pub shape: Shape,
    /// Trainable parameters.
    pub parameters: usize,
    /// Bytes of the features, stored as f16: the least that a device loads of them in one pass.
    pub feature_bytes: u64,
    /// In the order in which a step first runs them.
    pub ops: Vec<OpCost>,
    /// All of them.
    pub total: Cost,
    /// FLOPs of scoring a prepared mention against its prepared candidates, of a model that can be prepared.
    pub prepared: Option<u64>,
}

/// Counts a training step on a batch of this shape, whose lengths are drawn by seed.
pub fn training_step(config: ModelConfig, shape: Shape, seed: u64) -> Result<StepCost> {
    let batch = shape.batch(config.widths, seed)?;
    let model = Model::new(config, seed)?;
    let tape = Tape::inference().profiled();
    let vars = model.parameters().bind(&tape);
    let noise = Noise { seed, step: 0 };
    let scores = model.scores(&tape, &vars, &batch, Some(noise))?;
    model.losses(&tape, &scores, &batch)?;
    let mut ops: Vec<OpCost> = Vec::new();
    for sample in tape.samples() {
        match ops.iter_mut().find(|op| op.op == sample.op) {
            Some(op) => {
                op.calls += 1;
                op.cost += sample.cost;
            }
            None => ops.push(OpCost { op: sample.op, calls: 1, cost: sample.cost }),
        }
    }
    let total = ops.iter().map(|op| op.cost).sum();
    let rows = [2 * shape.mean_tokens, 2 * shape.patches];
    let prepared = match model.config().network.prepares() {
        true => Some(shape.candidates as u64 * Scorer::new(&model)?.flops(&rows)),
        false => None,
    };
    let modalities = [&batch.mention, &batch.entity].into_iter().flat_map(|side| [&side.text, &side.image]);
    let features = modalities.flat_map(|modality| [&modality.tokens, &modality.global]);
    let feature_bytes = features.map(|rows| (rows.len() * rows.table.width() * size_of::<f16>()) as u64).sum();
    Ok(StepCost { shape, parameters: model.parameters().count(), feature_bytes, ops, total, prepared })
}

/// FLOPs of encoding what one sample needs: a mention and its candidates, a text and an image each. Caching the
/// features spares all of it but the first time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EncoderCost {
    /// Texts at their own length.
    pub text: u64,
    /// Texts padded to the longest that is read, as far as the encoder takes it.
    pub textbook_text: u64,
    /// Images.
    pub image: u64,
}

impl EncoderCost {
    /// Of a sample of this shape, each text as long as their mean.
    pub fn per_sample(clip: &ClipConfig, shape: &Shape) -> Result<EncoderCost> {
        let items = 1 + shape.candidates as u64;
        let padded = shape.max_tokens.min(clip.text_config.max_position_embeddings);
        Ok(EncoderCost {
            text: items * clip.text_cost(shape.mean_tokens)?.forward,
            textbook_text: items * clip.text_cost(padded)?.forward,
            image: items * clip.image_cost()?.forward,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_textbooks_attention_is_what_pytorch_counts() {
        let shape = Shape { mentions: 1, ..Shape::WIKIDIVERSE };
        let step = training_step(ModelConfig::default(), shape, 0).unwrap();
        let attention = step.ops.iter().find(|op| op.op == "cross_attention").unwrap();
        // PyTorch's FlopCounterMode counts the products alone; biases, softmax, residual and norm are little besides.
        let (products, counted) = (145.25e6, attention.cost.textbook_forward as f64);
        assert!(counted >= products && counted < 1.001 * products, "{counted}");
    }

    #[test]
    fn a_textbook_pads_to_the_longest_text_that_is_read() {
        let clip = ClipConfig { projection_dim: 512, ..ClipConfig::default() };
        let of =
            |max_tokens: usize| EncoderCost::per_sample(&clip, &Shape { max_tokens, ..Shape::WIKIDIVERSE }).unwrap();
        assert_eq!(of(64).textbook_text, 11 * clip.text_cost(64).unwrap().forward);
        assert_eq!(of(100).textbook_text, 11 * clip.text_cost(77).unwrap().forward);
    }
}
