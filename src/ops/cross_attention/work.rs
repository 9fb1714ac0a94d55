//! FLOPs that kernels/cross_attention.cu and its products spend, as cusim counts them.

use super::CrossAttention;
use crate::autograd::KernelWork;
use crate::ops::lanes::{EXP, LANES, WARP_SUM, row};
use crate::ops::layer_norm::forward_work as norm_forward;
use crate::ops::matmul::{summed, written};
use crate::ops::project::{filled, lanes as sequence_lanes};
use crate::ops::reduce::group_sums;
use crate::ops::two_layers::Sizes;

/// What attention over the sequences spends.
#[derive(Clone, Copy)]
pub struct Attend {
    /// On values that there are.
    pub executed: u64,
    /// With lanes that hold none, or compute what others do.
    pub all: u64,
}

/// Layers forward, with the normalization, and the products of backward, for queries and for pairs of them with sequences.
pub fn layers(heads: usize, d: usize, [queries, pairs]: [usize; 2]) -> (KernelWork, KernelWork) {
    let c = d / heads.max(1);
    // Query layer, logit vectors; value layer, output layer.
    let sizes = Sizes::square(d);
    let forward = if heads == 1 && sizes.fit() {
        sizes.work(queries, false) + sizes.work(pairs, true)
    } else {
        written(1, [queries, d, d])
            + written(heads, [queries, d, c])
            + written(heads, [pairs, c, d])
            + written(1, [pairs, d, d])
            + KernelWork::vector(norm_forward(pairs, d, true))
    };
    // The output layer's weight and input, the value layer's, the key layer's, the query layer's.
    let backward = summed(1, [d, d, pairs], false)
        + written(1, [pairs, d, d])
        + summed(heads, [c, d, pairs], true)
        + written(heads, [pairs, d, c])
        + summed(heads, [c, d, queries], false)
        + written(heads, [queries, c, d])
        + summed(1, [d, d, queries], true)
        + written(1, [queries, d, d]);
    (forward, backward)
}

/// Attention forward and backward, of `rows` rows of the sequences of all pairs.
pub fn attend(op: &CrossAttention, d: usize, rows: usize) -> (Attend, Attend) {
    let (heads, pairs, queries, lanes) = (op.heads, op.pairs.len(), op.pairs.by_left().len(), row(d));
    let (vectors, rows) = (heads * pairs, heads * rows);
    // Of a row: logit (fma), context scaled and added to (a product and fma). Two e to a power of a difference, the sum (fma);
    // at last each logit becomes a probability. All lanes have the former alike. Of a pair: what is left over the sum.
    let (logit, probability) = (2 * (1 + EXP) + 2, 1 + EXP + 1);
    let forward = Attend {
        executed: (rows * (5 * d + logit + probability) + vectors * (d + 1)) as u64,
        all: (rows * (5 * lanes + WARP_SUM + LANES * logit + probability) + vectors * (lanes + LANES)) as u64,
    };
    // Of a row: gradient of its probability (fma), what goes to u (fma), the context again (fma); the mean (fma) and a product
    // in all lanes; the logit's gradient from the mean. Of a pair: u less the mean's share (fma).
    let to_queries = Attend {
        executed: (rows * (6 * d + 3 + 2) + vectors * 2 * d) as u64,
        all: (rows * (6 * lanes + WARP_SUM + LANES * 3 + 2) + vectors * 2 * lanes) as u64,
    };
    let groups = group_sums(pairs, queries, d) + group_sums(pairs, queries, heads * d);
    let backward =
        Attend { executed: to_queries.executed + (pairs * (1 + heads) * d) as u64, all: to_queries.all + groups };
    (forward, backward)
}

/// The gradients of sequences' rows.
pub fn to_sequences(op: &CrossAttention, d: usize) -> Attend {
    // Of a row: probability times one vector (fma), gradient of the logit times another. Blocks fill rows up.
    let of = |rows: fn(usize) -> usize| -> usize {
        let pairs = |s: usize| op.pairs.by_right().of(s).len();
        (0..op.sequences.len()).map(|s| rows(op.sequences.range(s).len()) * pairs(s)).sum()
    };
    let (rows, filled) = (of(|rows| rows), of(filled));
    Attend { executed: (4 * op.heads * rows * d) as u64, all: (4 * op.heads * filled * sequence_lanes(d)) as u64 }
}

/// Scale and shift of normalized rows, forward and backward: of a pair's vectors.
pub fn scaling(op: &CrossAttention, d: usize) -> (Attend, Attend) {
    let vectors = op.heads * op.pairs.len();
    // Logit vector times scale; context times scale, and the shift (fma). Backward, the context's gradient and that of the logit
    // vector times scale.
    let of = |flops: usize| Attend { executed: (flops * vectors * d) as u64, all: (flops * vectors * row(d)) as u64 };
    (of(4), of(2))
}
