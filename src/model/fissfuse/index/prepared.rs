//! What depends on one side alone: projected features, queries and logit vectors of Fission, vectors of Fusion.

use crate::autograd::{Parameters, Tape};
use crate::error::Result;
use crate::model::fissfuse::{Projected, fusion, project, queries};
use crate::model::layers::Layers;
use crate::model::{Model, ModelConfig, ScoreKind, Side};
use crate::ops::AttentionWeights;
use crate::tensor::{Later, Ragged, Tensor};

/// Prepared features of some mentions or entities.
#[derive(Debug)]
pub struct PreparedSide {
    /// One per modality that takes part in Fission.
    pub(super) modalities: Vec<PreparedModality>,
    /// Fusion's vectors (n, d), one matrix per score.
    pub(super) fused: Vec<(ScoreKind, Tensor)>,
}

#[derive(Debug)]
pub(super) struct PreparedModality {
    /// Projected rows (Σ lengths, d).
    pub tokens: Tensor,
    pub sequences: Ragged,
    /// h of Eq. 4 (n, d).
    pub queries: Tensor,
    /// u of each query (n, heads * d).
    pub logits: Tensor,
}

/// Prepared features of one mention.
#[derive(Clone, Copy, Debug)]
pub struct PreparedMention<'a> {
    pub(super) side: &'a PreparedSide,
    pub(super) item: usize,
}

impl PreparedMention<'_> {
    /// Fusion's vectors, those of all scores side by side (scores * d).
    pub fn fused(&self) -> Vec<f32> {
        let vector = |(_, vectors): &(ScoreKind, Tensor)| {
            let d = vectors.shape()[1];
            vectors.data()[self.item * d..][..d].to_vec()
        };
        self.side.fused.iter().flat_map(vector).collect()
    }
}

impl PreparedSide {
    /// Prepares all items of a side where the model's weights lie; the result lies on the host.
    pub fn new(model: &Model, side: &Side) -> Result<PreparedSide> {
        let tape = Tape::inference();
        let vars = model.parameters().bind(&tape);
        let config = model.config();
        let layers = Layers { config, tape: &tape, vars: &vars, gpu: model.gpu() };
        let [projected] = project(&layers, [side], None)?;
        let queries = queries(&layers, &[&projected])?;
        let fused = fusion::side(&layers, &projected, &queries.fusion)?;
        // All of it is on its way before the host waits for any.
        let mut on_its_way = Vec::new();
        for (modality, queries) in projected.iter().zip(queries.fission) {
            let attention = attention_of(model.parameters(), config, modality.name)?;
            let queries = queries.into_tensor();
            let logits = attention.logit_vectors(&queries)?.later()?;
            on_its_way.push((logits, queries.later()?, modality));
        }
        let fused =
            fused.into_iter().map(|(kind, var)| Ok((kind, var.into_tensor().later()?))).collect::<Result<Vec<_>>>()?;
        let rows =
            projected.iter().map(|modality| modality.tokens.tensor().clone().later()).collect::<Result<Vec<_>>>()?;
        let modality = |((logits, queries, modality), rows): ((Later, Later, &Projected), Later)| {
            let sequences = modality.sequences.clone();
            Ok(PreparedModality { logits: logits.wait()?, queries: queries.wait()?, tokens: rows.wait()?, sequences })
        };
        Ok(PreparedSide {
            modalities: on_its_way.into_iter().zip(rows).map(modality).collect::<Result<_>>()?,
            fused: fused.into_iter().map(|(kind, vectors)| Ok((kind, vectors.wait()?))).collect::<Result<_>>()?,
        })
    }

    /// The prepared features of one item.
    pub fn mention(&self, item: usize) -> PreparedMention<'_> {
        PreparedMention { side: self, item }
    }
}

/// Weights of Fission's cross-attention of one modality.
pub(super) fn attention_of(parameters: &Parameters, config: &ModelConfig, modality: &str) -> Result<AttentionWeights> {
    let name = format!("fission.{modality}_attention");
    let mut weights = Vec::with_capacity(10);
    for layer in ["query", "key", "value", "out", "norm"] {
        weights.push(parameters.get(&format!("{name}.{layer}.weight"))?);
        weights.push(parameters.get(&format!("{name}.{layer}.bias"))?);
    }
    AttentionWeights::new(config.heads, config.layer_norm_eps, &weights)
}
