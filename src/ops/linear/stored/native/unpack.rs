//! Codes, scales and least values of blocks of GGUF files, a register at a time.

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_loadu_si128, _mm_set1_epi64x, _mm_srli_epi16, _mm256_and_si256,
    _mm256_castsi128_si256, _mm256_cvtph_ps, _mm256_inserti128_si256, _mm256_loadu_si256, _mm256_set1_epi8,
    _mm256_slli_epi16, _mm256_srl_epi16, _mm256_srli_epi16, _mm256_storeu_ps, _mm512_and_si512, _mm512_castsi256_si512,
    _mm512_inserti64x4, _mm512_loadu_si512, _mm512_maskz_set1_epi8, _mm512_or_si512, _mm512_set1_epi8,
    _mm512_srl_epi16, _mm512_xor_si512,
};

use crate::tensor::BlockType;

/// Columns of weights that fill a register.
pub const UNIT: usize = 64;

/// The codes of 64 columns of a row, in their order.
#[target_feature(enable = "avx512f,avx512bw,avx2")]
#[inline]
pub fn codes<const KIND: u8>(row: &[u8], unit: usize) -> __m512i {
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
pub fn row_scales<const KIND: u8>(row: &[u8], scales: &mut [f32], least: &mut [f32]) {
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

pub const fn kind<const KIND: u8>() -> BlockType {
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
