//! Weights of 8 and 4 bits: bytes without a sign times bytes with one, summed exactly in each group, and scaled.

use std::arch::x86_64::{
    __m512, __m512i, _mm_cvtsi32_si128, _mm256_and_si256, _mm256_loadu_si256, _mm256_set1_epi8, _mm256_srli_epi16,
    _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castsi256_si512, _mm512_castsi512_si256,
    _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_inserti64x4, _mm512_load_si512, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mask_blend_ps, _mm512_maskz_loadu_epi8, _mm512_mul_ps, _mm512_reduce_add_ps,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32,
    _mm512_srli_epi16, _mm512_storeu_ps, _mm512_zextsi128_si512,
};

use std::ops::Range;

use bytemuck::Zeroable;
use half::bf16;

use super::super::activations::{Integers, Width};
use super::super::{Columns, FEW, Scratch, TILE};
use super::{BLOCKS, DOTS, HEIGHT, by_height, put, put_block};
use crate::device::cpu::has_integers;
use crate::ops::linear::packed::Line;
use crate::tensor::Bits;
use crate::tensor::quantized::BLOCK;

/// Columns of weights that are packed at a time: with 64 outputs, 64 KiB.
const DEPTH: usize = 1024;

/// `y = x weightsᵀ` or `y += x weightsᵀ` for as many rows of weights as y has columns.
///
/// # Panics
/// If the processor lacks the instructions, which callers have asked about, or if a shape does not fit.
pub fn integers(
    y: &mut Columns,
    x: &Integers,
    bits: Bits,
    codes: &[u8],
    scales: &[bf16],
    add: bool,
    scratch: &mut Scratch,
) {
    let ((rows, outputs), groups) = (y.size(), x.columns / x.group);
    let whole = rows == x.rows() && x.columns.is_multiple_of(x.group) && matches!(x.group, 64 | 128);
    let fits = codes.len() == outputs * bits.bytes(x.columns) && scales.len() == outputs * groups;
    assert!(has_integers() && whole && fits && x.width == Width::One, "shapes of a product");
    assert!(x.interleaved == (bits == Bits::Four && rows < FEW), "activations in another order");
    if rows >= FEW {
        return packed(y, x, bits, codes, scales, add, scratch);
    }
    let products = &mut scratch.floats;
    let weights = codes.chunks_exact(bits.bytes(x.columns)).zip(scales.chunks_exact(groups));
    for (output, (codes, scales)) in weights.enumerate() {
        for first in (0..rows).step_by(DOTS) {
            let mut each = |row: usize, sum: f32| put(y, first + row, output, sum, add);
            // SAFETY: the processor has the instructions.
            unsafe {
                match rows - first {
                    1 => dots::<1>(x, first, bits, codes, scales, products, &mut each),
                    2 => dots::<2>(x, first, bits, codes, scales, products, &mut each),
                    3 => dots::<3>(x, first, bits, codes, scales, products, &mut each),
                    _ => dots::<DOTS>(x, first, bits, codes, scales, products, &mut each),
                }
            }
        }
    }
}

/// Dots M rows of x, from row `first` on, with one row of weights.
///
/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dots<const M: usize>(
    x: &Integers,
    first: usize,
    bits: Bits,
    codes: &[u8],
    scales: &[bf16],
    products: &mut Vec<f32>,
    put: &mut impl FnMut(usize, f32),
) {
    let groups = x.groups();
    // Scales of weights times scales of x; the padding's are 0.
    products.clear();
    products.resize(M * groups, 0.0);
    for (row, products) in products.chunks_exact_mut(groups).enumerate() {
        let x = &x.scales[(first + row) * groups..][..groups];
        for ((product, weight), x) in products.iter_mut().zip(scales).zip(x) {
            // As bf16 widens, but for its branch.
            *product = f32::from_bits((weight.to_bits() as u32) << 16) * x;
        }
    }
    match (bits, x.group) {
        // SAFETY: the processor has the instructions.
        (Bits::Eight, 64) => unsafe { sums::<M, 64, false>(x, first, codes, products, put) },
        (Bits::Eight, _) => unsafe { sums::<M, 128, false>(x, first, codes, products, put) },
        (Bits::Four, 64) => unsafe { sums::<M, 64, true>(x, first, codes, products, put) },
        (Bits::Four, _) => unsafe { sums::<M, 128, true>(x, first, codes, products, put) },
    }
}

