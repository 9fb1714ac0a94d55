//! The Fission branch (section 3.3.1): features of a mention that differ with each candidate, and the reverse.
//!
//! One set of weights serves mentions and entities, but for the two MLPs of Eq. 7.

use super::{Compared, Projected};
use crate::autograd::Var;
use crate::error::Result;
use crate::model::batch::{Batch, Starts};
use crate::model::config::ScoreKind;
use crate::model::layers::Layers;
use crate::ops::{MultiPool, Operand};

/// h of Eq. 3 and 4: the query that stands for an item's whole sequence (n, d).
pub(super) fn pooled(layers: &Layers, side: &Projected) -> Result<Var> {
    let pooled = layers.tape.apply(MultiPool { sequences: side.sequences.clone() }, &[&side.tokens, &side.global])?;
    layers.mlp(&format!("fission.{}_pool", side.name), &[&pooled], side.sequences.textbook().sequences)
}

/// What the scores S1T, S1V and S1* compare; all vectors are per pair.
pub(super) fn vectors(
    layers: &Layers,
    mention: &[Projected],
    entity: &[Projected],
    batch: &Batch,
) -> Result<Vec<Compared>> {
    let branch = layers.config.parts().fission;
    if !branch.any() {
        return Ok(Vec::new());
    }
    let (mut compared, pairs) = (Vec::new(), &batch.pairs);
    for (m, e) in mention.iter().zip(entity) {
        let Starts { mention: over, entity: under } = &batch.starts[m.modality];
        let name = format!("fission.{}_attention", m.name);
        let (hm, he) = (pooled(layers, m)?, pooled(layers, e)?);
        compared.push(Compared {
            kind: ScoreKind::fission(m.name),
            operand: Operand::Pair,
            mention: layers.cross_attention(
                &name,
                &hm,
                (&e.tokens, &e.sequences),
                (pairs.clone(), over.clone()),
                pairs.len(),
            )?,
            entity: layers.cross_attention(
                &name,
                &he,
                (&m.tokens, &m.sequences),
                (pairs.flip(), under.clone()),
                pairs.len(),
            )?,
        });
    }
    if branch.star {
        let mentions: Vec<&Var> = compared.iter().map(|c| &c.mention).collect();
        let entities: Vec<&Var> = compared.iter().map(|c| &c.entity).collect();
        let star = Compared {
            kind: ScoreKind::FissionStar,
            operand: Operand::Pair,
            mention: layers.mlp("fission.mention_mlp", &mentions, pairs.len())?,
            entity: layers.mlp("fission.entity_mlp", &entities, pairs.len())?,
        };
        compared.push(star);
    }
    Ok(compared)
}
