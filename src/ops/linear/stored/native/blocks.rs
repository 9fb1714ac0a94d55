//! Weights in the blocks of GGUF files. Their codes, without a sign, are multiplied by activations of two bytes (or one,
//! where many rows are wanted so) with one, summed exactly in each group, and scaled: as `w = scale · code + least` in each group, a product is the groups'
//! `scale · Σ code x` and `least · Σ x`.

use std::arch::x86_64::{
    __m512, _MM_HINT_T0, _mm_prefetch, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_permutexvar_ps,
    _mm512_reduce_add_ps, _mm512_set_epi32, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps,
};

use bytemuck::Zeroable;

use super::super::activations::{Integers, Width};
use super::super::{Columns, FEW, Scratch, TILE};
use super::integers::tile_of;
use super::unpack::{UNIT, codes, kind, row_scales, sixteen_scales};
use super::{BLOCKS, DOTS, HEIGHT, by_height, put, put_block};
use crate::device::cpu::has_integers;
use crate::ops::linear::packed::Line;
use crate::tensor::BlockType;

/// Columns of weights that are unpacked at a time: with 64 outputs, 64 KiB.
const DEPTH: usize = 1024;

/// Floats of a register.
const LANES: usize = 16;

/// Bytes of weights that are fetched before they are needed, and of a line of the cache.
const AHEAD: usize = 4608;
const LINE: usize = 64;

/// Calls a function that is compiled for each type of blocks.
macro_rules! each_kind {
    ($kind:expr, $function:ident($($argument:expr),*)) => {
        match $kind {
            BlockType::Q4_0 => $function::<{ BlockType::Q4_0 as u8 }>($($argument),*),
            BlockType::Q4_1 => $function::<{ BlockType::Q4_1 as u8 }>($($argument),*),
            BlockType::Q5_0 => $function::<{ BlockType::Q5_0 as u8 }>($($argument),*),
            BlockType::Q5_1 => $function::<{ BlockType::Q5_1 as u8 }>($($argument),*),
            BlockType::Q8_0 => $function::<{ BlockType::Q8_0 as u8 }>($($argument),*),
            BlockType::Q4K => $function::<{ BlockType::Q4K as u8 }>($($argument),*),
            BlockType::Q5K => $function::<{ BlockType::Q5K as u8 }>($($argument),*),
            BlockType::Q6K => $function::<{ BlockType::Q6K as u8 }>($($argument),*),
        }
    };
}

/// `y = x weightsᵀ` or `y += x weightsᵀ` for as many rows of weights as y has columns.
///
/// # Panics
/// If the processor lacks the instructions, which callers have asked about, or if a shape does not fit.
pub fn blocks(y: &mut Columns, x: &Integers, kind: BlockType, bytes: &[u8], add: bool, scratch: &mut Scratch) {
    let (rows, outputs) = y.size();
    let whole = rows == x.rows() && x.columns.is_multiple_of(UNIT) && x.columns.is_multiple_of(kind.weights());
    let fits = bytes.len() == outputs * kind.bytes(x.columns) && x.group == kind.group_size() && !x.interleaved;
    assert!(has_integers() && whole && fits && (x.width == Width::Two || rows >= FEW), "shapes of a product");
    if x.columns == 0 {
        return;
    }
    // SAFETY: the processor has the instructions.
    unsafe {
        match rows < FEW {
            true => each_kind!(kind, few(y, x, kind, bytes, add)),
            false => each_kind!(kind, packed(y, x, kind, bytes, add, scratch)),
        }
    }
}

/// Dots fewer than [`FEW`] rows of x with each row of weights as it is read.
///
/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,f16c")]
unsafe fn few<const KIND: u8>(y: &mut Columns, x: &Integers, kind: BlockType, bytes: &[u8], add: bool) {
    let rows = y.size().0;
    for (output, bytes) in bytes.chunks_exact(kind.bytes(x.columns)).enumerate() {
        for first in (0..rows).step_by(DOTS) {
            let mut each = |row: usize, sum: f32| put(y, first + row, output, sum, add);
            match rows - first {
                1 => dots::<KIND, 1>(x, first, bytes, &mut each),
                2 => dots::<KIND, 2>(x, first, bytes, &mut each),
                3 => dots::<KIND, 3>(x, first, bytes, &mut each),
                _ => dots::<KIND, DOTS>(x, first, bytes, &mut each),
            }
        }
    }
}