/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn sums<const M: usize, const GROUP: usize, const FOUR: bool>(
    x: &Integers,
    first: usize,
    codes: &[u8],
    products: &[f32],
    put: &mut impl FnMut(usize, f32),
) {
    let (groups, per_turn) = (x.groups(), 2 * BLOCK / GROUP);
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    // 128 columns a turn: one register of 4-bit weights, two of 8-bit ones.
    for turn in 0..x.padded / (2 * BLOCK) {
        let [low, high] = match FOUR {
            true => halves(load(codes, turn * BLOCK)),
            false => [load(codes, turn * 2 * BLOCK), load(codes, turn * 2 * BLOCK + BLOCK)],
        };
        for (row, sums) in sums.iter_mut().enumerate() {
            let at = (first + row) * x.padded + turn * 2 * BLOCK;
            let group = (first + row) * groups + turn * per_turn;
            let scale = &products[row * groups + turn * per_turn..][..per_turn];
            let corrections = &x.corrections[group..][..per_turn];
            let [x_low, x_high] = [at, at + BLOCK].map(|at| {
                let codes = &x.codes[at..at + BLOCK];
                // SAFETY: 64 codes.
                unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) }
            });
            match (GROUP, FOUR) {
                // One group: both products go into one sum.
                (128, _) => {
                    let sum = _mm512_dpbusd_epi32(lane0(corrections[0]), low, x_low);
                    let sum = _mm512_dpbusd_epi32(sum, high, x_high);
                    sums[0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scale[0]), sums[0]);
                }
                // Two groups of 8-bit weights: each has a register.
                (_, false) => {
                    for (i, (w, x)) in [(low, x_low), (high, x_high)].into_iter().enumerate() {
                        let sum = _mm512_dpbusd_epi32(lane0(corrections[i]), w, x);
                        sums[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scale[i]), sums[i]);
                    }
                }
                // Two groups of 4-bit weights: each has a half of both registers.
                (_, true) => {
                    let start =
                        _mm512_inserti64x4::<1>(lane0(corrections[0]), _mm512_castsi512_si256(lane0(corrections[1])));
                    let sum = _mm512_dpbusd_epi32(start, low, x_low);
                    let sum = _mm512_dpbusd_epi32(sum, high, x_high);
                    sums[0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), by_halves(scale[0], scale[1]), sums[0]);
                }
            }
        }
    }
    for (row, [a, b]) in sums.into_iter().enumerate() {
        put(row, _mm512_reduce_add_ps(_mm512_add_ps(a, b)));
    }
}

/// Up to 64 bytes from `at` on, and zeros after the last.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load(bytes: &[u8], at: usize) -> __m512i {
    let left = bytes.len().saturating_sub(at);
    if left >= BLOCK {
        // SAFETY: 64 bytes are left.
        return unsafe { _mm512_loadu_si512(bytes.as_ptr().add(at).cast()) };
    }
    // SAFETY: bytes whose bit is 0 are not read.
    unsafe { _mm512_maskz_loadu_epi8((1u64 << left) - 1, bytes.as_ptr().wrapping_add(at).cast()) }
}

/// Low and high halves of bytes.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn halves(bytes: __m512i) -> [__m512i; 2] {
    let mask = _mm512_set1_epi8(15);
    [_mm512_and_si512(bytes, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask)]
}

/// The number in the first lane, zeros in the others.
#[target_feature(enable = "avx512f")]
#[inline]
fn lane0(number: i32) -> __m512i {
    _mm512_zextsi128_si512(_mm_cvtsi32_si128(number))
}

/// One number in the first eight lanes, another in the last eight.
#[target_feature(enable = "avx512f")]
#[inline]
fn by_halves(first: f32, second: f32) -> __m512 {
    _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(first), _mm512_set1_ps(second))
}

/// Packs the tile a block of columns at a time, and goes through all rows of x with each.
fn packed(y: &mut Columns, x: &Integers, bits: Bits, codes: &[u8], scales: &[bf16], add: bool, scratch: &mut Scratch) {
    let groups = x.columns / x.group;
    // Scales (groups, 64).
    let by_group = &mut scratch.floats;
    by_group.clear();
    by_group.resize(groups * TILE, 0.0);
    for (output, scales) in scales.chunks_exact(groups).enumerate() {
        scales.iter().enumerate().for_each(|(g, scale)| by_group[g * TILE + output] = scale.to_f32());
    }
    for depth in (0..x.columns).step_by(DEPTH) {
        let columns = DEPTH.min(x.columns - depth);
        // SAFETY: callers of `integers` have asked for the instructions.
        unsafe { pack(bits, codes, x.columns, depth, columns, &mut scratch.lines) };
        let scales = &by_group[depth / x.group * TILE..][..columns / x.group * TILE];
        let lines = &scratch.lines;
        by_height(y, add || depth > 0, |rows, sums| {
            sums.fill(0.0);
            // SAFETY: as above.
            unsafe { tile_of(x, rows, depth, lines, scales, sums) };
        });
    }
}

/// Columns of up to 64 rows of weights: for each four columns four lines, of 16 rows each; zeros for rows that are not
/// there.
#[target_feature(enable = "avx512f,avx512bw")]
fn pack(bits: Bits, codes: &[u8], width: usize, depth: usize, columns: usize, lines: &mut Vec<Line>) {
    lines.resize(columns / BLOCK * 16 * BLOCKS, Line::zeroed());
    let stride = bits.bytes(width);
    for (lines, at) in lines.chunks_exact_mut(16 * BLOCKS).zip((depth..depth + columns).step_by(BLOCK)) {
        for block in 0..BLOCKS {
            let rows = std::array::from_fn(|i| {
                let start = (16 * block + i) * stride + bits.bytes(at);
                match (codes.get(start..start + bits.bytes(BLOCK)), bits) {
                    (None, _) => _mm512_setzero_si512(),
                    // SAFETY: 64 bytes.
                    (Some(row), Bits::Eight) => unsafe { _mm512_loadu_si512(row.as_ptr().cast()) },
                    (Some(row), Bits::Four) => {
                        // SAFETY: 32 bytes.
                        let (packed, mask) = (unsafe { _mm256_loadu_si256(row.as_ptr().cast()) }, _mm256_set1_epi8(15));
                        let low = _mm256_and_si256(packed, mask);
                        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask);
                        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
                    }
                }
            });
            put_block(lines, block, rows);
        }
    }
}

