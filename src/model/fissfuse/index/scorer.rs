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
use crate::ops::cross_attention::{Lanes, attend_lanes, attend_together};
use crate::ops::linear::Dense;
use crate::ops::matmul::{Mat, matmul};

/// Candidates that one task scores: few enough that two threads share a list of a hundred.
const CHUNK: usize = 25;

/// Mentions that are scored together, a lane each where a sequence is attended to.
const GROUP: usize = LANES;

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
    /// The same as pairs need it.
    crossing: Option<Crossing>,
}

/// What scoring a pair by Eq. 7 needs besides what [`Finish`] gives.
#[derive(Debug)]
struct Crossing {
    /// What the hidden layers of mention and entity have for every pair: their biases, and what they make of normalization's β.
    constants: [Vec<f32>; 2],
    /// From the hidden layer of the entity's MLP: what the mention's hidden layer is multiplied with to give the dot product
    /// of both outputs, and last what is added to that. The outputs themselves are not formed.
    across: Dense,
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

    /// What the first layer has for the vector of one modality (hidden, d).
    fn hidden(&self, modality: usize, d: usize) -> Mat<'_> {
        let (transposed, outputs) = (self.0.transposed(), self.0.outputs());
        Mat::new(transposed, transposed.len() / outputs, outputs).rows(modality * d, d).t()
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

impl Crossing {
    fn new(star: &[Layers2; 2], finish: &[(ScoreKind, Finish)]) -> Result<Crossing> {
        let constants = star.each_ref().map(|layers| -> Result<Vec<f32>> {
            let mut constants = layers.0.bias().to_vec();
            for (i, (_, Finish { beta, .. })) in finish.iter().enumerate() {
                let d = beta.len();
                matmul(&mut constants, 1, 1.0, 1.0, layers.hidden(i, d), Mat::new(beta, d, 1))?;
            }
            Ok(constants)
        });
        let [mention, entity] = constants;
        Ok(Crossing { constants: [mention?, entity?], across: across(star)? })
    }

    /// Scores of pairs from their hidden layers before ReLU, which are overwritten.
    fn scores(&self, [mut ours, mut theirs]: [Buffer; 2]) -> Result<Vec<f32>> {
        let (width, outputs) = (self.constants[0].len(), self.across.outputs());
        simd!({
            vector::relu(&mut ours);
            vector::relu(&mut theirs);
        });
        let mut crossed = Buffer::scratch(theirs.len() / width * outputs);
        self.across.forward_into(&mut crossed, &theirs)?;
        let score = |(x, y): (&[f32], &[f32])| simd!(vector::dot(x, &y[..width])) + y[width];
        Ok(ours.chunks_exact(width).zip(crossed.chunks_exact(outputs)).map(score).collect())
    }
}

/// Candidates, and what scoring them needs whichever the mention.
struct Chunk<'a> {
    candidates: &'a [u32],
    modalities: Vec<ChunkedModality>,
}

struct ChunkedModality {
    /// Logit vectors (candidates, heads * d).
    logits: Buffer,
    /// What is added to each candidate's attended vectors (candidates, width).
    residuals: Buffer,
}

impl Scorer {
    /// Prepares a model's weights.
    pub fn new(model: &Model) -> Result<Scorer> {
        let (config, parameters) = (model.config(), model.parameters());
        let (parts, d) = (config.parts(), config.d);
        let star = |name: &str| Layers2::new(parameters, name);
        let star = match parts.fission.star {
            true => Some([star("fission.mention_mlp")?, star("fission.entity_mlp")?]),
            false => None,
        };
        let mut finish = Vec::new();
        for (name, there) in [("text", parts.text), ("image", parts.image)] {
            if there && parts.fission.any() {
                let hidden = star.as_ref().map(|star| star.each_ref().map(|layers| layers.hidden(finish.len(), d)));
                let attention = attention_of(parameters, config, name)?;
                finish.push((ScoreKind::fission(name), Finish::new(&attention, hidden)?));
            }
        }
        let crossing = star.as_ref().map(|star| Crossing::new(star, &finish)).transpose()?;
        let (kinds, heads, eps) = (config.six(), config.heads, config.layer_norm_eps);
        Ok(Scorer { kinds, d, heads, eps, finish, star, crossing })
    }

    /// Which scores, in the order of [`Scorer::score`]'s rows.
    pub fn kinds(&self) -> &[ScoreKind] {
        &self.kinds
    }

