//! What depends on one side alone: projected features, queries and logit vectors of Fission, vectors of Fusion.

use crate::autograd::{Parameters, Tape, Var};
use crate::device::Gpu;
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
        let there = PreparedSide::computed(model, side)?;
        // All of it is on its way before the host waits for any.
        let later = |tensor: Tensor| tensor.later();
        let on_its_way = there.modalities.into_iter().map(|PreparedModality { tokens, sequences, queries, logits }| {
            Ok((later(logits)?, later(queries)?, tokens, sequences))
        });
        let on_its_way = on_its_way.collect::<Result<Vec<_>>>()?;
        let fused = there.fused.into_iter().map(|(kind, vectors)| Ok((kind, later(vectors)?)));
        let fused = fused.collect::<Result<Vec<_>>>()?;
        let rows = on_its_way
            .into_iter()
            .map(|(logits, queries, tokens, sequences)| Ok((logits, queries, later(tokens)?, sequences)));
        let modality = |(logits, queries, tokens, sequences): (Later, Later, Later, Ragged)| {
            Ok(PreparedModality { logits: logits.wait()?, queries: queries.wait()?, tokens: tokens.wait()?, sequences })
        };
        let rows = rows.collect::<Result<Vec<_>>>()?;
        Ok(PreparedSide {
            modalities: rows.into_iter().map(modality).collect::<Result<_>>()?,
            fused: fused.into_iter().map(|(kind, vectors)| Ok((kind, vectors.wait()?))).collect::<Result<_>>()?,
        })
    }

    /// The same where the model's weights lie: nothing waits for it.
    pub(super) fn computed(model: &Model, side: &Side) -> Result<PreparedSide> {
        let tape = Tape::inference();
        let vars = model.parameters().bind(&tape);
        let config = model.config();
        let layers = Layers { config, tape: &tape, vars: &vars, gpu: model.gpu() };
        let [projected] = project(&layers, [side], None)?;
        let queries = queries(&layers, &[&projected])?;
        let fused = fusion::side(&layers, &projected, &queries.fusion)?;
        let of_fission: Vec<Tensor> = queries.fission.into_iter().map(Var::into_tensor).collect();
        let attentions = projected.iter().map(|modality| attention_of(model.parameters(), config, modality.name));
        let attentions = attentions.take(of_fission.len()).collect::<Result<Vec<_>>>()?;
        let logits = AttentionWeights::logit_vectors(&attentions.iter().zip(&of_fission).collect::<Vec<_>>())?;
        let of_modality = projected.into_iter().zip(of_fission).zip(logits);
        let modality = |((modality, queries), logits): ((Projected, Tensor), Tensor)| {
            let Projected { tokens, sequences, .. } = modality;
            PreparedModality { tokens: tokens.into_tensor(), sequences, queries, logits }
        };
        Ok(PreparedSide {
            modalities: of_modality.map(modality).collect(),
            fused: fused.into_iter().map(|(kind, vectors)| (kind, vectors.into_tensor())).collect(),
        })
    }

    /// Rows as plain f32, of a side that lies on a device.
    pub(super) fn scaled(mut self, gpu: &Gpu) -> Result<PreparedSide> {
        let rows: Vec<&Tensor> = self.modalities.iter().map(|modality| &modality.tokens).collect();
        let scaled = Tensor::scaled(gpu, &rows)?;
        self.modalities.iter_mut().zip(scaled).for_each(|(modality, rows)| modality.tokens = rows);
        Ok(self)
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