/// [`tile`] of as many rows of x as there are in the range, up to [`HEIGHT`].
///
/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn tile_of(
    x: &Integers,
    rows: Range<usize>,
    depth: usize,
    lines: &[Line],
    scales: &[f32],
    sums: &mut [f32],
) {
    // SAFETY: as for this function.
    unsafe {
        match rows.len() {
            1 => tile::<1>(x, rows.start, depth, lines, scales, sums),
            2 => tile::<2>(x, rows.start, depth, lines, scales, sums),
            3 => tile::<3>(x, rows.start, depth, lines, scales, sums),
            4 => tile::<4>(x, rows.start, depth, lines, scales, sums),
            5 => tile::<5>(x, rows.start, depth, lines, scales, sums),
            _ => tile::<HEIGHT>(x, rows.start, depth, lines, scales, sums),
        }
    }
}

/// `sums (M, 64) += x · weightsᵀ` over the groups of columns whose lines and scales (groups, 64) are given.
///
/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn tile<const M: usize>(
    x: &Integers,
    row: usize,
    depth: usize,
    lines: &[Line],
    scales: &[f32],
    sums: &mut [f32],
) {
    let (groups, first, stride) = (x.groups(), depth / x.group, x.stride());
    assert!(sums.len() == M * TILE && x.codes.len() >= (row + M) * stride, "a tile of other sizes");
    let by_group = lines.chunks_exact(x.group / 4 * BLOCKS).zip(scales.chunks_exact(TILE));
    for (group, (lines, scales)) in by_group.enumerate() {
        let at = |i: usize| (row + i) * groups + first + group;
        let start = depth + group * x.group;
        assert!(start + x.group <= x.padded, "a group past the row");
        let codes = x.codes[row * stride + start..].as_ptr();
        let mut tile = [[_mm512_setzero_si512(); BLOCKS]; M];
        if x.width == Width::Two {
            // SAFETY: by the assertions, so many rows have a group's codes there.
            unsafe { add_products(&mut tile, codes, stride, lines) };
            tile.iter_mut().flatten().for_each(|sum| *sum = _mm512_slli_epi32::<8>(*sum));
        }
        for (i, row_sums) in tile.iter_mut().enumerate() {
            let correction = _mm512_set1_epi32(x.corrections[at(i)]);
            row_sums.iter_mut().for_each(|sum| *sum = _mm512_add_epi32(*sum, correction));
        }
        // SAFETY: the same, of the last bytes of codes.
        unsafe { add_products(&mut tile, codes.add(stride - x.padded), stride, lines) };
        for (i, row_sums) in tile.into_iter().enumerate() {
            let scale = _mm512_set1_ps(x.scales[at(i)]);
            for (j, sum) in row_sums.into_iter().enumerate() {
                let to = &mut sums[i * TILE + 16 * j..][..16];
                // SAFETY: sixteen floats each.
                unsafe {
                    let scale = _mm512_mul_ps(scale, _mm512_loadu_ps(scales[16 * j..][..16].as_ptr()));
                    let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, _mm512_loadu_ps(to.as_ptr()));
                    _mm512_storeu_ps(to.as_mut_ptr(), sum);
                }
            }
        }
    }
}

/// `tile (M, 64) += codes · weightsᵀ` over the four columns of each four lines.
///
/// # Safety
/// The processor must have the instructions, and M rows, `stride` bytes apart, a code for each of these columns.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
unsafe fn add_products<const M: usize>(
    tile: &mut [[__m512i; BLOCKS]; M],
    codes: *const i8,
    stride: usize,
    lines: &[Line],
) {
    for (unit, lines) in lines.as_chunks::<BLOCKS>().0.iter().enumerate() {
        // SAFETY: a line is 64 aligned bytes.
        let weights: [__m512i; BLOCKS] =
            std::array::from_fn(|j| unsafe { _mm512_load_si512((&raw const lines[j]).cast()) });
        for (i, row_sums) in tile.iter_mut().enumerate() {
            // SAFETY: four codes of a row, which need no alignment.
            let x = unsafe { codes.add(i * stride + 4 * unit).cast::<i32>().read_unaligned() };
            let x = _mm512_set1_epi32(x);
            for (sum, weights) in row_sums.iter_mut().zip(weights) {
                *sum = _mm512_dpbusd_epi32(*sum, weights, x);
            }
        }
    }
}
