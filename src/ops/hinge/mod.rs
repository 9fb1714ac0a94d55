//! Hinge loss of each score over each mention's candidates: the gold one is to be ahead of every other by a margin.
//!
//! scores (k, pairs) -> (k): the mean over mentions of the mean over their negatives j of max(0, margin - s_gold +
//! s_j). A mention without negatives has no loss. At the kink the gradient is 0. The sum is the loss, so backward
//! starts from ones.

mod cuda;

use super::lanes::{LANES, WARP_SUM};
use super::{Gold, Pairing, arity, elementwise};
use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const NAME: &str = "hinge";

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Hinge {
    /// Left: mention, right: entity.
    pub pairs: Pairing,
    /// Their gold pairs.
    pub gold: Gold,
    /// By how much the gold candidate's score is to exceed the others'.
    pub margin: f32,
}

impl Hinge {
    /// Calls `f` with each negative pair of a mention and its violation of the margin, where there is one.
    fn violations(
        &self,
        scores: &[f32],
        candidates: std::ops::Range<usize>,
        gold: usize,
        mut f: impl FnMut(usize, f32),
    ) {
        let bar = self.margin - scores[gold];
        for pair in candidates.filter(|&pair| pair != gold) {
            let violation = bar + scores[pair];
            // A loss that is not a number must show.
            if violation > 0.0 || violation.is_nan() {
                f(pair, violation);
            }
        }
    }
}

impl Op for Hinge {
    /// The scores.
    type Saved = Tensor;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, _: usize) -> &'static str {
        "scores"
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let (kinds, values) = (inputs[0][0], inputs[0][0] * inputs[0][1]);
        // A warp per mention and score, each of whose lanes has the bar, and the share of the gradient; then four warps' means.
        let losses = kinds * self.gold.len();
        let means = kinds * 4 * (WARP_SUM + 1);
        Cost {
            kernels_forward: KernelWork::vector((losses * (WARP_SUM + LANES + 1) + 2 * values + means) as u64),
            kernels_backward: KernelWork::vector((losses * (WARP_SUM + 2 * LANES) + 3 * values) as u64),
            ..elementwise::cost([2 * values, 3 * values], [values, 2 * values])
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Tensor)> {
        let &[scores] = arity(NAME, inputs)?;
        let (k, n) = scores.matrix(NAME, "scores")?;
        if !self.margin.is_finite() {
            return Err(Error::invalid(format!("hinge's margin {} is not finite", self.margin)));
        }
        let candidates = self.gold.candidates(NAME, &self.pairs, n)?;
        if let Some(gpu) = scores.gpu() {
            return Ok((self.forward_on(gpu, scores)?, scores.clone()));
        }
        let mut losses = vec![0.0; k];
        for (loss, scores) in losses.iter_mut().zip(scores.data().chunks_exact(n)) {
            for (range, &gold) in candidates.iter().zip(self.gold.iter()) {
                let (mut sum, negatives) = (0.0, range.len() - 1);
                self.violations(scores, range.clone(), gold as usize, |_, violation| sum += violation);
                *loss += sum / negatives.max(1) as f32 / candidates.len() as f32;
            }
        }
        Ok((Tensor::new([k], losses)?, scores.clone()))
    }

    fn backward(&self, scores: Tensor, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        if let Some(gpu) = elementwise::place(NAME, &scores, grad)? {
            return self.backward_on(gpu, &scores, grad, grads.on_device(0)?);
        }
        let (_, n) = scores.matrix(NAME, "scores")?;
        let candidates = self.gold.candidates(NAME, &self.pairs, n)?;
        let Some(dscores) = grads.get(0) else { return Ok(()) };
        let rows = dscores.chunks_exact_mut(n).zip(scores.data().chunks_exact(n));
        for ((dscores, scores), grad) in rows.zip(grad.data()) {
            for (range, &gold) in candidates.iter().zip(self.gold.iter()) {
                let (mut violated, negatives) = (0, range.len() - 1);
                let share = grad / (negatives.max(1) * candidates.len()) as f32;
                self.violations(scores, range.clone(), gold as usize, |pair, _| {
                    dscores[pair] += share;
                    violated += 1;
                });
                dscores[gold as usize] -= share * violated as f32;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;

    #[test]
    fn negatives_within_the_margin_cost_what_they_lack() {
        // Mention 0 with three candidates, of which one is exactly at the margin; mention 1 with its gold candidate
        // alone.
        let pairs = Pairing::new(vec![0, 0, 0, 1], 2, vec![0, 1, 2, 3], 4).unwrap();
        let gold = Gold::new(&pairs, vec![1, 3]);
        let tape = Tape::recording();
        let scores = tape.leaf(Tensor::new([1, 4], vec![1.5, 1.0, 0.75, -9.0]).unwrap());
        let loss = tape.apply(Hinge { pairs, gold, margin: 0.25 }, &[&scores]).unwrap();
        // Of the first mention (0.25 - 1 + 1.5 + 0) / 2, of the second 0.
        assert_eq!(loss.tensor().data(), [0.1875]);
        let mut grads = tape.backward(&loss, Tensor::new([1], vec![1.0]).unwrap()).unwrap();
        assert_eq!(grads.take(&scores).unwrap().data(), [0.25, -0.25, 0.0, 0.0]);
    }

    #[test]
    fn golds_that_are_no_candidates_are_refused() {
        let pairs = Pairing::new(vec![0, 1], 2, vec![0, 1], 2).unwrap();
        let gold = Gold::new(&pairs, vec![1, 1]);
        let scores = crate::autograd::Var::constant(Tensor::zeros([1, 2]));
        let refused = Tape::inference().apply(Hinge { pairs, gold, margin: 0.25 }, &[&scores]);
        assert_eq!(refused.unwrap_err().to_string(), "hinge: gold pair 1 is none of mention 0's");
    }
}
