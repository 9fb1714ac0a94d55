//! Scores of one mention against prepared entities on a CUDA device: a copy and a kernel (kernels/link.cu) that writes the scores
//! to the host's memory, launched as one graph; or the same kernel, which stays on the device.

mod features;
mod recorded;
mod resident;
mod room;
mod tables;
mod times;

pub use times::LinkTimes;

use std::sync::Arc;
use std::time::Duration;

use super::attention::Apart;
use super::entities::EntityIndex;
use super::prepared::PreparedMention;
use super::scorer::Scorer;
use crate::device::Gpu;
use crate::device::cpu::Buffer;
use crate::device::cuda::{DeviceBuffer, Graph, Resident};
use crate::error::Result;
use crate::model::ScoreKind;
use crate::ops::layer_norm::LayerNorm;
use crate::ops::link::{ModalityWeights, Star, Weights};
use features::FromFeatures;
use recorded::Recorded;
use room::Asked;
use tables::Tables;

/// A model's weights on a device, in the form that scoring pairs needs.
#[derive(Debug)]
pub struct GpuScorer {
    /// First, so that it has left the device before anything else is given back there.
    resident: Option<Resident<resident::Kept>>,
    gpu: Gpu,
    kinds: Vec<ScoreKind>,
    weights: Weights,
    tables: Option<Arc<Tables>>,
    recorded: Option<Graph<Recorded>>,
    /// One for each shape of features, the last used first.
    from_features: Vec<Graph<FromFeatures>>,
    /// For how long a kernel shall stay without work.
    idle: Option<Duration>,
    /// Launches of those that stayed before.
    left: usize,
}

impl GpuScorer {
    /// Copies the weights of a scorer to a device.
    pub fn new(scorer: &Scorer, gpu: &Gpu) -> Result<GpuScorer> {
        let (d, heads) = (scorer.d, scorer.heads);
        LayerNorm::check(d)?;
        let upload = |values: &[f32]| gpu.upload("scoring weights", values);
        let place_of = |kind: ScoreKind| scorer.kinds.iter().position(|k| *k == kind);
        let mut modalities = Vec::new();
        for (kind, weights) in &scorer.finish {
            let (value, out) = match &weights.layers.apart {
                None => {
                    let dense = &weights.layers.folded[0];
                    ([upload(dense.transposed())?, upload(dense.bias())?], None)
                }
                Some(Apart { values, out }) => {
                    let c = d / heads;
                    let mut all = Buffer::zeros(d * d);
                    for (h, head) in values.iter().enumerate() {
                        for (row, from) in all.chunks_exact_mut(d).zip(head.transposed().chunks_exact(c)) {
                            row[h * c..][..c].copy_from_slice(from);
                        }
                    }
                    let bias: Vec<f32> = values.iter().flat_map(|head| head.bias()).copied().collect();
                    ([upload(&all)?, upload(&bias)?], Some([upload(out.transposed())?, upload(out.bias())?]))
                }
            };
            let norm = [upload(&weights.gamma)?, upload(&weights.beta)?];
            modalities.push(ModalityWeights { score: place_of(*kind), value, out, norm });
        }
        let mlp = |layers: &super::scorer::Layers2| -> Result<[DeviceBuffer<f32>; 4]> {
            let (hidden, out) = (&layers.0, &layers.1);
            let [a, b, c, d] = [hidden.transposed(), hidden.bias(), out.transposed(), out.bias()].map(upload);
            Ok([a?, b?, c?, d?])
        };
        let star = match (&scorer.star, place_of(ScoreKind::FissionStar)) {
            (Some([mention, entity]), Some(score)) => Some(Star { score, mlps: [mlp(mention)?, mlp(entity)?] }),
            _ => None,
        };
        let (gpu, kinds) = (gpu.clone(), scorer.kinds.clone());
        let weights = Weights { d, heads, eps: scorer.eps, modalities, star };
        Ok(GpuScorer {
            gpu,
            kinds,
            weights,
            tables: None,
            recorded: None,
            from_features: Vec::new(),
            idle: None,
            resident: None,
            left: 0,
        })
    }

    /// Scores (kinds, candidates) of a mention against entities of the index. The index is copied to the device when first
    /// used, and again after it grew.
    pub fn score(&mut self, mention: PreparedMention, index: &EntityIndex, candidates: &[u32]) -> Result<Vec<f32>> {
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        index.has_all(candidates)?;
        let (tables, asked) = (self.tables(index)?, Asked { mention, candidates });
        match self.idle {
            Some(idle) => self.ask(idle, tables, &asked),
            None => self.score_recorded(tables, &asked),
        }
    }
}
