//! One query against one sequence, with neither keys nor values (the logits are `u·F_l`, the context
//! `Σ a_l F_l`). Inline into `simd!`.

use crate::device::cpu::vector;

/// Softmax of `u_h · F_l` over the rows of `sequence` (L, d), and the rows' sum under it, for each head.
///
/// u, context (heads, d); probabilities (heads, L).
#[inline(always)]
pub fn attend(u: &[f32], sequence: &[f32], d: usize, probabilities: &mut [f32], context: &mut [f32]) {
    let length = sequence.len() / d;
    let heads = u.chunks_exact(d).zip(probabilities.chunks_exact_mut(length)).zip(context.chunks_exact_mut(d));
    for ((u, probabilities), context) in heads {
        for (logit, row) in probabilities.iter_mut().zip(sequence.chunks_exact(d)) {
            *logit = vector::dot(u, row);
        }
        vector::softmax(probabilities);
        weighted_sum(probabilities, sequence, d, context);
    }
}

/// The rows' sum under these weights, in their order.
#[inline(always)]
pub(super) fn weighted_sum(weights: &[f32], sequence: &[f32], d: usize, sum: &mut [f32]) {
    sum.fill(0.0);
    let (fours, rest) = weights.as_chunks::<4>();
    let (blocks, tail) = sequence.split_at(fours.len() * 4 * d);
    for (a, rows) in fours.iter().zip(blocks.chunks_exact(4 * d)) {
        vector::add_scaled4(sum, *a, [0, 1, 2, 3].map(|i| &rows[i * d..][..d]));
    }
    for (&a, row) in rest.iter().zip(tail.chunks_exact(d)) {
        vector::add_scaled(sum, a, row);
    }
}

/// Backward of [`attend`] for one query and sequence: writes `du` (heads, d), adds to `dsequence` (L, d).
/// `scratch` is overwritten.
#[inline(always)]
pub fn attend_backward(
    forward: Attended,
    dcontext: &[f32],
    du: &mut [f32],
    dsequence: &mut [f32],
    scratch: &mut Vec<f32>,
) {
    let Attended { u, sequence, probabilities, d } = forward;
    let length = sequence.len() / d;
    scratch.resize(length, 0.0);
    let heads = u.chunks_exact(d).zip(probabilities.chunks_exact(length));
    for (((u, a), dcontext), du) in heads.zip(dcontext.chunks_exact(d)).zip(du.chunks_exact_mut(d)) {
        for (da, row) in scratch.iter_mut().zip(sequence.chunks_exact(d)) {
            *da = vector::dot(dcontext, row);
        }
        let mean = vector::dot(a, scratch);
        du.fill(0.0);
        let rows = sequence.chunks_exact(d).zip(dsequence.chunks_exact_mut(d));
        for ((&a, &da), (row, drow)) in a.iter().zip(&*scratch).zip(rows) {
            let dlogit = a * (da - mean);
            vector::add_scaled(du, dlogit, row);
            for ((drow, &c), &u) in drow.iter_mut().zip(dcontext).zip(u) {
                *drow = a.mul_add(c, dlogit.mul_add(u, *drow));
            }
        }
    }
}

/// Operands and result of [`attend`].
#[derive(Clone, Copy)]
pub struct Attended<'a> {
    /// (heads, d)
    pub u: &'a [f32],
    /// (L, d)
    pub sequence: &'a [f32],
    /// (heads, L)
    pub probabilities: &'a [f32],
    /// Width.
    pub d: usize,
}
