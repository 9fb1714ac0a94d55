//! Weights in the blocks of GGUF files. Few rows of activations are multiplied as they are. Of many, codes without a sign are
//! multiplied by bytes with one, summed exactly in each group, and scaled: as `w = scale · code + least` in each group, a
//! product is the groups' `scale · Σ code x` and `least · Σ x`.

use std::arch::x86_64::{
    __m128i, __m256i, __m512, __m512i, _mm_load_si128, _mm_loadu_si128, _mm_set1_epi64x, _mm_srli_epi16,
    _mm256_and_si256, _mm256_castsi128_si256, _mm256_cvtph_ps, _mm256_inserti128_si256, _mm256_loadu_si256,
    _mm256_set1_epi8, _mm256_slli_epi16, _mm256_srl_epi16, _mm256_srli_epi16, _mm256_storeu_ps, _mm512_add_ps,
    _mm512_and_si512, _mm512_castsi256_si512, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_fmadd_ps,
    _mm512_inserti64x4, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_maskz_set1_epi8, _mm512_or_si512,
    _mm512_reduce_add_ps, _mm512_set1_epi8, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_srl_epi16,
    _mm512_store_si512, _mm512_xor_si512,
};

use bytemuck::Zeroable;

use super::super::activations::Integers;
use super::super::{Columns, FEW, Scratch, TILE};
use super::integers::tile;
use super::{BLOCKS, DOTS, HEIGHT, by_height, put, put_block};
use crate::device::cpu::{has_integers, simd, vector};
use crate::ops::linear::packed::Line;
use crate::tensor::BlockType;

/// Columns of weights that are unpacked at a time: with 64 outputs, 64 KiB.
const DEPTH: usize = 1024;

/// Columns of weights that fill a register.
const UNIT: usize = 64;

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
        });
    }
}

/// The codes of 64 columns of a row, in their order.
#[target_feature(enable = "avx512f,avx512bw,avx2")]
#[inline]
fn codes<const KIND: u8>(row: &[u8], unit: usize) -> __m512i {
    const Q4_0: u8 = BlockType::Q4_0 as u8;
    const Q4_1: u8 = BlockType::Q4_1 as u8;
    const Q5_0: u8 = BlockType::Q5_0 as u8;
    const Q5_1: u8 = BlockType::Q5_1 as u8;
    const Q8_0: u8 = BlockType::Q8_0 as u8;
    const Q4K: u8 = BlockType::Q4K as u8;
    const Q5K: u8 = BlockType::Q5K as u8;
    // Blocks of 32 weights: two fill a register.
    let two = |bytes: usize| &row[2 * unit * bytes..][..2 * bytes];
    match KIND {
        Q4_0 => {
            let blocks = two(18);
            nibbles(&blocks[2..18], &blocks[20..36])
        }
        Q4_1 => {
            let blocks = two(20);
            nibbles(&blocks[4..20], &blocks[24..40])
        }
        Q5_0 => {
            let blocks = two(22);
            fifth_bits(nibbles(&blocks[6..22], &blocks[28..44]), &blocks[2..6], &blocks[24..28])
        }
        Q5_1 => {
            let blocks = two(24);
            fifth_bits(nibbles(&blocks[8..24], &blocks[32..48]), &blocks[4..8], &blocks[28..32])
        }
        Q8_0 => {
            let blocks = two(34);
            let signed = join(load_half(&blocks[2..34]), load_half(&blocks[36..68]));
            _mm512_xor_si512(signed, _mm512_set1_epi8(-128))
        }
        // Blocks of 256: low and high halves of 32 bytes are 64 weights.
        Q4K => {
            let block = &row[unit / 4 * 144..][..144];
            low_and_high(load_half(&block[16 + unit % 4 * 32..][..32]))
        }
        Q5K => {
            let block = &row[unit / 4 * 176..][..176];
            let low = low_and_high(load_half(&block[48 + unit % 4 * 32..][..32]));
            let bits = load_half(&block[16..48]);
            // Bits 2 i and 2 i + 1 of each byte.
            let bits = _mm256_srl_epi16(bits, count(2 * (unit % 4)));
            let one = _mm256_set1_epi8(1);
            let first = _mm256_slli_epi16::<4>(_mm256_and_si256(bits, one));
            let second = _mm256_slli_epi16::<4>(_mm256_and_si256(_mm256_srli_epi16::<1>(bits), one));
            _mm512_or_si512(low, join(first, second))
        }
        _ => {
            let block = &row[unit / 4 * 210..][..210];
            let (part, shift) = (unit % 4 / 2, 4 * (unit % 2));
            let low = _mm512_srl_epi16(load_bytes(&block[part * 64..][..64]), count(shift));
            let bits = _mm256_srl_epi16(load_half(&block[128 + part * 32..][..32]), count(shift));
            let three = _mm256_set1_epi8(3);
            let first = _mm256_slli_epi16::<4>(_mm256_and_si256(bits, three));
            let second = _mm256_slli_epi16::<4>(_mm256_and_si256(_mm256_srli_epi16::<2>(bits), three));
            _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(15)), join(first, second))
        }
    }
}

