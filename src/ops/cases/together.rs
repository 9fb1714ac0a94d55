//! Cases of several instances that are one operation, as a network has them: those of mentions and of entities, which have
//! weights and inputs in common. Their outputs are compared, so that gradients flow to all.

use super::{Case, Draw};
use crate::autograd::{Op, Tape, Var};
use crate::error::Result;
use crate::ops::{CrossAttention, Mlp, MultiPool, Operand, Pairing, Project, Score};
use crate::tensor::{FeatureRows, Indices, Tensor};

/// At odd sizes.
pub(super) fn small() -> Result<Vec<Case>> {
    let draw = &mut Draw::new(7);
    Ok(vec![
        draw.projections(1, 1, [8, 16], 5)?,
        draw.projections(7, 5, [24, 40], 33)?,
        draw.pools(1, 1, 3)?,
        draw.pools(5, 4, 20)?,
        draw.mlps(1, 3, 65)?,
        draw.attentions(1, 1, 4, 1)?,
        draw.attentions(3, 5, 12, 3)?,
        draw.scores(3, 4, 5)?,
    ])
}

/// Of so many pairs that sums over entities are split among blocks of a device, those over mentions not. Differences of their
/// outputs say little: ReLU has a kink for each of so many rows.
pub fn large() -> Result<Vec<Case>> {
    let draw = &mut Draw::new(8);
    Ok(vec![
        draw.projections(300, 1, [72, 16], 132)?,
        draw.mlps(9, 31, 12)?,
        draw.mlps(1, 1000, 7)?,
        draw.attentions(8, 34, 20, 1)?,
    ])
}

/// Runs instances, each on those of the inputs that it names, and compares the outputs of each two: vectors of items, or of
/// pairs.
fn case<O: Op>(
    sizes: String,
    inputs: Vec<Tensor>,
    (pairs, operands): (Pairing, Vec<Operand>),
    places: Vec<Vec<usize>>,
    make: impl Fn() -> Vec<O> + Send + Sync + 'static,
) -> Case {
    let name = format!("{} of {} instances, {sizes}", make().first().map_or("", O::name), places.len());
    let apply = move |tape: &Tape, inputs: &[&Var]| {
        let of: Vec<Vec<&Var>> = places.iter().map(|of| of.iter().map(|&i| inputs[i]).collect()).collect();
        let outputs = tape.apply_all(make(), &of)?;
        let score = Score { pairs: pairs.clone(), operands: operands.clone() };
        tape.apply(score, &outputs.iter().collect::<Vec<_>>())
    };
    Case { name, inputs, apply: Box::new(apply) }
}

impl Draw {
    /// Both sides' rows of two tables, of which the second has rows that are not stored as f16.
    fn projections(&mut self, mentions: usize, candidates: usize, widths: [usize; 2], d: usize) -> Result<Case> {
        let pairs = Draw::pairs(mentions, candidates)?;
        let (mut features, mut inputs) = (Vec::new(), Vec::new());
        for (wide, width) in widths.into_iter().enumerate() {
            for (side, rows) in [mentions, pairs.len()].into_iter().enumerate() {
                let (rows, weights) = self.features(rows, width, d, wide)?;
                features.push(rows);
                if side == 0 {
                    inputs.extend(weights);
                }
            }
        }
        let places = [0, 0, 4, 4].map(|first| (first..first + 4).collect()).into();
        let op = |features: &FeatureRows| Project {
            features: features.clone(),
            eps: 1e-5,
            textbook_rows: 1,
            sequences: None,
        };
        let make = move || features.iter().map(op).collect();
        let sizes = format!("{mentions} x {candidates}, {widths:?} -> {d}");
        Ok(case(sizes, inputs, (pairs, vec![Operand::Item; 2]), places, make))
    }

    /// Two of them of one sequence.
    fn pools(&mut self, mentions: usize, candidates: usize, d: usize) -> Result<Case> {
        let pairs = Draw::pairs(mentions, candidates)?;
        let sequences = [self.sequences(mentions, 7)?, self.sequences(pairs.len(), 9)?];
        let mut inputs = Vec::new();
        for sequences in &sequences {
            inputs.extend([self.tensor(&[sequences.rows(), d]), self.tensor(&[sequences.len(), d])]);
        }
        inputs.push(self.tensor(&[mentions, d]));
        let places = vec![vec![0, 1], vec![2, 3], vec![0, 4], vec![2, 3]];
        let make = move || (0..4).map(|i| MultiPool { sequences: sequences[i % 2].clone() }).collect();
        Ok(case(format!("{mentions} x {candidates}, d {d}"), inputs, (pairs, vec![Operand::Item; 2]), places, make))
    }

