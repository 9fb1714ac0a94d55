//! FissFuse (sections 3.2 and 3.3 of the paper): projection of the features (Eq. 2), both branches, six scores (Eq. 11).

mod fission;
mod fusion;
mod index;

pub use index::{EntityIndex, GpuScorer, LinkTimes, PreparedMention, PreparedSide, Scorer};

use super::batch::{Batch, Modality, Side};
use super::config::{ModelConfig, ScoreKind};
use super::layers::{Layers, ProjectionOf};
use super::network::{Network, Noise, Reads};
use super::params::Plan;
use crate::autograd::Var;
use crate::error::Result;
use crate::ops::{Operand, Score};
use crate::tensor::Ragged;

/// See the module's documentation.
pub struct FissFuse;

impl Network for FissFuse {
    fn name(&self) -> &'static str {
        "fissfuse"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["d", "heads", "layer_norm_eps", "dropout", "ablation", "modalities"]
    }

    fn reads(&self, config: &ModelConfig) -> Reads {
        let parts = config.parts();
        Reads { text: parts.text, image: parts.image }
    }

    fn scores(&self, config: &ModelConfig) -> Vec<&'static str> {
        config.six().into_iter().map(ScoreKind::label).collect()
    }

    fn parameters(&self, config: &ModelConfig, plan: &mut Plan) {
        let (parts, d, widths) = (config.parts(), config.d, config.widths);
        let modalities = [("text", parts.text), ("image", parts.image)];
        let present: Vec<&str> = modalities.iter().filter(|m| m.1).map(|m| m.0).collect();
        for (name, width, there) in [
            ("text", widths.text, parts.text),
            ("text_global", widths.text_global, parts.text),
            ("image", widths.image, parts.image),
            ("image_global", widths.image_global, parts.image),
        ] {
            if there {
                plan.projection(name, width, d);
            }
        }
        if parts.fission.any() {
            present.iter().for_each(|m| plan.mlp(&format!("fission.{m}_pool"), 3 * d, d));
            present.iter().for_each(|m| plan.attention(&format!("fission.{m}_attention"), d));
        }
        if parts.fission.star {
            plan.mlp("fission.mention_mlp", present.len() * d, d);
            plan.mlp("fission.entity_mlp", present.len() * d, d);
        }
        if parts.fusion.any() {
            present.iter().for_each(|m| plan.mlp(&format!("fusion.{m}_mlp"), present.len() * d, d));
            present.iter().for_each(|m| plan.attention(&format!("fusion.{m}_attention"), d));
        }
        if parts.fusion.star {
            plan.mlp("fusion.star_mlp", present.len() * d, d);
        }
    }

    fn forward(&self, layers: &Layers, batch: &Batch, noise: Option<Noise>) -> Result<Var> {
        let [mention, entity] = project(layers, [&batch.mention, &batch.entity], noise)?;
        let vectors = vectors(layers, [&mention, &entity], batch)?;
        let kinds = layers.config.six();
        let chosen: Vec<&Compared> = kinds.iter().filter_map(|kind| vectors.iter().find(|v| v.kind == *kind)).collect();
        let operands = chosen.iter().map(|c| c.operand).collect();
        let inputs: Vec<&Var> = chosen.iter().flat_map(|c| [&c.mention, &c.entity]).collect();
        layers.tape.apply(Score { pairs: batch.pairs.clone(), operands }, &inputs)
    }

    fn prepares(&self) -> bool {
        true
    }
}

/// One modality of a side, projected to d.
struct Projected {
    pub name: &'static str,
    /// 0 for text, 1 for images.
    pub modality: usize,
    pub tokens: Var,
    pub sequences: Ragged,
    pub global: Var,
}

/// Two vectors whose dot product is a score.
struct Compared {
    pub kind: ScoreKind,
    pub operand: Operand,
    pub mention: Var,
    pub entity: Var,
}

/// Eq. 2 for the modalities of each side that take part.
fn project<const N: usize>(layers: &Layers, sides: [&Side; N], noise: Option<Noise>) -> Result<[Vec<Projected>; N]> {
    let parts = layers.config.parts();
    let (mut of, mut modality_of) = (Vec::new(), Vec::new());
    for (which, side) in sides.into_iter().enumerate() {
        let modalities = [("text", parts.text, &side.text), ("image", parts.image, &side.image)];
        for (index, (name, _, modality)) in modalities.into_iter().enumerate().filter(|(_, m)| m.1) {
            let Modality { tokens, sequences, global } = modality;
            // Tells the dropout masks apart.
            let (textbook, stream) = (sequences.textbook(), (4 * which + 2 * index) as u32);
            let (global_name, rows) = (format!("{name}_global"), textbook.sequences);
            let (name_of_rows, all) = (name.into(), textbook.rows());
            let (local, whole) = (Some(sequences), None);
            of.push(ProjectionOf {
                name: name_of_rows,
                features: tokens,
                sequences: local,
                textbook_rows: all,
                stream,
            });
            let stream = stream + 1;
            of.push(ProjectionOf {
                name: global_name,
                features: global,
                sequences: whole,
                textbook_rows: rows,
                stream,
            });
            modality_of.push((name, index, sequences));
        }
    }
    let vars = layers.projections(&of, noise)?;
    let each = modality_of.len() / N.max(1);
    let projected = |((name, modality, sequences), vars): ((_, _, &Ragged), &[Var])| {
        let (tokens, global) = (vars[0].clone(), vars[1].clone());
        Projected { name, modality, tokens, sequences: sequences.clone(), global }
    };
    let mut all = modality_of.into_iter().zip(vars.chunks_exact(2)).map(projected);
    Ok(std::array::from_fn(|_| all.by_ref().take(each).collect()))
}

/// The queries of both branches.
struct Queries {
    /// h of Eq. 4, of each modality of each side; none where Fission takes no part.
    fission: Vec<Var>,
    /// The same of Fusion.
    fusion: Vec<Var>,
}

fn queries(layers: &Layers, sides: &[&[Projected]]) -> Result<Queries> {
    let parts = layers.config.parts();
    let pooled = if parts.fission.any() { fission::pooled(layers, sides)? } else { Vec::new() };
    let mut mlps = fission::queries(sides, &pooled);
    let of_fission = mlps.len();
    if parts.fusion.any() {
        mlps.extend(fusion::queries(sides));
    }
    let mut fission = layers.mlps(&mlps)?;
    let fusion = fission.split_off(of_fission);
    Ok(Queries { fission, fusion })
}

/// What the scores compare. Layers of both branches that do not depend on each other are one operation: on a device they
/// share launches.
fn vectors(layers: &Layers, sides: [&[Projected]; 2], batch: &Batch) -> Result<Vec<Compared>> {
    let queries = queries(layers, &sides)?;
    let mut attentions = fission::attentions(sides, &queries.fission, batch);
    let of_fission = attentions.len();
    attentions.extend(fusion::attentions(&sides, &queries.fusion));
    let mut differing = layers.cross_attentions(attentions)?;
    let completed = differing.split_off(of_fission);
    let mut mlps = fission::stars(layers, &differing, batch);
    let of_fission = mlps.len();
    mlps.extend(fusion::stars(layers, &sides, &completed));
    let mut stars = layers.mlps(&mlps)?;
    let of_fusion = stars.split_off(of_fission);
    let mut compared = fission::compared(sides[0], &differing, &stars);
    compared.extend(fusion::compared(&sides, &completed, &of_fusion));
    Ok(compared)
}
