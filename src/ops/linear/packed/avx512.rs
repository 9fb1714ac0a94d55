//! The micro-kernel of bf16 products: AVX-512 BF16's `vdpbf16ps`, which adds two products to each of 16 sums.

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_load_si512, _mm512_loadu_ps, _mm512_reduce_add_ps,
    _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

use half::bf16;

use super::bf16::{Line, PANEL};

/// Rows of a tile. Its 6 x 64 sums fill 24 of the 32 registers, which leaves room for four lines of weights; and they
/// outnumber the two instructions that start each cycle by more than the six cycles each takes.
pub const TILE: usize = 6;

const LINES: usize = PANEL / 16;

/// `sums (M, PANEL) = keep * sums + x · weightsᵀ` for up to [`TILE`] rows of x, `stride` apart, and the inputs whose
/// `lines` are given: each four hold two inputs of the panel's 64 outputs.
///
/// # Safety
/// The processor must have the instructions: [`crate::device::cpu::has_bf16`]. `x` must reach from its start over
/// `(M - 1) * stride + lines.len() / 2` values, where M is `sums.len() / PANEL`.
#[inline]
pub unsafe fn tile(x: *const bf16, stride: usize, lines: &[Line], sums: &mut [f32], keep: bool) {
    // SAFETY: as this function's.
    unsafe {
        match sums.len() / PANEL {
            0 => {}
            1 => rows::<1>(x, stride, lines, sums, keep),
            2 => rows::<2>(x, stride, lines, sums, keep),
            3 => rows::<3>(x, stride, lines, sums, keep),
            4 => rows::<4>(x, stride, lines, sums, keep),
            5 => rows::<5>(x, stride, lines, sums, keep),
            _ => rows::<TILE>(x, stride, lines, sums, keep),
        }
    }
}

/// # Safety
/// As [`tile`], and `sums` must have at least M rows.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn rows<const M: usize>(x: *const bf16, stride: usize, lines: &[Line], sums: &mut [f32], keep: bool) {
    let mut tile = [[_mm512_setzero_ps(); LINES]; M];
    let at = |i: usize, j: usize| i * PANEL + j * 16;
    if keep {
        for (i, row) in tile.iter_mut().enumerate() {
            for (j, sum) in row.iter_mut().enumerate() {
                // SAFETY: at(i, j) + 16 <= M * PANEL <= sums.len().
                *sum = unsafe { _mm512_loadu_ps(sums.as_ptr().add(at(i, j))) };
            }
        }
    }
    for (pair, lines) in lines.as_chunks::<LINES>().0.iter().enumerate() {
        // SAFETY: a line is 64 aligned bytes, and any bits are 32 values of bf16.
        let weights: [__m512bh; LINES] = std::array::from_fn(|j| unsafe {
            transmute::<__m512i, __m512bh>(_mm512_load_si512((&raw const lines[j]).cast()))
        });
        for (i, row) in tile.iter_mut().enumerate() {
            // SAFETY: the caller's x reaches over two values at each pair of each row; they need no alignment.
            let x = unsafe { x.add(i * stride + 2 * pair).cast::<i32>().read_unaligned() };
            // SAFETY: any bits are values of bf16.
            let x = unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(x)) };
            for (sum, weights) in row.iter_mut().zip(weights) {
                *sum = _mm512_dpbf16_ps(*sum, x, weights);
            }
        }
    }
    for (i, row) in tile.iter().enumerate() {
        for (j, sum) in row.iter().enumerate() {
            // SAFETY: as where they are loaded.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr().add(at(i, j)), *sum) };
        }
    }
}

/// FLOPs of [`spin`] per round: 24 instructions of 16 sums of two products.
pub const SPIN_FLOPS: usize = 24 * 16 * 4;

/// Runs independent dot products on registers alone: no kernel can be faster.
///
/// # Safety
/// The processor must have the instructions: [`crate::device::cpu::has_bf16`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub unsafe fn spin(rounds: usize) -> f32 {
    // SAFETY: any bits are values of bf16.
    let one = unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(0x3f80_3f80)) };
    let mut sums = [_mm512_setzero_ps(); 24];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, one, one);
        }
    }
    _mm512_reduce_add_ps(sums.into_iter().fold(_mm512_setzero_ps(), |a, b| _mm512_add_ps(a, b)))
}
