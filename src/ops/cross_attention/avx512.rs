//! The micro-kernel of sixteen queries' products with rows, a lane for each query (AVX-512).

use std::arch::x86_64::{__m512, _mm512_storeu_ps};
use std::arch::x86_64::{_mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps};

use super::together::Lanes;
use crate::device::cpu::vector::LANES;

/// Columns whose products are summed apart at a time: with two rows, sums fill half of the registers.
const HALF: usize = LANES / 2;

/// Products of each row of `sequence`, `d` apart and read over `u.len()` columns, with all queries, each with the bits of
/// [`crate::device::cpu::vector::dot`].
///
/// # Safety
/// The processor must have the instructions: [`crate::device::cpu::has_floats`].
#[target_feature(enable = "avx512f")]
pub unsafe fn products(u: &[Lanes], sequence: &[f32], d: usize, products: &mut [Lanes]) {
    let (blocks, length) = (u.len() / LANES, products.len());
    assert!(length == 0 || (length - 1) * d + blocks * LANES <= sequence.len(), "rows are shorter than they are read");
    let row = |l: usize| &sequence[l * d..][..blocks * LANES];
    let (pairs, rest) = products.as_chunks_mut::<2>();
    for (at, products) in pairs.iter_mut().enumerate() {
        // SAFETY: as this function's; the rows are as long as `u` has blocks of columns.
        unsafe { of_rows(u, [row(2 * at), row(2 * at + 1)], products) };
    }
    for products in rest {
        // SAFETY: as above.
        unsafe { of_rows(u, [row(length - 1)], std::array::from_mut(products)) };
    }
}

/// # Safety
/// As [`products`], and each row must have as many values as `u` has rows, a multiple of [`LANES`].
#[target_feature(enable = "avx512f")]
unsafe fn of_rows<const R: usize>(u: &[Lanes], rows: [&[f32]; R], products: &mut [Lanes; R]) {
    // SAFETY: as this function's.
    let [mut sums, others] = unsafe { [half::<R>(u, rows, 0), half::<R>(u, rows, HALF)] };
    for ((sums, others), product) in sums.iter_mut().zip(&others).zip(products) {
        for (sum, other) in sums.iter_mut().zip(others) {
            *sum = _mm512_add_ps(*sum, *other);
        }
        for width in [4, 2, 1] {
            for i in 0..width {
                sums[i] = _mm512_add_ps(sums[i], sums[i + width]);
            }
        }
        // SAFETY: a product has a value of each lane.
        unsafe { _mm512_storeu_ps(product.as_mut_ptr(), sums[0]) };
    }
}

/// Of each row the sums over every [`LANES`]th column, for [`HALF`] columns from `first` on.
///
/// # Safety
/// As [`of_rows`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn half<const R: usize>(u: &[Lanes], rows: [&[f32]; R], first: usize) -> [[__m512; HALF]; R] {
    let mut sums = [[_mm512_setzero_ps(); HALF]; R];
    for block in 0..u.len() / LANES {
        for i in 0..HALF {
            let column = block * LANES + first + i;
            // SAFETY: `column` is below the number of u's rows, each of which has a value of each lane.
            let u = unsafe { _mm512_loadu_ps(u.get_unchecked(column).as_ptr()) };
            for (sums, row) in sums.iter_mut().zip(&rows) {
                // SAFETY: a row has as many values as u has rows.
                let x = unsafe { *row.get_unchecked(column) };
                sums[i] = _mm512_fmadd_ps(u, _mm512_set1_ps(x), sums[i]);
            }
        }
    }
    sums
}

/// Sums of the rows of `sequence`, `d` apart with [`LANES`] values behind the last one, under each query's weights, in the rows'
/// order. Contexts that are empty are left out.
///
/// # Safety
/// As [`products`].
#[target_feature(enable = "avx512f")]
pub unsafe fn weighted_sums(weights: &[Lanes], sequence: &[f32], d: usize, contexts: &mut [&mut [f32]; LANES]) {
    assert!(weights.len() * d + LANES <= sequence.len(), "a row is shorter than it is read");
    for column in (0..d).step_by(LANES) {
        let mut sums = [_mm512_setzero_ps(); LANES];
        for (l, weights) in weights.iter().enumerate() {
            // SAFETY: l * d + column + LANES is at most as far as the assertion has looked.
            let row = unsafe { _mm512_loadu_ps(sequence.as_ptr().add(l * d + column)) };
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(*weight), row, *sum);
            }
        }
        for (context, sum) in contexts.iter_mut().zip(sums) {
            let mut values = [0.0; LANES];
            // SAFETY: there are as many values as lanes.
            unsafe { _mm512_storeu_ps(values.as_mut_ptr(), sum) };
            if let Some(columns) = context.get_mut(column..) {
                columns.iter_mut().zip(values).for_each(|(to, from)| *to = from);
            }
        }
    }
}