/// Dots M rows of x, from row `first` on, with one row of weights: as many groups at a time as a register holds scales of, so
/// that memory is read once and in its order.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,f16c")]
fn dots<const KIND: u8, const M: usize>(x: &Integers, first: usize, bytes: &[u8], put: &mut impl FnMut(usize, f32)) {
    let kind = kind::<KIND>();
    let (group, of_unit) = (kind.group_size(), kind.block_bytes() * UNIT / kind.weights());
    let (stride, groups, of_row) = (x.stride(), x.columns / group, x.groups());
    // Lanes of a register, of four columns each, by the group that they belong to.
    let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    let by_group = match group {
        16 => _mm512_srli_epi32::<2>(lanes),
        _ => _mm512_srli_epi32::<3>(lanes),
    };
    assert!(bytes.len() >= kind.bytes(x.columns), "a row of weights");
    assert!(x.columns <= x.padded && x.codes.len() >= (first + M) * stride, "rows of activations");
    let x_codes = x.codes[first * stride..].as_ptr();
    let mut sums = [_mm512_setzero_ps(); M];
    for at in (0..groups).step_by(LANES) {
        let some = &bytes[kind.bytes(at * group)..];
        let (scales, least) = sixteen_scales::<KIND>(some, groups - at);
        let mut products = [_mm512_setzero_ps(); M];
        for (row, (product, sum)) in products.iter_mut().zip(&mut sums).enumerate() {
            let from = (first + row) * of_row;
            *product = _mm512_mul_ps(scales, load_some(&x.scales[from..from + of_row], at));
            *sum = _mm512_fmadd_ps(least, load_some(&x.sums[from..from + of_row], at), *sum);
        }
        let (from, before) = (some.as_ptr(), at * group);
        let mut add = |unit: usize| {
            let of_lane = _mm512_add_epi32(by_group, _mm512_set1_epi32((unit * (UNIT / group)) as i32));
            // SAFETY: by the assertions rows of weights and of activations have these columns. What is fetched ahead may be
            // anything.
            unsafe {
                let ahead = from.wrapping_add(AHEAD + unit * of_unit);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                // Of units that are longer than a line, some would be left out.
                if of_unit > LINE {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(LINE).cast());
                }
                let weights = codes::<KIND>(from, unit);
                for (row, (sum, product)) in sums.iter_mut().zip(&products).enumerate() {
                    let upper = x_codes.add(row * stride + before + unit * UNIT);
                    let lower = _mm512_loadu_si512(upper.add(x.padded).cast());
                    let both = _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, _mm512_loadu_si512(upper.cast()));
                    let both = _mm512_dpbusd_epi32(_mm512_slli_epi32::<8>(both), weights, lower);
                    *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(both), _mm512_permutexvar_ps(of_lane, *product), *sum);
                }
            }
        };
        // One by one, so that where their codes lie is known when this is compiled.
        match (groups - at >= LANES, group) {
            (true, 16) => (0..4).for_each(add),
            (true, _) => {
                add(0);
                add(1);
                add(2);
                add(3);
                add(4);
                add(5);
                add(6);
                add(7);
            }
            (false, _) => (0..(groups - at) * group / UNIT).for_each(add),
        }
    }
    sums.into_iter().enumerate().for_each(|(row, sum)| put(row, _mm512_reduce_add_ps(sum)));
}

