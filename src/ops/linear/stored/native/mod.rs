//! Products by AVX-512: of pairs of bf16 (BF16), of fours of bytes (VNNI), and of few rows of f32.

mod bf16;
mod blocks;
mod floats;
mod integers;
mod transpose;
mod unpack;

use std::arch::x86_64::{__m512i, _mm512_store_si512};
use std::ops::Range;

use super::TILE;
use super::columns::Columns;
use crate::device::cpu::{simd, vector};
use crate::ops::linear::packed::{Line, avx512};

pub use bf16::bf16;
pub use blocks::blocks;
pub use floats::floats;
pub use integers::integers;

/// Rows of activations that one row of weights is dotted with at a time.
const DOTS: usize = 4;

/// Bytes of weights that are fetched ahead of those that are read: without it a core waits for memory a third of the time.
const AHEAD: usize = 3072;

/// Most rows of activations of a packed tile: its sums fill 24 registers.
const HEIGHT: usize = avx512::TILE;

/// Lines of a packed tile for each unit of 32 bits: sixteen rows of weights each.
const BLOCKS: usize = TILE / 16;

/// Goes through all rows of activations with packed weights: `tile` makes the sums (height, 64) of some rows, which y gets
/// or is added.
fn by_height(y: &mut Columns, add: bool, mut tile: impl FnMut(Range<usize>, &mut [f32])) {
    let (rows, outputs) = y.size();
    assert!(outputs <= TILE, "a tile of {outputs} rows of weights");
    let mut sums = [0.0; HEIGHT * TILE];
    let mut row = 0;
    while row < rows {
        // Tiles of as equal a height as can be: one of a single row would wait for its own sums.
        let height = (rows - row).div_ceil((rows - row).div_ceil(HEIGHT));
        let sums = &mut sums[..height * TILE];
        tile(row..row + height, sums);
        for (i, sums) in sums.chunks_exact(TILE).enumerate() {
            let y = y.row(row + i);
            match add {
                true => simd!(vector::add(y, &sums[..outputs])),
                false => y.copy_from_slice(&sums[..outputs]),
            }
        }
        row += height;
    }
}

/// Puts units of sixteen rows of weights, transposed, into the lines of their block.
#[target_feature(enable = "avx512f")]
#[inline]
fn put_block(lines: &mut [Line], block: usize, rows: [__m512i; 16]) {
    for (unit, line) in transpose::transpose(rows).into_iter().enumerate() {
        // SAFETY: a line is 64 aligned bytes.
        unsafe { _mm512_store_si512((&raw mut lines[unit * BLOCKS + block]).cast(), line) };
    }
}

/// Writes or adds one sum.
#[inline(always)]
fn put(y: &mut Columns, row: usize, output: usize, sum: f32, add: bool) {
    let y = &mut y.row(row)[output];
    *y = if add { *y + sum } else { sum };
}
