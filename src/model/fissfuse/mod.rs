//! FissFuse (sections 3.2 and 3.3 of the paper): projection of the features (Eq. 2), both branches, six scores (Eq. 11).

mod fission;
mod fusion;
mod index;

pub use index::{EntityIndex, GpuScorer, PreparedMention, PreparedSide, Scorer};

use super::batch::{Batch, Modality, Side};
use super::config::{ModelConfig, ScoreKind};
use super::layers::Layers;
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
                plan.linear(&format!("{name}.linear"), width, d);
                plan.norm(&format!("{name}.norm"), d);
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
        let mention = project(layers, &batch.mention, noise, 0)?;
        let entity = project(layers, &batch.entity, noise, 1)?;
        let mut vectors = fission::vectors(layers, &mention, &entity, batch)?;
        vectors.extend(fusion::vectors(layers, &mention, &entity)?);
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

/// Eq. 2 for the modalities that take part. `which` tells the two sides' dropout masks apart.
fn project(layers: &Layers, side: &Side, noise: Option<Noise>, which: u32) -> Result<Vec<Projected>> {
    let parts = layers.config.parts();
    let modalities = [("text", parts.text, &side.text), ("image", parts.image, &side.image)];
    let mut projected = Vec::new();
    for (index, (name, _, modality)) in modalities.into_iter().enumerate().filter(|(_, m)| m.1) {
        let stream = 4 * which + 2 * index as u32;
        let Modality { tokens, sequences, global } = modality;
        let textbook = sequences.textbook();
        let (of_tokens, of_global) = ((noise, stream), (noise, stream + 1));
        projected.push(Projected {
            name,
            modality: index,
            tokens: layers.project(name, tokens, textbook.rows(), of_tokens)?,
            sequences: sequences.clone(),
            global: layers.project(&format!("{name}_global"), global, textbook.sequences, of_global)?,
        });
    }
    Ok(projected)
}
