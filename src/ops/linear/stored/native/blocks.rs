//! Weights in the blocks of GGUF files. Few rows of activations are multiplied as they are. Of many, codes without a sign are
//! multiplied by bytes with one, summed exactly in each group, and scaled: as `w = scale · code + least` in each group, a
//! product is the groups' `scale · Σ code x` and `least · Σ x`.

use std::arch::x86_64::{
    __m128i, __m512, _mm_load_si128, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_reduce_add_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_store_si512,
};

use bytemuck::Zeroable;

use super::super::activations::Integers;
use super::super::{Columns, FEW, Scratch, TILE};
use super::integers::tile_of;
use super::unpack::{UNIT, codes, kind, row_scales};
use super::{BLOCKS, DOTS, by_height, put, put_block};
use crate::device::cpu::{has_integers, simd, vector};
use crate::ops::linear::packed::Line;
use crate::tensor::BlockType;

/// Columns of weights that are unpacked at a time: with 64 outputs, 64 KiB.
const DEPTH: usize = 1024;

/// Floats of a register.
const LANES: usize = 16;

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

/// `y = x weightsᵀ` or `y += x weightsᵀ` for as many rows of weights as y has columns, of at least [`FEW`] rows of x.
///
/// # Panics
/// If the processor lacks the instructions, which callers have asked about, or if a shape does not fit.
pub fn blocks(y: &mut Columns, x: &Integers, kind: BlockType, bytes: &[u8], add: bool, scratch: &mut Scratch) {
    let (rows, outputs) = y.size();
    let whole =
        rows >= FEW && rows == x.rows() && x.columns.is_multiple_of(UNIT) && x.columns.is_multiple_of(kind.weights());
    let fits = bytes.len() == outputs * kind.bytes(x.columns) && x.group == kind.group_size() && !x.interleaved;
    assert!(has_integers() && whole && fits, "shapes of a product");
    if x.columns == 0 {
        return;
    }
    // SAFETY: the processor has the instructions.
    unsafe {
        each_kind!(kind, packed(y, x, kind, bytes, add, scratch));
    }
}

/// The same of fewer than [`FEW`] rows of x (rows, columns) as they are: each weight becomes an f32 in a register, which
/// takes no longer than its memory does.
///
/// # Panics
/// As [`blocks`].
pub fn blocks_by_floats(
    y: &mut Columns,
    x: &[f32],
    (kind, columns): (BlockType, usize),
    bytes: &[u8],
    add: bool,
    scratch: &mut Vec<f32>,
) {
    let (rows, outputs) = y.size();
    let whole = x.len() == rows * columns && columns.is_multiple_of(UNIT) && columns.is_multiple_of(kind.weights());
    assert!(has_integers() && whole && bytes.len() == outputs * kind.bytes(columns), "shapes of a product");
    if columns == 0 {
        return;
    }
    // SAFETY: the processor has the instructions.
    unsafe {
        each_kind!(kind, few(y, x, (kind, columns), bytes, add, scratch));
    }
}

/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw,avx2,f16c")]
unsafe fn few<const KIND: u8>(
    y: &mut Columns,
    x: &[f32],
    (kind, columns): (BlockType, usize),
    bytes: &[u8],
    add: bool,
    scratch: &mut Vec<f32>,
) {
    let rows = y.size().0;
    let padded = (columns / kind.group_size()).next_multiple_of(LANES);
    scratch.clear();
    scratch.resize(2 * padded, 0.0);
    let (scales, least) = scratch.split_at_mut(padded);
    for (output, bytes) in bytes.chunks_exact(kind.bytes(columns)).enumerate() {
        row_scales::<KIND>(bytes, scales, least);
        for first in (0..rows).step_by(DOTS) {
            let x = &x[first * columns..];
            let mut each = |row: usize, sum: f32| put(y, first + row, output, sum, add);
            match rows - first {
                1 => dots::<KIND, 1>(x, columns, bytes, scales, least, &mut each),
                2 => dots::<KIND, 2>(x, columns, bytes, scales, least, &mut each),
                3 => dots::<KIND, 3>(x, columns, bytes, scales, least, &mut each),
                _ => dots::<KIND, DOTS>(x, columns, bytes, scales, least, &mut each),
            }
        }
    }
}

/// Dots M rows of x with one row of weights.
#[target_feature(enable = "avx512f,avx512bw,avx2")]
fn dots<const KIND: u8, const M: usize>(
    x: &[f32],
    columns: usize,
    bytes: &[u8],
    scales: &[f32],
    least: &[f32],
    put: &mut impl FnMut(usize, f32),
) {
    let group = kind::<KIND>().group_size();
    let mut sums = [[_mm512_setzero_ps(); 2]; M];
    let mut unpacked = Line::zeroed();
    for unit in 0..columns / UNIT {
        // SAFETY: a line is 64 aligned bytes.
        unsafe { _mm512_store_si512((&raw mut unpacked).cast(), codes::<KIND>(bytes, unit)) };
        for part in 0..UNIT / LANES {
            let at = unit * UNIT + part * LANES;
            // SAFETY: a quarter of the line.
            let some = unsafe { _mm_load_si128((&raw const unpacked).cast::<__m128i>().add(part)) };
            let some = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(some));
            let (scale, least) = (_mm512_set1_ps(scales[at / group]), _mm512_set1_ps(least[at / group]));
            let weights = _mm512_fmadd_ps(some, scale, least);
            for (row, sums) in sums.iter_mut().enumerate() {
                sums[part % 2] = _mm512_fmadd_ps(weights, load_floats(&x[row * columns + at..]), sums[part % 2]);
            }
        }
    }
    for (row, [a, b]) in sums.into_iter().enumerate() {
        put(row, _mm512_reduce_add_ps(_mm512_add_ps(a, b)));
    }
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
                        Some(row) => codes::<KIND>(row, unit),
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
            sums.fill(0.0);
            for (row, sums) in rows.clone().zip(sums.chunks_exact_mut(TILE)) {
                let x_sums = &x.sums[row * x.groups() + first..];
                for (least, &x) in least.chunks_exact(TILE).zip(x_sums) {
                    simd!(vector::add_scaled(sums, x, least));
                }
            }
            // SAFETY: as for this function.
            unsafe { tile_of(x, rows, depth, lines, scales, sums) };
        });
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_floats(floats: &[f32]) -> __m512 {
    assert!(floats.len() >= LANES);
    // SAFETY: sixteen floats.
    unsafe { _mm512_loadu_ps(floats.as_ptr()) }
}
