//! FLOPs that kernels/matmul.cu spends, as cusim counts them.

use super::{DEPTH, TILE, splits_of};
use crate::autograd::KernelWork;
use crate::ops::reduce::parts;

/// FLOPs of an output on its way out: scaled and added to what is there (fma), and a bias added, or 0.
const EPILOGUE: usize = 3;

/// What tensor cores multiply at a time in tf32 (m, n, k). Nothing more is filled up with zeros.
const FRAGMENT: [usize; 3] = [16, 8, 8];

/// Of as many products of these sizes [m, n, k] that are written at once.
pub fn written(batches: usize, size: [usize; 3]) -> KernelWork {
    product(batches, size, 1)
}

/// Of as many sums over k, whose A is transposed, as gradients of weights are: blocks sum the rows of A that they load, whether
/// wanted (`rows`) or not, and what the parts of k have summed is added up.
pub fn summed(batches: usize, [m, n, k]: [usize; 3], rows: bool) -> KernelWork {
    let splits = splits_of(batches, [m, n, k]);
    let tiles = batches * m.div_ceil(TILE) * n.div_ceil(TILE) * k.div_ceil(DEPTH);
    // A tile's 128 threads load it by fours, of 16 threads to a row of 64: what they have is summed 8 to a row.
    let row_sums = if rows { batches * m * splits * 128 / (TILE / 4) } else { 0 };
    let columns = m * n + if rows { m } else { 0 };
    let reduced = if splits > 1 { batches as u64 * parts(splits, columns) } else { 0 };
    let sums = (tiles * TILE * DEPTH + row_sums) as u64 + reduced;
    product(batches, [m, n, k], splits) + KernelWork::vector(sums)
}

fn product(batches: usize, [m, n, k]: [usize; 3], splits: usize) -> KernelWork {
    let [rows, columns, depth] = FRAGMENT;
    let tiles = 2 * batches * m.next_multiple_of(rows) * n.next_multiple_of(columns) * k.next_multiple_of(depth);
    // Outputs leave four at a time.
    let vector = EPILOGUE * batches * splits * m * n.next_multiple_of(4);
    KernelWork { products: (2 * batches * m * n * k) as u64, columns: 0, tiles: tiles as u64, vector: vector as u64 }
}
