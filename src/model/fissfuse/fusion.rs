//! The Fusion branch (section 3.3.2): each side's modalities complete each other; nothing depends on the pair.

use super::{Compared, Projected};
use crate::autograd::Var;
use crate::error::Result;
use crate::model::config::ScoreKind;
use crate::model::layers::Layers;
use crate::ops::{Operand, Pairing};

/// Fused vectors of one side's items, one per score (n, d).
pub(super) fn side(layers: &Layers, side: &[Projected]) -> Result<Vec<(ScoreKind, Var)>> {
    let branch = layers.config.parts().fusion;
    if !branch.any() {
        return Ok(Vec::new());
    }
    let globals: Vec<&Var> = side.iter().map(|m| &m.global).collect();
    let mut fused = Vec::new();
    for modality in side {
        let textbook = modality.sequences.textbook().sequences;
        let query = layers.mlp(&format!("fusion.{}_mlp", modality.name), &globals, textbook)?;
        // Each item's weights begin where its sequence does.
        let pairs = (Pairing::identity(modality.sequences.len()), modality.sequences.offsets().clone());
        let name = format!("fusion.{}_attention", modality.name);
        fused.push((
            ScoreKind::fusion(modality.name),
            layers.cross_attention(&name, &query, (&modality.tokens, &modality.sequences), pairs, textbook)?,
        ));
    }
    if branch.star {
        let parts: Vec<&Var> = fused.iter().map(|(_, var)| var).collect();
        let textbook = side.first().map_or(0, |m| m.sequences.textbook().sequences);
        let star = layers.mlp("fusion.star_mlp", &parts, textbook)?;
        fused.push((ScoreKind::FusionStar, star));
    }
    Ok(fused)
}

/// What the scores S2T, S2V and S2* compare; all vectors are per item.
pub(super) fn vectors(layers: &Layers, mention: &[Projected], entity: &[Projected]) -> Result<Vec<Compared>> {
    let (mention, entity) = (side(layers, mention)?, side(layers, entity)?);
    let compared = mention.into_iter().zip(entity).map(|((kind, mention), (_, entity))| Compared {
        kind,
        operand: Operand::Item,
        mention,
        entity,
    });
    Ok(compared.collect())
}
