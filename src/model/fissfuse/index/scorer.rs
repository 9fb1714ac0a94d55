//! Scores of mentions against prepared entities.
//!
//! A pair has the same bits whichever other mentions and entities it is scored with: products have two rows and two columns
//! at least, since those with vectors sum in another order, and whatever else is summed is summed pair by pair.

use rayon::prelude::*;

use super::attention::Finish;
use super::entities::{EntityIndex, IndexedModality};
use super::group::{Group, GroupedModality};
use super::prepared::{PreparedMention, attention_of};
use crate::autograd::Parameters;
use crate::device::cpu::vector::LANES;
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::model::{Model, ScoreKind};
use crate::ops::cross_attention::attend_together;
use crate::ops::linear::Dense;
use crate::ops::matmul::{Mat, matmul};

/// Candidates that one task scores: few enough that two threads share a list of a hundred.
const CHUNK: usize = 50;

/// Mentions that are scored together: with [`CHUNK`] candidates, what belongs to their pairs stays in the second-level cache.
const GROUP: usize = 8;

/// A model's weights in the form that scoring pairs needs.
#[derive(Debug)]
pub struct Scorer {
    pub(super) kinds: Vec<ScoreKind>,
    pub(super) d: usize,
    pub(super) heads: usize,
    pub(super) eps: f32,
    /// Each modality that takes part in Fission, with its score.
    pub(super) finish: Vec<(ScoreKind, Finish)>,
    /// Eq. 7's MLPs of mention and entity.
    pub(super) star: Option<[Layers2; 2]>,
    /// From the hidden layer of the entity's MLP: what the mention's hidden layer is multiplied with to give the dot product
    /// of both outputs, and last what is added to that. The outputs themselves are not formed.
    across: Option<Dense>,
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

    /// The first layer and ReLU.
    fn hidden(&self, x: &[f32], n: usize) -> Result<Buffer> {
        let mut hidden = Buffer::scratch(n * self.0.outputs());
        self.0.forward_into(&mut hidden, x)?;
        simd!(vector::relu(&mut hidden));
        Ok(hidden)
    }
}

