//! Few rows of f32 times weights of floats, each of which becomes an f32 in a register.

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm512_add_ps, _mm512_castsi512_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_reduce_add_ps, _mm512_setzero_ps, _mm512_slli_epi32,
};

use half::{bf16, f16};

use super::super::Columns;
use super::{AHEAD, DOTS, put};
use crate::device::cpu::has_floats;

/// Floats of a register.
const LANES: usize = 16;

/// Sums side by side, which hide the latency of an addition.
const SUMS: usize = 4;

/// Bytes of a line of memory.
const LINE: usize = 64;

/// A float that weights are kept in.
pub trait Float: Copy {
    /// Sixteen of them.
    ///
    /// # Safety
    /// The processor must have the instructions, and there must be so many.
    unsafe fn load(from: *const Self) -> __m512;

    fn wide(self) -> f32;
}

impl Float for f32 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: as for this function.
        unsafe { _mm512_loadu_ps(from) }
    }

    fn wide(self) -> f32 {
        self
    }
}

impl Float for f16 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const f16) -> __m512 {
        // SAFETY: as for this function.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    fn wide(self) -> f32 {
        self.to_f32()
    }
}

impl Float for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load(from: *const bf16) -> __m512 {
        // SAFETY: as for this function.
        let halves = unsafe { _mm256_loadu_si256(from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    }

    fn wide(self) -> f32 {
        self.to_f32()
    }
}

/// `y = x weightsᵀ` or `y += x weightsᵀ` for as many rows of weights as y has columns, and rows of x (rows, columns).
///
/// # Panics
/// If the processor lacks the instructions, which callers have asked about, or if a shape does not fit.
pub fn floats<W: Float>(y: &mut Columns, x: &[f32], columns: usize, weights: &[W], add: bool) {
    let (rows, outputs) = y.size();
    let fits = x.len() == rows * columns && weights.len() == outputs * columns;
    assert!(has_floats() && fits, "shapes of a product");
    for output in 0..outputs {
        let weights = &weights[output * columns..][..columns];
        for first in (0..rows).step_by(DOTS) {
            let x = &x[first * columns..];
            let mut each = |row: usize, sum: f32| put(y, first + row, output, sum, add);
            // SAFETY: the processor has the instructions.
            unsafe {
                match rows - first {
                    1 => dots::<W, 1>(x, weights, &mut each),
                    2 => dots::<W, 2>(x, weights, &mut each),
                    3 => dots::<W, 3>(x, weights, &mut each),
                    _ => dots::<W, DOTS>(x, weights, &mut each),
                }
            }
        }
    }
}

/// Dots M rows of x with one row of weights.
///
/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f")]
unsafe fn dots<W: Float, const M: usize>(x: &[f32], weights: &[W], put: &mut impl FnMut(usize, f32)) {
    let columns = weights.len();
    assert!(x.len() >= M * columns, "rows of x are too short");
    let mut sums = [[_mm512_setzero_ps(); SUMS]; M];
    let mut add = |at: usize, sum: usize| {
        // SAFETY: callers give columns whose next sixteen are there, of weights and so of each row of x.
        unsafe {
            let w = W::load(weights.as_ptr().add(at));
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_loadu_ps(x.as_ptr().add(row * columns + at));
                sums[sum] = _mm512_fmadd_ps(w, x, sums[sum]);
            }
        }
    };
    let step = SUMS * LANES;
    let (whole, in_registers) = (columns / step * step, columns / LANES * LANES);
    for at in (0..whole).step_by(step) {
        for line in (0..step * size_of::<W>()).step_by(LINE) {
            let ahead = weights.as_ptr().wrapping_add(at).cast::<i8>().wrapping_add(AHEAD + line);
            _mm_prefetch::<_MM_HINT_T0>(ahead);
        }
        (0..SUMS).for_each(|sum| add(at + sum * LANES, sum));
    }
    (whole..in_registers).step_by(LANES).for_each(|at| add(at, 0));
    for (row, [a, b, c, d]) in sums.into_iter().enumerate() {
        let rest = weights[in_registers..].iter().zip(&x[row * columns + in_registers..][..columns - in_registers]);
        let rest: f32 = rest.map(|(w, x)| w.wide() * x).sum();
        put(row, _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d))) + rest);
    }
}
