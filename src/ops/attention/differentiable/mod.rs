//! Attention with gradients between ragged sequences: for each pair (a, b) and head, the rows of query sequence a
//! attend to those of key sequence b, `softmax(scale · q kᵀ) v`; causal attention's row i sees keys 0 to i alone.
//!
//! q (rows of all query sequences, d), k and v (rows of all key sequences, d) -> (rows of all pairs, d): pair after
//! pair, a row for each row of its query sequence. Sequences may be in many pairs. The weights are not kept: backward
//! computes them again from the logarithm of each row's sum (Dao et al., 2022).

mod cpu;
mod cuda;

use crate::autograd::{Cost, InputGrads, KernelWork, Op};
use crate::device::cpu::Buffer;
use crate::device::cuda::DeviceBuffer;
use crate::error::{Error, Result};
use crate::ops::lanes::{EXP, LANES, WARP_SUM, row};
use crate::ops::{Pairing, arity, elsewhere};
use crate::tensor::{Ragged, Tensor, Textbook};

const NAME: &str = "attention";

/// See the module's documentation. Inputs: queries, keys, values.
#[derive(Clone, Debug)]
pub struct Attention {
    heads: usize,
    scale: f32,
    queries: Ragged,
    keys: Ragged,
    pairs: Pairing,
    /// Whether a row sees the keys up to its own place alone.
    causal: bool,
    /// The pairs' rows of the output.
    output: Ragged,
}

/// What backward needs.
pub struct Saved {
    /// Queries, keys and values.
    inputs: [Tensor; 3],
    out: Tensor,
    /// Logarithm of the sum of e to the logits, of each output row and head (rows, heads).
    sums: Sums,
}

enum Sums {
    Host(Buffer),
    Device(DeviceBuffer<f32>),
}

impl Attention {
    /// With so many heads and logits scaled by `scale`, which is usually 1 / √(d / heads). `pairs` has query sequences
    /// on its left and key sequences on its right; fails if there are not as many of them.
    pub fn new(heads: usize, scale: f32, queries: Ragged, keys: Ragged, pairs: Pairing) -> Result<Attention> {
        let (left, right) = (pairs.by_left().len(), pairs.by_right().len());
        if (left, right) != (queries.len(), keys.len()) {
            let sequences = format!("{} sequences of queries and {} of keys", queries.len(), keys.len());
            return Err(Error::shape(NAME, format!("pairs of {left} and {right} items, {sequences}")));
        }
        if heads == 0 || !scale.is_finite() {
            return Err(Error::invalid(format!("attention with {heads} heads and scale {scale}")));
        }
        let in_turn = pairs.len() == queries.len() && pairs.left().iter().enumerate().all(|(p, &a)| p == a as usize);
        let output = if in_turn {
            queries.clone()
        } else {
            let textbook = Textbook { sequences: pairs.len(), length: queries.textbook().length };
            Ragged::new(pairs.left().iter().map(|&a| queries.range(a as usize).len()), textbook)?
        };
        Ok(Attention { heads, scale, queries, keys, pairs, causal: false, output })
    }

    /// The same where row i of a query sequence sees rows 0 to i of a key sequence, and none of the others. Fails unless
    /// the sequences of each pair are of one length.
    pub fn causal(self) -> Result<Attention> {
        let lengths = |p: usize| {
            let (a, b) = (self.pairs.left()[p] as usize, self.pairs.right()[p] as usize);
            (self.queries.range(a).len(), self.keys.range(b).len())
        };
        match (0..self.pairs.len()).map(lengths).find(|(queries, keys)| queries != keys) {
            None => Ok(Attention { causal: true, ..self }),
            Some((queries, keys)) => {
                let reason = format!("causal, but a sequence of {queries} queries is paired with one of {keys} keys");
                Err(Error::shape(NAME, reason))
            }
        }
    }

    /// How many of a pair's keys row `row` of its queries sees.
    fn seen(&self, row: usize, keys: usize) -> usize {
        if self.causal { row + 1 } else { keys }
    }

    /// Where each pair's rows lie in the output.
    pub fn output(&self) -> &Ragged {
        &self.output
    }

    /// Logits of each head: those of all pairs' queries with the keys that they see.
    fn logits(&self) -> usize {
        let lengths = |p: usize| {
            let (a, b) = (self.pairs.left()[p] as usize, self.pairs.right()[p] as usize);
            let (queries, keys) = (self.queries.range(a).len(), self.keys.range(b).len());
            if self.causal { queries * (queries + 1) / 2 } else { queries * keys }
        };
        (0..self.pairs.len()).map(lengths).sum()
    }

