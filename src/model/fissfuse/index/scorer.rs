//! Scores of one mention against prepared entities.

use rayon::prelude::*;

use super::attention::Finish;
use super::entities::{EntityIndex, IndexedModality};
use super::prepared::{PreparedMention, PreparedModality, attention_of};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::model::{Model, Parameters, ScoreKind};
use crate::ops::cross_attention::attend;
use crate::ops::linear::Dense;
use crate::ops::matmul::Mat;

/// Candidates that one task scores: few enough that two threads share a list of a hundred.
const CHUNK: usize = 50;

/// A model's weights in the form that scoring pairs needs.
#[derive(Debug)]
pub struct Scorer {
    pub(super) kinds: Vec<ScoreKind>,
    pub(super) d: usize,
    pub(super) heads: usize,
    pub(super) eps: f32,
    /// Linear layers that follow a context: one if value and output layer are folded.
    layers: usize,
    /// Each modality that takes part in Fission, with its score.
    pub(super) finish: Vec<(ScoreKind, Finish)>,
    /// Eq. 7's MLPs of mention and entity.
    pub(super) star: Option<[Layers2; 2]>,
}

/// Two linear layers with ReLU between them.
#[derive(Debug)]
pub(super) struct Layers2(pub Dense, pub Dense);

impl Layers2 {
    fn new(parameters: &Parameters, name: &str) -> Result<Layers2> {
        let dense = |layer: &str| -> Result<Dense> {
            let weight = parameters.get(&format!("{name}.{layer}.weight"))?;
            let bias = parameters.get(&format!("{name}.{layer}.bias"))?.data().to_vec();
            Ok(Dense::new(Mat::new(weight.data(), weight.shape()[0], weight.shape()[1]), bias))
        };
        Ok(Layers2(dense("hidden")?, dense("out")?))
    }

    fn run(&self, x: &[f32], n: usize) -> Result<Buffer> {
        let (mut hidden, mut out) = (Buffer::scratch(n * self.0.outputs()), Buffer::scratch(n * self.1.outputs()));
        self.0.forward_into(&mut hidden, x)?;
        hidden.iter_mut().for_each(|x| *x = x.max(0.0));
        self.1.forward_into(&mut out, &hidden)?;
        Ok(out)
    }
}

impl Scorer {
    /// Prepares a model's weights.
    pub fn new(model: &Model) -> Result<Scorer> {
        let (config, parameters) = (model.config(), model.parameters());
        let parts = config.parts();
        let mut finish = Vec::new();
        for (name, there) in [("text", parts.text), ("image", parts.image)] {
            if there && parts.fission.any() {
                finish.push((ScoreKind::fission(name), Finish::new(&attention_of(parameters, config, name)?)?));
            }
        }
        let star = |name: &str| Layers2::new(parameters, name);
        Ok(Scorer {
            kinds: config.six(),
            d: config.d,
            heads: config.heads,
            eps: config.layer_norm_eps,
            layers: if config.heads == 1 { 1 } else { 2 },
            finish,
            star: match parts.fission.star {
                true => Some([star("fission.mention_mlp")?, star("fission.entity_mlp")?]),
                false => None,
            },
        })
    }

    /// Which scores, in the order of [`Scorer::score`]'s rows.
    pub fn kinds(&self) -> &[ScoreKind] {
        &self.kinds
    }

    /// FLOPs of scoring one pair whose sequences, mention's and entity's together, have this many rows in each
    /// modality.
    pub fn flops(&self, rows: &[usize]) -> u64 {
        let d = self.d;
        // Logits and context; value and output layer with residual and normalization, in both directions.
        let attention = |rows: &usize| 4 * rows * self.heads * d + 2 * (self.layers * 2 * d * d + 9 * d);
        let star = if self.star.is_some() { 2 * (self.finish.len() + 1) * 2 * d * d } else { 0 };
        (rows.iter().take(self.finish.len()).map(attention).sum::<usize>() + star + self.kinds.len() * 2 * d) as u64
    }

    /// Scores (kinds, candidates) of a mention against entities of the index.
    pub fn score(&self, mention: PreparedMention, index: &EntityIndex, candidates: &[u32]) -> Result<Vec<f32>> {
        let chunks: Vec<Vec<f32>> = candidates
            .par_chunks(CHUNK)
            .map(|candidates| self.score_chunk(mention, index, candidates))
            .collect::<Result<_>>()?;
        let mut scores = Vec::with_capacity(self.kinds.len() * candidates.len());
        for kind in 0..self.kinds.len() {
            for (scored, candidates) in chunks.iter().zip(candidates.chunks(CHUNK)) {
                scores.extend_from_slice(&scored[kind * candidates.len()..][..candidates.len()]);
            }
        }
        Ok(scores)
    }