    /// FLOPs of scoring one pair whose mention and entity have this many rows in each modality.
    pub fn flops(&self, mention: &[usize], entity: &[usize]) -> u64 {
        let (d, heads) = (self.d, self.heads);
        let attention = |(((_, finish), ours), theirs): ((&(ScoreKind, Finish), &usize), &usize)| {
            let width = finish.mention.width();
            let logits = 2 * (ours + theirs) * heads * d;
            // Sums of rows: the entity's as they are, the mention's behind their layers.
            let sums = 2 * theirs * heads * d + 2 * ours * heads * width;
            // The value layer of several heads, and what follows it.
            let layers = if heads == 1 { 0 } else { 2 * d * d } + 2 * d * width;
            // Squares, scale and shift; the hidden layer's part.
            logits + sums + layers + 2 * (5 * d + 2 * (width - d))
        };
        let attention: usize = self.finish.iter().zip(mention).zip(entity).map(attention).sum();
        let star =
            self.crossing.as_ref().map_or(0, |crossing| 2 * crossing.constants[0].len() * crossing.across.outputs());
        (attention + star + self.kinds.len() * 2 * d) as u64
    }

    /// FLOPs of laying out a mention with this many rows in each modality, whatever it is scored against.
    pub fn mention_flops(&self, rows: &[usize]) -> u64 {
        let of = |((_, finish), rows): (&(ScoreKind, Finish), &usize)| {
            2 * rows * self.heads * self.d * finish.entity.width()
        };
        self.finish.iter().zip(rows).map(of).sum::<usize>() as u64
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
            let &[only] = candidates else {
                let chunk = self.chunk(index, candidates);
                return groups.iter().map(|group| self.score_chunk(group, index, &chunk)).collect();
            };
            let twice = [only, only];
            let chunk = self.chunk(index, &twice);
            let scores = |group| Ok(self.score_chunk(group, index, &chunk)?.into_iter().step_by(2).collect());
            groups.iter().map(scores).collect()
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

    /// What candidates bring with them.
    fn chunk<'a>(&self, index: &EntityIndex, candidates: &'a [u32]) -> Chunk<'a> {
        let (n, d) = (candidates.len(), self.d);
        let modality = |((_, finish), entities): (&(ScoreKind, Finish), &IndexedModality)| {
            let (mut logits, mut queries) = (Buffer::scratch(n * self.heads * d), Buffer::scratch(n * d));
            entities.logits.gather(candidates, &mut logits);
            entities.queries.gather(candidates, &mut queries);
            let mut hidden = Buffer::scratch(n * entities.hidden.width());
            if !hidden.is_empty() {
                entities.hidden.gather(candidates, &mut hidden);
            }
            ChunkedModality { logits, residuals: finish.entity.residuals_of(&queries, &hidden) }
        };
        let modalities = self.finish.iter().zip(&index.modalities).map(modality).collect();
        Chunk { candidates, modalities }
    }

    /// Scores (kinds, mentions, candidates) of two candidates at least.
    fn score_chunk(&self, group: &Group, index: &EntityIndex, chunk: &Chunk) -> Result<Vec<f32>> {
        let (candidates, n, d) = (chunk.candidates, chunk.candidates.len(), self.d);
        let pairs = group.mentions.len() * n;
        let mut found: Vec<(ScoreKind, Vec<f32>)> = Vec::with_capacity(6);
        // Eq. 7's hidden layers of each pair, to which each modality adds its part.
        let mut hidden =
            self.crossing.as_ref().map(|crossing| crossing.constants.each_ref().map(|of| repeated(of, pairs)));
        for (i, (kind, finish)) in self.finish.iter().enumerate() {
            let mut ours = self.mentions_attended(finish, &group.modalities[i], &index.modalities[i], candidates)?;
            let mut theirs = self.entities_attended(finish, &group.modalities[i], &chunk.modalities[i])?;
            let hidden = hidden.as_mut().map(|[ours, theirs]| [&mut ours[..], &mut theirs[..]]);
            let residuals = [&group.modalities[i].residuals[..], &chunk.modalities[i].residuals[..]];
            found.push((*kind, finish.normalize([&mut ours, &mut theirs], residuals, hidden)));
        }
        if let (Some(hidden), Some(crossing)) = (hidden, &self.crossing) {
            found.push((ScoreKind::FissionStar, crossing.scores(hidden)?));
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

    /// Eq. 5 of a modality: each mention's rows for each candidate, without residual (mentions, candidates, width).
    fn mentions_attended(
        &self,
        finish: &Finish,
        own: &GroupedModality,
        entities: &IndexedModality,
        candidates: &[u32],
    ) -> Result<Buffer> {
        let (n, d, mentions) = (candidates.len(), self.d, own.starts.len() - 1);
        let mut contexts = Buffer::scratch(mentions * n * self.heads * d);
        let (mut tokens, mut probabilities, mut lanes) = (Vec::new(), Vec::new(), Vec::new());
        for (e, &candidate) in candidates.iter().enumerate() {
            let rows = entities.rows(candidate);
            probabilities.resize(8 * rows.len(), 0.0);
            lanes.resize(rows.len(), [0.0; LANES]);
            tokens.resize(rows.len() * d + LANES, 0.0);
            let length = tokens.len() - LANES;
            entities.tokens.read(rows, &mut tokens[..length]);
            let (mut first, place) = (0, Place { candidate: e, candidates: n, heads: self.heads, d });
            if let Some(u) = &own.lanes {
                attend_lanes_of_heads(place, u, &tokens, &mut lanes, &mut contexts);
                continue;
            }
            while first < mentions {
                let contexts = &mut contexts[first * n * self.heads * d..];
                let attend = (own, &tokens[..], &mut probabilities[..], contexts);
                first += match mentions - first {
                    8.. => attend_heads::<8>(first, place, attend),
                    4.. => attend_heads::<4>(first, place, attend),
                    _ => attend_heads::<1>(first, place, attend),
                };
            }
        }
        finish.mentions(&contexts, mentions * n)
    }

    /// Eq. 6 of a modality: the candidates' rows for each mention, without residual (mentions, candidates, width).
    fn entities_attended(&self, finish: &Finish, own: &GroupedModality, theirs: &ChunkedModality) -> Result<Buffer> {
        let (d, width) = (self.d, finish.entity.width());
        let (n, mentions) = (theirs.residuals.len() / width, own.starts.len() - 1);
        let mut probabilities = Buffer::scratch(n * own.width);
        let mut rows = Buffer::scratch(mentions * n * width);
        for (h, values) in own.values.iter().enumerate() {
            let of_head = Mat::new(&theirs.logits, n, self.heads * d).columns(h * d, d);
            matmul(&mut probabilities, own.width, 0.0, 1.0, of_head, Mat::new(&own.columns, d, own.width))?;
            for (m, sums) in rows.chunks_exact_mut(n * width).enumerate() {
                let rows = own.rows(m);
                simd!({
                    for row in probabilities.chunks_exact_mut(own.width) {
                        vector::softmax(&mut row[rows.clone()]);
                    }
                });
                let weights = Mat::new(&probabilities, n, own.width).columns(rows.start, rows.len());
                let keep = if h == 0 { 0.0 } else { 1.0 };
                matmul(sums, width, keep, 1.0, weights, Mat::new(&values[rows.start * width..], rows.len(), width))?;
            }
        }
        Ok(rows)
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

impl Place {
    /// Where the contexts of one head of the first mentions lie; empty where there are no more mentions.
    fn contexts<'a, const N: usize>(&self, head: usize, contexts: &'a mut [f32]) -> [&'a mut [f32]; N] {
        let mut mentions = contexts.chunks_exact_mut(self.candidates * self.heads * self.d);
        let at = (self.candidate * self.heads + head) * self.d;
        std::array::from_fn(|_| mentions.next().map_or(&mut [][..], |of| &mut of[at..][..self.d]))
    }
}

/// Contexts of `N` mentions of a group, from the first of them on, in one entity's rows; gives `N`.
fn attend_heads<const N: usize>(
    first: usize,
    place: Place,
    (own, tokens, probabilities, contexts): (&GroupedModality, &[f32], &mut [f32], &mut [f32]),
) -> usize {
    for head in 0..place.heads {
        let u = std::array::from_fn(|m| &own.logits[((first + m) * place.heads + head) * own.stride..][..own.stride]);
        simd!(attend_together::<N>(u, tokens, place.d, probabilities, place.contexts(head, contexts)));
    }
    N
}

/// Contexts of a group's mentions, each in a lane of `u`, in one entity's rows.
fn attend_lanes_of_heads(place: Place, u: &[Lanes], tokens: &[f32], probabilities: &mut [Lanes], contexts: &mut [f32]) {
    for (head, u) in u.chunks_exact(u.len() / place.heads).enumerate() {
        simd!(attend_lanes(u, tokens, place.d, probabilities, place.contexts(head, contexts)));
    }
}

/// A row again and again.
fn repeated(row: &[f32], times: usize) -> Buffer {
    let mut all = Buffer::scratch(times * row.len());
    all.chunks_exact_mut(row.len()).for_each(|to| to.copy_from_slice(row));
    all
}