    /// Two weights, each for mentions and entities, of the same parts in another order.
    fn mlps(&mut self, mentions: usize, candidates: usize, d: usize) -> Result<Case> {
        let (pairs, width) = (Draw::pairs(mentions, candidates)?, d + 4);
        let mut inputs = Vec::new();
        for _ in 0..2 {
            inputs.extend([self.weight(d, 2 * width), self.tensor(&[d]), self.weight(d, d), self.tensor(&[d])]);
        }
        for rows in [mentions, pairs.len()] {
            inputs.extend([self.tensor(&[rows, width]), self.tensor(&[rows, width])]);
        }
        let place = |first: usize, parts: [usize; 2]| (first..first + 4).chain(parts).collect();
        let places = vec![place(0, [8, 9]), place(0, [10, 11]), place(4, [9, 8]), place(4, [11, 10])];
        let make = || (0..4).map(|_| Mlp { textbook_rows: 1 }).collect();
        Ok(case(format!("{mentions} x {candidates}, d {d}"), inputs, (pairs, vec![Operand::Item; 2]), places, make))
    }

    /// Each side's queries over the other's sequences, and other queries over their own, which have weights of their own.
    fn attentions(&mut self, mentions: usize, candidates: usize, d: usize, heads: usize) -> Result<Case> {
        let pairs = Draw::pairs(mentions, candidates)?;
        let sides = [self.sequences(mentions, 40)?, self.sequences(pairs.len(), 9)?];
        let mut inputs = Vec::new();
        for _ in 0..2 {
            for _ in 0..4 {
                inputs.extend([self.weight(d, d), self.tensor(&[d])]);
            }
            inputs.extend([self.tensor(&[d]), self.tensor(&[d])]);
        }
        for sequences in &sides {
            inputs.push(self.tensor(&[sequences.rows(), d]));
            inputs.extend([self.tensor(&[sequences.len(), d]), self.tensor(&[sequences.len(), d])]);
        }
        let place = |query, sequence, first: usize| [query, sequence].into_iter().chain(first..first + 10).collect();
        let places = vec![place(21, 23, 0), place(24, 20, 0), place(22, 20, 10), place(25, 23, 10)];
        let own = |side: usize| (Pairing::identity(sides[side].len()), side, sides[side].offsets().clone());
        let over = (pairs.clone(), 1, pairs.starts(&sides[1])?);
        let under = (pairs.flip(), 0, pairs.flip().starts(&sides[0])?);
        let of = [over, under, own(0), own(1)];
        let make = move || {
            let op = |(pairs, side, starts): &(Pairing, usize, Indices)| CrossAttention {
                heads,
                eps: 1e-5,
                sequences: sides[*side].clone(),
                textbook_pairs: pairs.len(),
                pairs: pairs.clone(),
                starts: starts.clone(),
            };
            of.iter().map(op).collect()
        };
        let sizes = format!("{mentions} x {candidates}, d {d}, heads {heads}");
        Ok(case(sizes, inputs, (pairs, vec![Operand::Pair, Operand::Item]), places, make))
    }

    /// Scores of which two have one side in common.
    fn scores(&mut self, mentions: usize, candidates: usize, d: usize) -> Result<Case> {
        let pairs = Draw::pairs(mentions, candidates)?;
        let inputs = [mentions, pairs.len(), pairs.len()].map(|rows| self.tensor(&[rows, d])).into();
        let name = format!("score of one side with two, {mentions} x {candidates}, d {d}");
        let apply = move |tape: &Tape, inputs: &[&Var]| {
            let score = Score { pairs: pairs.clone(), operands: vec![Operand::Item; 2] };
            tape.apply(score, &[inputs[0], inputs[1], inputs[0], inputs[2]])
        };
        Ok(Case { name, inputs, apply: Box::new(apply) })
    }
}