/// y with x·y = (output of the mention's second layer)·(that of the entity's), see [`Scorer::across`].
fn across([mention, entity]: &[Layers2; 2]) -> Result<Dense> {
    let (ours, theirs) = (&mention.1, &entity.1);
    let (d, width) = (ours.outputs(), mention.0.outputs());
    let transposed = Mat::new(ours.transposed(), width, d);
    let (mut weight, mut bias) = (Buffer::zeros((width + 1) * width), vec![0.0; width + 1]);
    let their_weight = Mat::new(theirs.transposed(), width, d).t();
    matmul(&mut weight, width, 0.0, 1.0, transposed, their_weight)?;
    matmul(&mut weight[width * width..], width, 0.0, 1.0, Mat::new(ours.bias(), 1, d), their_weight)?;
    matmul(&mut bias, 1, 0.0, 1.0, transposed, Mat::new(theirs.bias(), d, 1))?;
    bias[width] = simd!(vector::dot(ours.bias(), theirs.bias()));
    Ok(Dense::new(Mat::new(&weight, width + 1, width), bias))
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
        let star = match parts.fission.star {
            true => Some([star("fission.mention_mlp")?, star("fission.entity_mlp")?]),
            false => None,
        };
        Ok(Scorer {
            kinds: config.six(),
            d: config.d,
            heads: config.heads,
            eps: config.layer_norm_eps,
            finish,
            across: star.as_ref().map(across).transpose()?,
            star,
        })
    }

    /// Which scores, in the order of [`Scorer::score`]'s rows.
    pub fn kinds(&self) -> &[ScoreKind] {
        &self.kinds
    }

    /// FLOPs of scoring one pair whose sequences, mention's and entity's together, have this many rows in each
    /// modality.
    pub fn flops(&self, rows: &[usize]) -> u64 {
        let (d, heads) = (self.d, self.heads);
        // Logits and context; in one direction value and output layer; in both residual and normalization.
        let layers = if heads == 1 { 2 * d * d } else { 4 * d * d };
        let attention = |rows: &usize| 4 * rows * heads * d + layers + 2 * 9 * d;
        let star = if self.star.is_some() { 2 * self.finish.len() * 2 * d * d + 2 * d * (d + 1) } else { 0 };
        (rows.iter().take(self.finish.len()).map(attention).sum::<usize>() + star + self.kinds.len() * 2 * d) as u64
    }

    /// FLOPs of laying out a mention with this many rows in each modality, whatever it is scored against.
    pub fn mention_flops(&self, rows: &[usize]) -> u64 {
        rows.iter().take(self.finish.len()).map(|rows| rows * self.heads * 2 * self.d * self.d).sum::<usize>() as u64
    }

    /// Scores (kinds, candidates) of a mention against entities of the index.
    pub fn score(&self, mention: PreparedMention, index: &EntityIndex, candidates: &[u32]) -> Result<Vec<f32>> {
        self.score_together(&[mention], index, candidates)
    }

    /// Scores (mentions, kinds, candidates) of mentions against the same entities of the index. Each pair has the bits that
    /// it has alone.
    pub fn score_together(
        &self,
        mentions: &[PreparedMention],
        index: &EntityIndex,
        candidates: &[u32],
    ) -> Result<Vec<f32>> {
        let (n, kinds) = (candidates.len(), self.kinds.len());
        let groups: Vec<Group> =
            mentions.par_chunks(GROUP).map(|group| Group::new(group, &self.finish, self.d)).collect::<Result<_>>()?;
        let of_chunk = |candidates: &[u32]| -> Result<Vec<Vec<f32>>> {
            groups.iter().map(|group| self.score_chunk(group, index, candidates)).collect()
        };
        let chunks: Vec<Vec<Vec<f32>>> = candidates.par_chunks(CHUNK).map(of_chunk).collect::<Result<_>>()?;
        let mut scores = vec![0.0; mentions.len() * kinds * n];
        scores.par_chunks_mut((kinds * n).max(1)).enumerate().for_each(|(mention, scores)| {
            let (group, place) = (mention / GROUP, mention % GROUP);
            let together = groups[group].mentions.len();
            for (kind, scores) in scores.chunks_exact_mut(n).enumerate() {
                for (scores, chunk) in scores.chunks_mut(CHUNK).zip(&chunks) {
                    scores.copy_from_slice(&chunk[group][(kind * together + place) * scores.len()..][..scores.len()]);
                }
            }
        });
        Ok(scores)
    }

    /// Scores (kinds, mentions, candidates).
    fn score_chunk(&self, group: &Group, index: &EntityIndex, candidates: &[u32]) -> Result<Vec<f32>> {
        if let &[only] = candidates {
            let twice = self.score_chunk(group, index, &[only, only])?;
            return Ok(twice.into_iter().step_by(2).collect());
        }
        let (n, d) = (candidates.len(), self.d);
        let pairs = group.mentions.len() * n;
        let mut found: Vec<(ScoreKind, Vec<f32>)> = Vec::with_capacity(6);
        let width = self.finish.len() * d;
        // Both modalities' vectors side by side, as Eq. 7 wants them: of the mention, of the entity.
        let [mut of_mention, mut of_entity] = [0; 2].map(|_| Buffer::scratch(pairs * width));
        for (i, (kind, finish)) in self.finish.iter().enumerate() {
            let (me, em) = (
                self.mentions_attended(finish, group, i, &index.modalities[i], candidates)?,
                self.entities_attended(finish, group, i, &index.modalities[i], candidates)?,
            );
            found.push((*kind, dots(&me, &em, d)));
            for (all, one) in [(&mut of_mention, &me), (&mut of_entity, &em)] {
                for (all, one) in all.chunks_exact_mut(width).zip(one.chunks_exact(d)) {
                    all[i * d..][..d].copy_from_slice(one);
                }
            }
        }
        if let (Some([m, e]), Some(across)) = (&self.star, &self.across) {
            let (ours, theirs) = (m.hidden(&of_mention, pairs)?, e.hidden(&of_entity, pairs)?);
            let mut crossed = Buffer::scratch(pairs * across.outputs());
            across.forward_into(&mut crossed, &theirs)?;
            let score = |(x, y): (&[f32], &[f32])| simd!(vector::dot(x, &y[..d])) + y[d];
            let rows = ours.chunks_exact(d).zip(crossed.chunks_exact(d + 1));
            found.push((ScoreKind::FissionStar, rows.map(score).collect()));
        }
        let mut vectors = vec![0.0; n * d];
        for (f, (kind, table)) in index.fused.iter().enumerate() {
            table.gather(candidates, &mut vectors);
            let of_mention = |mention: &PreparedMention| {
                let query = &mention.side.fused[f].1.data()[mention.item * d..][..d];
                vectors.chunks_exact(d).map(|v| simd!(vector::dot(query, v))).collect::<Vec<_>>()
            };
            found.push((*kind, group.mentions.iter().flat_map(of_mention).collect()));
        }
        let of_kind = |kind: &ScoreKind| found.iter().find(|(k, _)| k == kind).map(|(_, s)| &s[..]);
        Ok(self.kinds.iter().filter_map(of_kind).flatten().copied().collect())
    }

    /// Eq. 5 of a modality: each mention's vectors for each candidate (mentions, candidates, d).
    fn mentions_attended(
        &self,
        finish: &Finish,
        group: &Group,
        modality: usize,
        entities: &IndexedModality,
        candidates: &[u32],
    ) -> Result<Buffer> {
        let (n, d, width) = (candidates.len(), self.d, self.heads * self.d);
        let pairs = group.mentions.len() * n;
        let side = |m: usize| (&group.mentions[m].side.modalities[modality], group.mentions[m].item);
        let own = &group.modalities[modality];
        let mut contexts = Buffer::scratch(pairs * width);
        let (mut tokens, mut probabilities) = (Vec::new(), Vec::new());
        for (e, &candidate) in candidates.iter().enumerate() {
            let rows = entities.rows(candidate);
            probabilities.resize(GROUP * rows.len(), 0.0);
            tokens.resize(rows.len() * d + LANES, 0.0);
            let length = tokens.len() - LANES;
            entities.tokens.read(rows, &mut tokens[..length]);
            let (mut first, place) = (0, Place { candidate: e, candidates: n, heads: self.heads, d });
            while first < group.mentions.len() {
                let attend = (own, &tokens[..], &mut probabilities[..], &mut contexts[first * n * width..]);
                first += match group.mentions.len() - first {
                    GROUP.. => attend_heads::<GROUP>(first, place, attend),
                    4.. => attend_heads::<4>(first, place, attend),
                    _ => attend_heads::<1>(first, place, attend),
                };
            }
        }
        let query = |pair: usize| {
            let (own, item) = side(pair / n);
            &own.queries.data()[item * d..][..d]
        };
        Ok(finish.normalize(finish.layers(&contexts, pairs)?, query))
    }

    /// Eq. 6 of a modality: the candidates' vectors for each mention (mentions, candidates, d).
    fn entities_attended(
        &self,
        finish: &Finish,
        group: &Group,
        modality: usize,
        entities: &IndexedModality,
        candidates: &[u32],
    ) -> Result<Buffer> {
        let (n, d, width) = (candidates.len(), self.d, self.heads * self.d);
        let own = &group.modalities[modality];
        let (mut logits, mut queries) = (Buffer::scratch(n * width), Buffer::scratch(n * d));
        entities.logits.gather(candidates, &mut logits);
        entities.queries.gather(candidates, &mut queries);
        let mut probabilities = Buffer::scratch(n * own.width);
        let mut sums = Buffer::scratch(group.mentions.len() * n * d);
        for (h, values) in own.values.iter().enumerate() {
            let of_head = Mat::new(&logits, n, width).columns(h * d, d);
            matmul(&mut probabilities, own.width, 0.0, 1.0, of_head, Mat::new(&own.columns, d, own.width))?;
            let keep = if h == 0 { 0.0 } else { 1.0 };
            for (m, sums) in sums.chunks_exact_mut(n * d).enumerate() {
                let rows = own.rows(m);
                simd!({
                    for row in probabilities.chunks_exact_mut(own.width) {
                        vector::softmax(&mut row[rows.clone()]);
                    }
                });
                let weights = Mat::new(&probabilities, n, own.width).columns(rows.start, rows.len());
                matmul(sums, d, keep, 1.0, weights, Mat::new(&values[rows.start * d..], rows.len(), d))?;
            }
        }
        Ok(finish.normalize(sums, |pair| &queries[pair % n * d..][..d]))
    }
}