/// Unpacks the tile a block of columns at a time, and goes through all rows of x with each.
///
/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,f16c")]
unsafe fn packed<const KIND: u8>(
    y: &mut Columns,
    x: &Integers,
    kind: BlockType,
    bytes: &[u8],
    add: bool,
    scratch: &mut Scratch,
) {
    let groups = x.columns / x.group;
    let padded = groups.next_multiple_of(LANES);
    // Scales and least values, each (groups, 64), and of one row.
    scratch.floats.clear();
    scratch.floats.resize(2 * groups * TILE + 2 * padded, 0.0);
    let (by_group, of_row) = scratch.floats.split_at_mut(2 * groups * TILE);
    let (scales, least) = by_group.split_at_mut(groups * TILE);
    let (row_scale, row_least) = of_row.split_at_mut(padded);
    let row_bytes = kind.bytes(x.columns);
    for (output, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
        row_scales::<KIND>(bytes, row_scale, row_least);
        for group in 0..groups {
            scales[group * TILE + output] = row_scale[group];
            least[group * TILE + output] = row_least[group];
        }
    }
    let lines = &mut scratch.lines;
    for depth in (0..x.columns).step_by(DEPTH) {
        let columns = DEPTH.min(x.columns - depth);
        lines.resize(columns / UNIT * 16 * BLOCKS, Line::zeroed());
        for (lines, unit) in lines.chunks_exact_mut(16 * BLOCKS).zip(depth / UNIT..) {
            for block in 0..BLOCKS {
                let rows = std::array::from_fn(|i| {
                    let start = (16 * block + i) * row_bytes;
                    match bytes.get(start..start + row_bytes) {
                        // SAFETY: the row has these columns.
                        Some(row) => unsafe { codes::<KIND>(row.as_ptr(), unit) },
                        None => _mm512_setzero_si512(),
                    }
                });
                put_block(lines, block, rows);
            }
        }
        let range = depth / x.group * TILE..(depth + columns) / x.group * TILE;
        let (scales, least) = (&scales[range.clone()], &least[range]);
        let (lines, first) = (&lines[..], depth / x.group);
        by_height(y, add || depth > 0, |rows, sums| {
            // SAFETY: as for this function.
            unsafe {
                match rows.len() {
                    1 => least_of::<1>(x, rows.start, first, least, sums),
                    2 => least_of::<2>(x, rows.start, first, least, sums),
                    3 => least_of::<3>(x, rows.start, first, least, sums),
                    4 => least_of::<4>(x, rows.start, first, least, sums),
                    5 => least_of::<5>(x, rows.start, first, least, sums),
                    _ => least_of::<HEIGHT>(x, rows.start, first, least, sums),
                }
                tile_of(x, rows, depth, lines, scales, sums);
            }
        });
    }
}

/// `sums (M, 64)` of what the least weights of each group, (groups, 64) from group `first` on, give: least times the sum of x.
///
/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f")]
unsafe fn least_of<const M: usize>(x: &Integers, row: usize, first: usize, least: &[f32], sums: &mut [f32]) {
    let (least, of_row) = (least.as_chunks::<TILE>().0, x.groups());
    let x_sums: [&[f32]; M] = std::array::from_fn(|i| &x.sums[(row + i) * of_row + first..][..least.len()]);
    let mut tile = [[_mm512_setzero_ps(); BLOCKS]; M];
    for (group, least) in least.iter().enumerate() {
        // SAFETY: sixteen floats each.
        let least: [__m512; BLOCKS] =
            std::array::from_fn(|j| unsafe { _mm512_loadu_ps(least[LANES * j..][..LANES].as_ptr()) });
        for (sums, x) in tile.iter_mut().zip(&x_sums) {
            let x = _mm512_set1_ps(x[group]);
            sums.iter_mut().zip(least).for_each(|(sum, least)| *sum = _mm512_fmadd_ps(x, least, *sum));
        }
    }
    for (sums, tile) in sums.chunks_exact_mut(TILE).zip(tile) {
        for (sums, tile) in sums.chunks_exact_mut(LANES).zip(tile) {
            // SAFETY: sixteen floats.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), tile) };
        }
    }
}

/// Up to sixteen floats from `at` on, and zeros after the last.
#[target_feature(enable = "avx512f")]
#[inline]
fn load_some(floats: &[f32], at: usize) -> __m512 {
    let left = floats.len().saturating_sub(at).min(LANES);
    // SAFETY: floats whose bit is 0 are not read.
    unsafe { _mm512_maskz_loadu_ps(((1u32 << left) - 1) as u16, floats.as_ptr().wrapping_add(at)) }
}
