//! Weights of bf16.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_maskz_loadu_epi16,
    _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_setzero_si512,
};
use std::mem::transmute;

use bytemuck::Zeroable;
use half::bf16 as Bf16;

use super::super::activations::Rounded;
use super::super::{Columns, FEW};
use super::{BLOCKS, DOTS, by_height, put, put_block};
use crate::device::cpu::has_bf16;
use crate::ops::linear::packed::{Line, avx512};

/// Columns of weights that are packed at a time: with 64 outputs, 64 KiB.
const DEPTH: usize = 512;

/// Values of a register.
const LANES: usize = 32;

/// `y = x weightsᵀ` or `y += x weightsᵀ` for as many rows of weights as y has columns.
///
/// # Panics
/// If the processor lacks the instructions, which callers have asked about, or if a shape does not fit.
pub fn bf16(y: &mut Columns, x: &Rounded, weights: &[Bf16], add: bool, lines: &mut Vec<Line>) {
    let (rows, outputs) = y.size();
    assert!(has_bf16() && rows == x.rows() && weights.len() == outputs * x.columns, "shapes of a product");
    if weights.is_empty() {
        return;
    }
    if rows >= FEW {
        return packed(y, x, weights, add, lines);
    }
    for (output, weights) in weights.chunks_exact(x.columns).enumerate() {
        for first in (0..rows).step_by(DOTS) {
            let values = &x.values[first * x.stride..];
            // SAFETY: the processor has the instructions.
            unsafe {
                match rows - first {
                    1 => dots::<1>(values, x.stride, weights, |row, sum| put(y, first + row, output, sum, add)),
                    2 => dots::<2>(values, x.stride, weights, |row, sum| put(y, first + row, output, sum, add)),
                    3 => dots::<3>(values, x.stride, weights, |row, sum| put(y, first + row, output, sum, add)),
                    _ => dots::<DOTS>(values, x.stride, weights, |row, sum| put(y, first + row, output, sum, add)),
                }
            }
        }
    }
}

/// Dots M rows of x with one row of weights. Four sums of each hide the instruction's latency.
///
/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn dots<const M: usize>(x: &[Bf16], stride: usize, weights: &[Bf16], mut put: impl FnMut(usize, f32)) {
    const SUMS: usize = 4;
    assert!(x.len() >= M * stride && stride >= weights.len().next_multiple_of(LANES), "rows of x are too short");
    let mut sums = [[_mm512_setzero_ps(); SUMS]; M];
    let mut add = |at: usize, sum: usize, w: __m512i| {
        for (row, sums) in sums.iter_mut().enumerate() {
            // SAFETY: at + 32 is at most the weights' number rounded up to 32, which is within the stride.
            let x = unsafe { _mm512_loadu_si512(x.as_ptr().add(row * stride + at).cast()) };
            sums[sum] = _mm512_dpbf16_ps(sums[sum], pairs(w), pairs(x));
        }
    };
    let whole = weights.len() / (SUMS * LANES) * (SUMS * LANES);
    for at in (0..whole).step_by(SUMS * LANES) {
        for sum in 0..SUMS {
            // SAFETY: `whole` is at most the weights' number.
            let w = unsafe { _mm512_loadu_si512(weights.as_ptr().add(at + sum * LANES).cast()) };
            add(at + sum * LANES, sum, w);
        }
    }
    for at in (whole..weights.len()).step_by(LANES) {
        add(at, 0, load(weights, at));
    }
    for (row, [a, b, c, d]) in sums.into_iter().enumerate() {
        put(row, _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d))));
    }
}

/// Up to 32 values from `at` on, and zeros after the last.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load(values: &[Bf16], at: usize) -> __m512i {
    let left = values.len().saturating_sub(at).min(LANES);
    let mask = ((1u64 << left) - 1) as u32;
    // SAFETY: values whose bit is 0 are not read.
    unsafe { _mm512_maskz_loadu_epi16(mask, values.as_ptr().wrapping_add(at).cast()) }
}

#[inline(always)]
fn pairs(bits: __m512i) -> __m512bh {
    // SAFETY: any bits are 32 values of bf16.
    unsafe { transmute::<__m512i, __m512bh>(bits) }
}

/// Packs the tile a block of columns at a time, and goes through all rows of x with each.
fn packed(y: &mut Columns, x: &Rounded, weights: &[Bf16], add: bool, lines: &mut Vec<Line>) {
    for depth in (0..x.columns).step_by(DEPTH) {
        let columns = DEPTH.min(x.columns - depth);
        // SAFETY: callers of `bf16` have asked for the instructions.
        unsafe { pack(weights, x.columns, depth..depth + columns, lines) };
        by_height(y, add || depth > 0, |rows, sums| {
            let block = &x.values[rows.start * x.stride + depth..rows.end * x.stride];
            // SAFETY: as above; the block reaches to the end of its last row, which is longer than the lines' columns.
            unsafe { avx512::tile(block.as_ptr(), x.stride, lines, sums, false) };
        });
    }
}

/// Columns of up to 64 rows of weights: for each pair of columns four lines, of 16 rows each; zeros for rows and columns
/// that are not there.
#[target_feature(enable = "avx512f,avx512bw")]
fn pack(weights: &[Bf16], width: usize, columns: std::ops::Range<usize>, lines: &mut Vec<Line>) {
    lines.resize(columns.len().div_ceil(LANES) * 16 * BLOCKS, Line::zeroed());
    for (lines, at) in lines.chunks_exact_mut(16 * BLOCKS).zip(columns.clone().step_by(LANES)) {
        for block in 0..BLOCKS {
            let rows = std::array::from_fn(|i| match weights.get((16 * block + i) * width..) {
                Some(row) if !row.is_empty() => load(&row[..columns.end], at),
                _ => _mm512_setzero_si512(),
            });
            put_block(lines, block, rows);
        }
    }
}