/// Where a candidate's contexts lie among those of (mentions, candidates, heads, d).
#[derive(Clone, Copy)]
struct Place {
    candidate: usize,
    candidates: usize,
    heads: usize,
    d: usize,
}

/// Contexts of `N` mentions of a group, from the first of them on, in one entity's rows; gives `N`.
fn attend_heads<const N: usize>(
    first: usize,
    place: Place,
    (own, tokens, probabilities, contexts): (&GroupedModality, &[f32], &mut [f32], &mut [f32]),
) -> usize {
    let Place { candidate, candidates, heads, d } = place;
    for head in 0..heads {
        let u = std::array::from_fn(|m| &own.logits[((first + m) * heads + head) * own.stride..][..own.stride]);
        let mut rest = contexts.chunks_exact_mut(candidates * heads * d);
        let at = (candidate * heads + head) * d;
        let of: [&mut [f32]; N] = std::array::from_fn(|_| rest.next().map_or(&mut [][..], |of| &mut of[at..][..d]));
        simd!(attend_together(u, tokens, d, probabilities, of));
    }
    N
}

/// Dot product of each row of two matrices.
fn dots(x: &[f32], y: &[f32], d: usize) -> Vec<f32> {
    x.chunks_exact(d).zip(y.chunks_exact(d)).map(|(x, y)| simd!(vector::dot(x, y))).collect()
}
