//! Products by the dot products of AVX-512: pairs of bf16 (BF16) and fours of bytes (VNNI).

mod bf16;
mod integers;
mod transpose;

use super::columns::Columns;

pub use bf16::{bf16, has_bf16};
pub use integers::{has_integers, integers};

/// Rows of activations that one row of weights is dotted with at a time.
const DOTS: usize = 4;

/// Writes or adds one sum.
#[inline(always)]
fn put(y: &mut Columns, row: usize, output: usize, sum: f32, add: bool) {
    let y = &mut y.row(row)[output];
    *y = if add { *y + sum } else { sum };
}
