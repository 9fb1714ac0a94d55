//! The Fission branch (section 3.3.1): features of a mention that differ with each candidate, and the reverse.
//!
//! One set of weights serves mentions and entities, but for the two MLPs of Eq. 7.

use super::{Compared, Projected};
use crate::autograd::Var;
use crate::error::Result;
use crate::model::batch::{Batch, Starts};
use crate::model::config::ScoreKind;
use crate::model::layers::{AttentionOf, Layers, MlpOf};
use crate::ops::Operand;

/// What stands for the whole sequence of each item, of each modality of each side (Eq. 3, beside the global vector).
pub(super) fn pooled(layers: &Layers, sides: &[&[Projected]]) -> Result<Vec<Var>> {
    let modalities = sides.iter().copied().flatten();
    layers.multi_pools(&modalities.map(|m| (&m.sequences, [&m.tokens, &m.global])).collect::<Vec<_>>())
}

/// The MLPs that give h of Eq. 4, of what was pooled: the queries (n, d).
pub(super) fn queries<'a>(sides: &[&[Projected]], pooled: &'a [Var]) -> Vec<MlpOf<'a>> {
    let mlp = |(m, pooled): (&Projected, &'a Var)| MlpOf {
        name: format!("fission.{}_pool", m.name),
        parts: vec![pooled],
        textbook_rows: m.sequences.textbook().sequences,
    };
    sides.iter().copied().flatten().zip(pooled).map(mlp).collect()
}

/// Of each modality, its mentions' queries against the entities' sequences, and the reverse; `queries` are those of the
/// mentions' modalities, then of the entities'.
pub(super) fn attentions<'a>(
    [mention, entity]: [&'a [Projected]; 2],
    queries: &'a [Var],
    batch: &Batch,
) -> Vec<AttentionOf<'a>> {
    let (of_mentions, of_entities) = queries.split_at(queries.len() / 2);
    let pairs = &batch.pairs;
    let of_modality = |((m, e), (hm, he)): ((&'a Projected, &'a Projected), (&'a Var, &'a Var))| {
        let Starts { mention: over, entity: under } = &batch.starts[m.modality];
        let attention = |query, on: &'a Projected, pairs, starts| AttentionOf {
            name: format!("fission.{}_attention", m.name),
            query,
            tokens: &on.tokens,
            sequences: &on.sequences,
            pairs,
            starts,
            textbook_pairs: batch.pairs.len(),
        };
        [attention(hm, e, pairs.clone(), over.clone()), attention(he, m, pairs.flip(), under.clone())]
    };
    mention.iter().zip(entity).zip(of_mentions.iter().zip(of_entities)).flat_map(of_modality).collect()
}

/// The MLPs of Eq. 7, if they take part, of the attended vectors of each modality's mentions and entities.
pub(super) fn stars<'a>(layers: &Layers, attended: &'a [Var], batch: &Batch) -> Vec<MlpOf<'a>> {
    let mlp = |(side, name): (usize, &str)| MlpOf {
        name: format!("fission.{name}_mlp"),
        parts: attended.iter().skip(side).step_by(2).collect(),
        textbook_rows: batch.pairs.len(),
    };
    let sides: &[&str] = if layers.config.parts().fission.star { &["mention", "entity"] } else { &[] };
    sides.iter().copied().enumerate().map(mlp).collect()
}

/// What the scores S1T, S1V and, if there are stars, S1* compare; all vectors are per pair.
pub(super) fn compared(mention: &[Projected], attended: &[Var], stars: &[Var]) -> Vec<Compared> {
    let kinds = mention.iter().map(|m| ScoreKind::fission(m.name)).chain([ScoreKind::FissionStar]);
    let vectors = attended.chunks_exact(2).chain(stars.chunks_exact(2));
    let compared = |(kind, sides): (ScoreKind, &[Var])| {
        let (mention, entity) = (sides[0].clone(), sides[1].clone());
        Compared { kind, operand: Operand::Pair, mention, entity }
    };
    kinds.zip(vectors).map(compared).collect()
}
