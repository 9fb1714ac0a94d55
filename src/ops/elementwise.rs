//! What operations on single values and single rows share: pieces of work whose borders depend on shapes alone, costs,
//! and where a gradient lies.

use rayon::prelude::*;

use super::elsewhere;
use crate::autograd::{Cost, KernelWork};
use crate::device::Gpu;
use crate::error::Result;
use crate::tensor::Tensor;

/// Values one task handles.
const CHUNK: usize = 16 << 10;

/// The fewest rows one task handles.
const ROWS: usize = 32;

/// Calls `f` with each piece of `out` and the same piece of every one of `x`, which are as long.
pub(super) fn pieces<const N: usize>(out: &mut [f32], x: [&[f32]; N], f: impl Fn(&mut [f32], [&[f32]; N]) + Sync) {
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
        let range = chunk * CHUNK..chunk * CHUNK + out.len();
        f(out, x.map(|x| &x[range.clone()]));
    });
}

/// Calls `f` with the number of each row of `width` values and the row.
pub(super) fn rows(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    out.par_chunks_mut(width.max(1)).enumerate().with_min_len(ROWS).for_each(|(row, out)| f(row, out));
}

/// Cost of an operation that a textbook computes likewise, by FLOPs and by values that move, each of forward and
/// backward.
pub(super) fn cost(flops: [usize; 2], values: [usize; 2]) -> Cost {
    let ([forward, backward], [forward_values, backward_values]) = (flops.map(|n| n as u64), values.map(|n| n as u64));
    Cost {
        forward,
        backward,
        textbook_forward: forward,
        textbook_backward: backward,
        kernels_forward: KernelWork::vector(forward),
        kernels_backward: KernelWork::vector(backward),
        forward_bytes: 4 * forward_values,
        backward_bytes: 4 * backward_values,
    }
}

/// The device that the gradient of an output lies on, if what was saved lies there too; `None` for the host.
pub(super) fn place<'a>(op: &'static str, saved: &Tensor, grad: &'a Tensor) -> Result<Option<&'a Gpu>> {
    match saved.gpu().map(Gpu::ordinal) == grad.gpu().map(Gpu::ordinal) {
        true => Ok(grad.gpu()),
        false => Err(elsewhere(op)),
    }
}

#[cfg(test)]
mod tests {
    use crate::autograd::{Op, Tape, Var};
    use crate::ops::{Combine, Gather, Mix, Multiply, Pairing, Pooling, SequencePool, Sum};
    use crate::tensor::{Ragged, Tensor, Textbook};

    /// What an operation says of inputs of these shapes.
    fn refusal<O: Op>(op: O, shapes: &[&[usize]]) -> String {
        let inputs: Vec<Var> = shapes.iter().map(|&shape| Var::constant(Tensor::zeros(shape))).collect();
        Tape::inference().apply(op, &inputs.iter().collect::<Vec<_>>()).unwrap_err().to_string()
    }

    #[test]
    fn inputs_that_do_not_fit_are_refused() {
        let pairs = Pairing::new(vec![0, 1], 3, vec![0, 0], 1).unwrap();
        let sequences = Ragged::new([2, 1], Textbook { sequences: 2, length: 2 }).unwrap();
        let combine = |coefficients: Vec<Vec<f32>>| Combine { coefficients };
        for (says, refused) in [
            (refusal(Sum { coefficients: vec![] }, &[]), "sum: 0 terms with 0 coefficients"),
            (refusal(Sum { coefficients: vec![1.0] }, &[&[2], &[2]]), "sum: 2 terms with 1 coefficients"),
            (refusal(Sum { coefficients: vec![1.0; 2] }, &[&[2], &[1, 2]]), "sum: term has shape [1, 2]"),
            (refusal(combine(vec![]), &[]), "combine: no rows to combine"),
            (refusal(combine(vec![]), &[&[2, 3]]), "combine: 2 rows to 0"),
            (refusal(combine(vec![vec![1.0]]), &[&[1, 3], &[1, 3]]), "combine: 1 coefficients for 2 rows"),
            (refusal(combine(vec![vec![1.0; 2]]), &[&[1, 3], &[1, 2]]), "combine: rows has shape [1, 2]"),
            (refusal(Multiply, &[&[2, 3], &[3]]), "multiply: x has shape [2, 3], y [3]"),
            (refusal(Mix, &[&[2, 1]]), "mix: needs logits and 1 to 8"),
            (refusal(Mix, &[&[2, 1], &[2, 3], &[2, 3]]), "mix: logits has shape [2, 1]"),
            (refusal(Mix, &[&[2, 2], &[2, 3], &[2, 4]]), "mix: modality has shape [2, 4]"),
            (refusal(Gather { pairs }, &[&[2, 4]]), "gather: rows has shape [2, 4], needs [3, 4]"),
            (refusal(SequencePool { sequences, kind: Pooling::Max }, &[&[4, 5]]), "sequence_pool: 4 rows of 5"),
        ] {
            assert!(says.starts_with(refused), "{says}, should say {refused}");
        }
    }
}