    /// Width of all heads together.
    fn checked(&self, [q, k, v]: [&Tensor; 3]) -> Result<usize> {
        let (_, d) = q.matrix(NAME, "queries")?;
        q.expect(NAME, "queries", &[self.queries.rows(), d])?;
        k.expect(NAME, "keys", &[self.keys.rows(), d])?;
        v.expect(NAME, "values", &[self.keys.rows(), d])?;
        if d == 0 || !d.is_multiple_of(self.heads) {
            return Err(Error::shape(NAME, format!("rows of {d} values for {} heads", self.heads)));
        }
        Ok(d)
    }
}

impl Op for Attention {
    type Saved = Saved;

    fn name(&self) -> &'static str {
        NAME
    }

    fn input_name(&self, i: usize) -> &'static str {
        ["queries", "keys", "values"][i]
    }

    fn cost(&self, inputs: &[&[usize]]) -> Cost {
        let (d, logits) = (inputs[0][1], self.logits());
        let padded = self.pairs.len() * self.queries.textbook().length * self.keys.textbook().length;
        let operands = d * (self.queries.rows() + 2 * self.keys.rows());
        let (output, sums) = (d * self.output.rows(), self.heads * self.output.rows());
        // A warp per row and head, whose lanes hold the head's values, and all of which have a dot product.
        let (values, per_head) = (row(d / self.heads), self.heads * logits);
        let dot = 2 * values + WARP_SUM;
        let forward = per_head * (dot + LANES * (5 + 2 * EXP) + 3 * values) + sums * values;
        let weight = LANES * (2 + EXP) + 2 * dot + LANES * 3;
        let keys = self.heads * self.keys.rows();
        let backward =
            per_head * (2 * weight + 6 * values) + sums * dot + (self.heads * self.queries.rows() + 2 * keys) * values;
        Cost {
            // A product is 2 per logit and value: q k and weights times v; backward of them four, before which the
            // logits and the weights' gradients are computed twice, for queries and for keys (the host does with once where
            // each is in one pair). A textbook keeps the weights.
            forward: (4 * d * logits) as u64,
            backward: (14 * d * logits) as u64,
            textbook_forward: (4 * d * padded) as u64,
            textbook_backward: (8 * d * padded) as u64,
            forward_bytes: 4 * (operands + output + sums) as u64,
            backward_bytes: 4 * (2 * operands + 2 * output + sums) as u64,
            kernels_forward: KernelWork::vector(forward as u64),
            kernels_backward: KernelWork::vector(backward as u64),
        }
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let &[q, k, v] = arity(NAME, inputs)?;
        let d = self.checked([q, k, v])?;
        let shape = [self.output.rows(), d];
        let (out, sums) = match q.gpu() {
            Some(gpu) => {
                let (out, sums) = self.forward_on(gpu, [q, k, v])?;
                (Tensor::on_device(shape, out)?, Sums::Device(sums))
            }
            None => {
                let (out, sums) = self.forward_on_host([q, k, v])?;
                (Tensor::new(shape, out)?, Sums::Host(sums))
            }
        };
        Ok((out.clone(), Saved { inputs: [q, k, v].map(Tensor::clone), out, sums }))
    }

    fn backward(&self, saved: Saved, grad: &Tensor, grads: &mut InputGrads) -> Result<()> {
        let Saved { inputs, out, sums } = saved;
        match (sums, grad.gpu()) {
            (Sums::Host(sums), None) => self.backward_on_host(&inputs, &out, &sums, grad, grads),
            (Sums::Device(sums), Some(gpu)) => self.backward_on(gpu, (&inputs, &out, &sums), grad, grads),
            _ => Err(elsewhere(NAME)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::{Tape, Var};

    fn ragged(lengths: &[usize]) -> Ragged {
        let textbook = Textbook { sequences: lengths.len(), length: 4 };
        Ragged::new(lengths.iter().copied(), textbook).unwrap()
    }

    fn tensor(rows: usize, d: usize, seed: usize) -> Tensor {
        Tensor::new([rows, d], (0..rows * d).map(|i| ((i * 37 + seed) % 23) as f32 / 11.0 - 1.0).collect::<Vec<_>>())
            .unwrap()
    }

    #[test]
    fn weights_are_the_softmax_of_scaled_logits() {
        // Pairs (1, 0), (0, 1), (1, 1): query sequences of 2 and 1 rows, key sequences of 1 and 3.
        let pairs = Pairing::new(vec![1, 0, 1], 2, vec![0, 1, 1], 2).unwrap();
        let (queries, keys) = (ragged(&[2, 1]), ragged(&[1, 3]));
        let op = Attention::new(2, 0.7, queries.clone(), keys.clone(), pairs.clone()).unwrap();
        assert_eq!(op.output().offsets()[..], [0, 1, 3, 4]);
        let (q, k, v) = (tensor(3, 4, 1), tensor(4, 4, 5), tensor(4, 4, 9));
        let (out, _) = op.forward(&[&q, &k, &v]).unwrap();
        let mut want = Vec::new();
        for (&a, &b) in pairs.left().iter().zip(pairs.right().iter()) {
            for i in queries.range(a as usize) {
                for head in 0..2 {
                    let weight = |j: usize| {
                        let logit: f32 =
                            (0..2).map(|e| q.data()[i * 4 + head * 2 + e] * k.data()[j * 4 + head * 2 + e]).sum();
                        (0.7 * logit).exp()
                    };
                    let total: f32 = keys.range(b as usize).map(weight).sum();
                    for e in 0..2 {
                        let sum: f32 = keys.range(b as usize).map(|j| weight(j) * v.data()[j * 4 + head * 2 + e]).sum();
                        want.push(sum / total);
                    }
                }
            }
        }
        for (got, want) in out.data().iter().zip(&want) {
            assert!((got - want).abs() < 1e-6, "{got}, want {want}");
        }
    }

    #[test]
    fn a_causal_row_is_that_of_the_keys_up_to_its_place() {
        let of =
            |lengths: &[usize]| Attention::new(2, 0.7, ragged(&[1]), ragged(lengths), Pairing::identity(1)).unwrap();
        let sequences = ragged(&[4]);
        let causal =
            Attention::new(2, 0.7, sequences.clone(), sequences, Pairing::identity(1)).unwrap().causal().unwrap();
        let [q, k, v] = [1, 5, 9].map(|seed| tensor(4, 4, seed));
        let (out, _) = causal.forward(&[&q, &k, &v]).unwrap();
        for row in 0..4 {
            let rows = |x: &Tensor, rows: std::ops::Range<usize>| {
                Tensor::new([rows.len(), 4], x.data()[4 * rows.start..4 * rows.end].to_vec()).unwrap()
            };
            let [k, v] = [&k, &v].map(|x| rows(x, 0..row + 1));
            let (want, _) = of(&[row + 1]).forward(&[&rows(&q, row..row + 1), &k, &v]).unwrap();
            for (got, want) in out.data()[4 * row..][..4].iter().zip(want.data()) {
                assert!((got - want).abs() < 1e-6, "row {row}: {got}, want {want}");
            }
        }
        assert!(of(&[2]).causal().unwrap_err().to_string().contains("1 queries is paired with one of 2 keys"));
    }

    #[test]
    fn pairs_of_items_in_turn_give_rows_as_the_queries_lie() {
        let queries = ragged(&[2, 1]);
        let op = Attention::new(1, 1.0, queries.clone(), ragged(&[3, 1]), Pairing::identity(2)).unwrap();
        assert_eq!(op.output().offsets()[..], queries.offsets()[..]);
    }

    #[test]
    fn gradients_of_queries_that_are_also_keys_and_values_add_up() {
        let op = || Attention::new(2, 0.5, ragged(&[3, 2]), ragged(&[3, 2]), Pairing::identity(2)).unwrap();
        let x = tensor(5, 4, 3);
        let (tape, apart) = (Tape::recording(), Tape::recording());
        let one = tape.leaf(x.clone());
        let out = tape.apply(op(), &[&one, &one, &one]).unwrap();
        let three: Vec<Var> = (0..3).map(|_| apart.leaf(x.clone())).collect();
        let out_apart = apart.apply(op(), &three.iter().collect::<Vec<_>>()).unwrap();
        let got = tape.backward(&out, tensor(5, 4, 8)).unwrap().take(&one).unwrap();
        let mut grads = apart.backward(&out_apart, tensor(5, 4, 8)).unwrap();
        let three: Vec<Tensor> = three.iter().map(|leaf| grads.take(leaf).unwrap()).collect();
        for (i, got) in got.data().iter().enumerate() {
            let want: f32 = three.iter().map(|grad| grad.data()[i]).sum();
            assert!((got - want).abs() < 1e-6, "{got}, want {want}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let of = |heads, scale, items| {
            let pairs = Pairing::new(vec![0; items], items, vec![0; items], items).unwrap();
            Attention::new(heads, scale, ragged(&[2, 1]), ragged(&[1, 3]), pairs)
        };
        assert!(of(1, 1.0, 3).unwrap_err().to_string().contains("pairs of 3 and 3 items, 2 sequences of queries"));
        assert!(of(0, 1.0, 2).unwrap_err().to_string().contains("0 heads"));
        assert!(of(1, f32::NAN, 2).unwrap_err().to_string().contains("scale NaN"));
        let says = |heads, rows: usize| {
            let x = [tensor(3, 4, 1), tensor(4, 4, 1), tensor(rows, 4, 1)];
            let error = of(heads, 1.0, 2).unwrap().forward(&[&x[0], &x[1], &x[2]]).err();
            error.unwrap().to_string()
        };
        assert!(says(2, 3).contains("values has shape [3, 4], needs [4, 4]"));
        assert!(says(3, 4).contains("rows of 4 values for 3 heads"));
    }
}