/// Scale and least value of each group of a row: `w = scale · code + least`, by what [`codes`] gives.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn row_scales<const KIND: u8>(row: &[u8], scales: &mut [f32], least: &mut [f32]) {
    let kind = kind::<KIND>();
    let zero = f32::from(kind.zero());
    let half = |block: &[u8], at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    match kind {
        BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q8_0 => {
            let has_least = matches!(kind, BlockType::Q4_1 | BlockType::Q5_1);
            let eights = scales.chunks_mut(8).zip(least.chunks_mut(8));
            for ((scales, least), blocks) in eights.zip(row.chunks(8 * kind.block_bytes())) {
                let mut halves = [[0; 8]; 2];
                for (i, block) in blocks.chunks_exact(kind.block_bytes()).enumerate() {
                    (halves[0][i], halves[1][i]) = (half(block, 0), if has_least { half(block, 2) } else { 0 });
                }
                let (wide, added) = (widen(halves[0]), widen(halves[1]));
                for (i, (scale, least)) in scales.iter_mut().zip(least).enumerate() {
                    (*scale, *least) = (wide[i], added[i] - zero * wide[i]);
                }
            }
        }
        BlockType::Q4K | BlockType::Q5K => {
            let eights = scales.chunks_exact_mut(8).zip(least.chunks_exact_mut(8));
            for ((scales, least), block) in eights.zip(row.chunks_exact(kind.block_bytes())) {
                let [d, dmin, ..] = widen([half(block, 0), half(block, 2), 0, 0, 0, 0, 0, 0]);
                let (of_scales, of_least) = six_bits(&block[4..16]);
                for i in 0..8 {
                    (scales[i], least[i]) = (d * f32::from(of_scales[i]), -(dmin * f32::from(of_least[i])));
                }
            }
        }
        BlockType::Q6K => {
            let sixteens = scales.chunks_exact_mut(16).zip(least.chunks_exact_mut(16));
            for ((scales, least), block) in sixteens.zip(row.chunks_exact(kind.block_bytes())) {
                let [d, ..] = widen([half(block, 208), 0, 0, 0, 0, 0, 0, 0]);
                for (i, (scale, least)) in scales.iter_mut().zip(least).enumerate() {
                    *scale = d * f32::from(block[192 + i] as i8);
                    *least = -(zero * *scale);
                }
            }
        }
    }
}

const fn kind<const KIND: u8>() -> BlockType {
    let mut i = 0;
    while i < BlockType::ALL.len() {
        if BlockType::ALL[i] as u8 == KIND {
            return BlockType::ALL[i];
        }
        i += 1;
    }
    panic!("no type of blocks")
}

/// Eight scales and eight least values of 6 bits each, of twelve bytes: those of the last four groups lie in the bits that
/// the first four leave.
#[inline(always)]
fn six_bits(bytes: &[u8]) -> ([u8; 8], [u8; 8]) {
    let word = |i: usize| u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]);
    let (first, second, third) = (word(0), word(1), word(2));
    let (six, four, two) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x0303_0303);
    let both = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)).to_le_bytes();
    let high = |left: u32| (left >> 6 & two) << 4;
    (both(first & six, third & four | high(first)), both(second & six, third >> 4 & four | high(second)))
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn widen(halves: [u16; 8]) -> [f32; 8] {
    let mut wide = [0.0; 8];
    // SAFETY: sixteen bytes are read, eight floats written.
    unsafe { _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(halves.as_ptr().cast()))) };
    wide
}

/// Codes of 4 bits of two blocks, each in 16 bytes whose low halves come first.
#[target_feature(enable = "avx512f,avx512bw,avx2")]
#[inline]
fn nibbles(first: &[u8], second: &[u8]) -> __m512i {
    let both = |bytes: &[u8]| {
        assert!(bytes.len() == 16);
        // SAFETY: 16 bytes.
        let low: __m128i = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), _mm_srli_epi16::<4>(low))
    };
    _mm512_and_si512(join(both(first), both(second)), _mm512_set1_epi8(15))
}

/// The same with a fifth bit each.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn fifth_bits(low: __m512i, first: &[u8], second: &[u8]) -> __m512i {
    let word = |bytes: &[u8]| u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    _mm512_or_si512(low, _mm512_maskz_set1_epi8(word(first) | word(second) << 32, 16))
}

/// The low halves of 32 bytes, then their high halves.
#[target_feature(enable = "avx512f,avx512bw,avx2")]
#[inline]
fn low_and_high(bytes: __m256i) -> __m512i {
    _mm512_and_si512(join(bytes, _mm256_srli_epi16::<4>(bytes)), _mm512_set1_epi8(15))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn join(low: __m256i, high: __m256i) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

#[target_feature(enable = "sse2")]
#[inline]
fn count(bits: usize) -> __m128i {
    _mm_set1_epi64x(bits as i64)
}

#[target_feature(enable = "avx2")]
#[inline]
fn load_half(bytes: &[u8]) -> __m256i {
    assert!(bytes.len() == 32);
    // SAFETY: 32 bytes.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_bytes(bytes: &[u8]) -> __m512i {
    assert!(bytes.len() == 64);
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load_floats(floats: &[f32]) -> __m512 {
    assert!(floats.len() >= LANES);
    // SAFETY: sixteen floats.
    unsafe { _mm512_loadu_ps(floats.as_ptr()) }
}