    fn score_chunk(&self, mention: PreparedMention, index: &EntityIndex, candidates: &[u32]) -> Result<Vec<f32>> {
        let (n, d) = (candidates.len(), self.d);
        let mut found: Vec<(ScoreKind, Vec<f32>)> = Vec::with_capacity(6);
        let width = self.finish.len() * d;
        // Both modalities' vectors side by side, as Eq. 7 wants them: of the mention, of the entity.
        let [mut of_mention, mut of_entity] = [0; 2].map(|_| Buffer::scratch(n * width));
        for (i, (kind, finish)) in self.finish.iter().enumerate() {
            let (prepared, indexed) = (&mention.side.modalities[i], &index.modalities[i]);
            let [me, em] = self.attended(finish, prepared, mention.item, indexed, candidates)?;
            found.push((*kind, dots(&me, &em, d)));
            for (all, one) in [(&mut of_mention, &me), (&mut of_entity, &em)] {
                for (all, one) in all.chunks_exact_mut(width).zip(one.chunks_exact(d)) {
                    all[i * d..][..d].copy_from_slice(one);
                }
            }
        }
        if let Some([m, e]) = &self.star {
            found.push((ScoreKind::FissionStar, dots(&m.run(&of_mention, n)?, &e.run(&of_entity, n)?, d)));
        }
        let mut vectors = vec![0.0; n * d];
        for ((kind, fused), (_, table)) in mention.side.fused.iter().zip(&index.fused) {
            table.gather(candidates, &mut vectors);
            let query = &fused.data()[mention.item * d..][..d];
            let scores = vectors.chunks_exact(d).map(|v| simd!(vector::dot(query, v))).collect();
            found.push((*kind, scores));
        }
        let of_kind = |kind: &ScoreKind| found.iter().find(|(k, _)| k == kind).map(|(_, s)| &s[..]);
        Ok(self.kinds.iter().filter_map(of_kind).flatten().copied().collect())
    }

    /// Eq. 5 and 6 of one modality: the mention's vectors for each candidate, the candidates' for the mention.
    fn attended(
        &self,
        finish: &Finish,
        mention: &PreparedModality,
        item: usize,
        entities: &IndexedModality,
        candidates: &[u32],
    ) -> Result<[Buffer; 2]> {
        let (n, d, width) = (candidates.len(), self.d, self.heads * self.d);
        let own = mention.sequences.range(item);
        let own_tokens = &mention.tokens.data()[own.start * d..own.end * d];
        let own_logits = &mention.logits.data()[item * width..][..width];
        let own_query = &mention.queries.data()[item * d..][..d];
        let [mut of_mention, mut of_entity] = [0; 2].map(|_| Buffer::scratch(n * width));
        let (mut widened, mut widened_logits, mut probabilities) = (Vec::new(), Vec::new(), Vec::new());
        let contexts = of_mention.chunks_exact_mut(width).zip(of_entity.chunks_exact_mut(width));
        for (&candidate, (of_mention, of_entity)) in candidates.iter().zip(contexts) {
            let rows = entities.rows(candidate);
            let tokens = entities.tokens.range(rows.clone(), &mut widened);
            let logits = entities.logits.range(candidate..candidate + 1, &mut widened_logits);
            probabilities.resize(self.heads * rows.len().max(own.len()), 0.0);
            let (theirs, ours) = (self.heads * rows.len(), self.heads * own.len());
            simd!({
                attend(own_logits, tokens, d, &mut probabilities[..theirs], of_mention);
                attend(logits, own_tokens, d, &mut probabilities[..ours], of_entity);
            });
        }
        let mut queries = vec![0.0; n * d];
        entities.queries.gather(candidates, &mut queries);
        Ok([finish.run(&of_mention, n, |_| own_query)?, finish.run(&of_entity, n, |i| &queries[i * d..][..d])?])
    }
}

/// Dot product of each row of two matrices.
fn dots(x: &[f32], y: &[f32], d: usize) -> Vec<f32> {
    x.chunks_exact(d).zip(y.chunks_exact(d)).map(|(x, y)| simd!(vector::dot(x, y))).collect()
}
