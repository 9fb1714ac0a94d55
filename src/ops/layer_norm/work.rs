//! FLOPs that kernels/layer_norm.cu and layer_norm_rows.cu spend, as cusim counts them.

use super::cuda::{ROWS_PER_BLOCK, WIDEST};
use crate::ops::lanes::{LANES, WARP_SUM, row};
use crate::ops::reduce::parts;

/// FLOPs of forward per value: sum, distance from the mean, its square (fma), scaled by the deviation, weight and bias (fma).
pub const NORM_FORWARD: usize = 7;

/// FLOPs of backward per value: gradients of weight (fma) and bias, gradient times weight, its sum and its sum along the row
/// (fma), less the mean and what lies along the row (fma), scaled, and the sum of that.
pub const NORM_BACKWARD: usize = 12;

/// Of n rows of d values, to each of which a residual is added first (fma) or not. A warp has a row.
pub fn forward_work(n: usize, d: usize, residual: bool) -> u64 {
    let values = row(d) * (NORM_FORWARD + 2 * residual as usize);
    // Two sums; the mean (a division), and the deviation (division, addition, root).
    (n * (values + 2 * WARP_SUM + 4 * LANES)) as u64
}

/// Of n rows of d values, whose sums over rows go through the parts of blocks.
pub fn backward_work(n: usize, d: usize) -> u64 {
    // Each of which leaves a part of the sums over the rows.
    let blocks = n.div_ceil(ROWS_PER_BLOCK);
    // Two sums and two divisions of each row; the four warps of a block add up theirs.
    let rows = n * (row(d) * NORM_BACKWARD + 2 * WARP_SUM + 2 * LANES) + blocks * 4 * 3 * d;
    let reduced = if d <= WIDEST { 3 } else { 2 };
    rows as u64 + parts(blocks, reduced * d)
}
