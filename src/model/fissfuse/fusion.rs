//! The Fusion branch (section 3.3.2): each side's modalities complete each other; nothing depends on the pair.

use super::{Compared, Projected};
use crate::autograd::Var;
use crate::error::Result;
use crate::model::config::ScoreKind;
use crate::model::layers::{AttentionOf, Layers, MlpOf};
use crate::ops::Operand;

/// The MLPs that give each modality's query, of the global vectors of all modalities, of each side.
pub(super) fn queries<'a>(sides: &[&'a [Projected]]) -> Vec<MlpOf<'a>> {
    let of_side = |side: &&'a [Projected]| {
        let globals: Vec<&Var> = side.iter().map(|m| &m.global).collect();
        let mlp = move |m: &'a Projected| MlpOf {
            name: format!("fusion.{}_mlp", m.name),
            parts: globals.clone(),
            textbook_rows: m.sequences.textbook().sequences,
        };
        side.iter().map(mlp)
    };
    sides.iter().flat_map(of_side).collect()
}

/// Each item's query against its own sequence, of each modality of each side.
pub(super) fn attentions<'a>(sides: &[&'a [Projected]], queries: &'a [Var]) -> Vec<AttentionOf<'a>> {
    let own = |(m, query): (&'a Projected, &'a Var)| {
        AttentionOf::own(format!("fusion.{}_attention", m.name), query, (&m.tokens, &m.sequences))
    };
    sides.iter().copied().flatten().zip(queries).map(own).collect()
}

/// The MLP of each side's attended vectors, if it takes part.
pub(super) fn stars<'a>(layers: &Layers, sides: &[&[Projected]], attended: &'a [Var]) -> Vec<MlpOf<'a>> {
    if !layers.config.parts().fusion.star {
        return Vec::new();
    }
    let of_side = |(side, parts): (&&[Projected], &'a [Var])| MlpOf {
        name: "fusion.star_mlp".into(),
        parts: parts.iter().collect(),
        textbook_rows: side.first().map_or(0, |m| m.sequences.textbook().sequences),
    };
    sides.iter().zip(of_sides(sides, attended)).map(of_side).collect()
}

/// The vectors of the scores S2T, S2V and, if there are stars, S2* of each side, all per item (n, d).
pub(super) fn vectors(sides: &[&[Projected]], attended: &[Var], stars: &[Var]) -> Vec<Vec<(ScoreKind, Var)>> {
    let of_side = |(i, (side, attended)): (usize, (&&[Projected], &[Var]))| {
        let kinds = side.iter().map(|m| ScoreKind::fusion(m.name)).chain([ScoreKind::FusionStar]);
        kinds.zip(attended.iter().chain(stars.get(i)).cloned()).collect()
    };
    sides.iter().zip(of_sides(sides, attended)).enumerate().map(of_side).collect()
}

/// What was attended of each side's modalities.
fn of_sides<'a>(sides: &[&[Projected]], attended: &'a [Var]) -> impl Iterator<Item = &'a [Var]> {
    attended.chunks(sides.first().map_or(1, |side| side.len().max(1)))
}

/// One side's vectors, of the queries of its modalities.
pub(super) fn side(layers: &Layers, side: &[Projected], queries: &[Var]) -> Result<Vec<(ScoreKind, Var)>> {
    let attended = layers.cross_attentions(attentions(&[side], queries))?;
    let stars = layers.mlps(&stars(layers, &[side], &attended))?;
    Ok(vectors(&[side], &attended, &stars).pop().unwrap_or_default())
}

/// What those scores compare.
pub(super) fn compared(sides: &[&[Projected]], attended: &[Var], stars: &[Var]) -> Vec<Compared> {
    let mut sides = vectors(sides, attended, stars).into_iter();
    let both = sides.next().unwrap_or_default().into_iter().zip(sides.next().unwrap_or_default());
    let compared = |((kind, mention), (_, entity))| Compared { kind, operand: Operand::Item, mention, entity };
    both.map(compared).collect()
}
