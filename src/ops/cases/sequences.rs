//! Cases of projected rows that attention and pooling read as sequences: on a device of mixed arithmetic they are normalized, and
//! their readers leave their gradient for the projection to put together.

use super::{Case, Draw};
use crate::autograd::{Tape, Var};
use crate::error::Result;
use crate::ops::{Combine, CrossAttention, MultiPool, Operand, Pairing, Project, Score};
use crate::tensor::Indices;

/// At odd sizes.
pub(super) fn small() -> Result<Vec<Case>> {
    let draw = &mut Draw::new(9);
    Ok(vec![
        draw.of_mentions((1, 1, 1), [8, 5], 1)?,
        draw.of_mentions((3, 4, 40), [24, 20], 2)?,
        draw.of_mentions((2, 9, 70), [16, 33], 1)?,
        draw.of_mentions((2, 3, 33), [8, 132], 3)?,
    ])
}

impl Draw {
    /// Sequences of mentions, which their candidates and they themselves attend to and which are pooled; what comes of each is
    /// compared with other vectors.
    fn of_mentions(
        &mut self,
        (mentions, candidates, longest): (usize, usize, usize),
        [width, d]: [usize; 2],
        heads: usize,
    ) -> Result<Case> {
        let pairs = Draw::pairs(mentions, candidates)?;
        let sequences = self.sequences(mentions, longest)?;
        let (features, mut inputs) = self.features(sequences.rows(), width, d, 0)?;
        for _ in 0..2 {
            for _ in 0..4 {
                inputs.extend([self.weight(d, d), self.tensor(&[d])]);
            }
            inputs.extend([self.tensor(&[d]), self.tensor(&[d])]);
        }
        // Queries of candidates and of mentions, global vectors of mentions, and what is compared.
        for [rows, width] in [[pairs.len(), d], [mentions, d], [mentions, d], [pairs.len(), d], [pairs.len(), d]] {
            inputs.push(self.tensor(&[rows, width]));
        }
        inputs.push(self.tensor(&[pairs.len(), 3 * d]));
        let name = format!("project read as sequences, {mentions} x {candidates} up to {longest}, {width} -> {d}");
        let attention = {
            let sequences = sequences.clone();
            move |pairs: &Pairing, starts: Indices| CrossAttention {
                heads,
                eps: 1e-5,
                sequences: sequences.clone(),
                textbook_pairs: pairs.len(),
                pairs: pairs.clone(),
                starts,
            }
        };
        let apply = move |tape: &Tape, inputs: &[&Var]| {
            let (features, sequences) = (features.clone(), sequences.clone());
            let project =
                Project { textbook_rows: features.len(), features, eps: 1e-5, sequences: Some(sequences.clone()) };
            let rows = tape.apply(project, &inputs[..4])?;
            let (over, own) = (pairs.flip(), Pairing::identity(mentions));
            let ops = vec![attention(&over, over.starts(&sequences)?), attention(&own, sequences.offsets().clone())];
            let of = |query: usize, first: usize| [&[inputs[query], &rows][..], &inputs[first..first + 10]].concat();
            let attended = tape.apply_all(ops, &[of(24, 4), of(25, 14)])?;
            let pooled = tape.apply(MultiPool { sequences: sequences.clone() }, &[&rows, inputs[26]])?;
            let score = |operand: Operand, left: &Var, right: &Var| {
                tape.apply(Score { pairs: pairs.clone(), operands: vec![operand] }, &[left, right])
            };
            let over = score(Operand::Pair, &attended[0], inputs[27])?;
            let own = score(Operand::Item, &attended[1], inputs[28])?;
            let pooled = score(Operand::Item, &pooled, inputs[29])?;
            let coefficients = vec![vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![0.0, 0.0, 1.0]];
            tape.apply(Combine { coefficients }, &[&over, &own, &pooled])
        };
        Ok(Case { name, inputs, apply: Box::new(apply) })
    }
}
