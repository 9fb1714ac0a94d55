//! Codes, scales and least values of blocks of GGUF files, a register at a time.

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtsi64_si128, _mm_loadu_si128, _mm_movehdup_ps,
    _mm_set1_epi64x, _mm256_and_si256, _mm256_broadcastss_ps, _mm256_castsi128_si256, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi32, _mm256_inserti128_si256, _mm256_loadu_si256, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_ps,
    _mm256_slli_epi16, _mm256_srl_epi16, _mm256_srli_epi16, _mm256_storeu_ps, _mm256_xor_ps, _mm512_and_si512,
    _mm512_broadcastss_ps, _mm512_castsi256_si512, _mm512_cvtepi8_epi32, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_inserti64x4, _mm512_loadu_si512, _mm512_maskz_set1_epi8, _mm512_mul_ps, _mm512_or_si512,
    _mm512_permutexvar_epi64, _mm512_set_epi64, _mm512_set1_epi8, _mm512_set1_ps, _mm512_srl_epi16, _mm512_srli_epi32,
    _mm512_srlv_epi64, _mm512_storeu_ps, _mm512_xor_si512,
};

use crate::tensor::BlockType;

/// Columns of weights that fill a register.
pub const UNIT: usize = 64;

/// The codes of 64 columns of a row, in their order.
///
/// # Safety
/// The processor must have the instructions, and the row these columns.
#[target_feature(enable = "avx512f,avx512bw,avx2")]
#[inline]
pub unsafe fn codes<const KIND: u8>(row: *const u8, unit: usize) -> __m512i {
    const Q4_0: u8 = BlockType::Q4_0 as u8;
    const Q4_1: u8 = BlockType::Q4_1 as u8;
    const Q5_0: u8 = BlockType::Q5_0 as u8;
    const Q5_1: u8 = BlockType::Q5_1 as u8;
    const Q8_0: u8 = BlockType::Q8_0 as u8;
    const Q4K: u8 = BlockType::Q4K as u8;
    const Q5K: u8 = BlockType::Q5K as u8;
    let bytes = kind::<KIND>().block_bytes();
    // SAFETY: two blocks of 32 weights, or a quarter of one of 256, are of these columns.
    unsafe {
        let two = row.add(2 * unit * bytes);
        let block = row.add(unit / 4 * bytes);
        match KIND {
            Q4_0 => nibbles(two.add(2), two.add(20)),
            Q4_1 => nibbles(two.add(4), two.add(24)),
            Q5_0 => fifth_bits(nibbles(two.add(6), two.add(28)), two.add(2), two.add(24)),
            Q5_1 => fifth_bits(nibbles(two.add(8), two.add(32)), two.add(4), two.add(28)),
            Q8_0 => {
                let signed = join(load_half(two.add(2)), load_half(two.add(36)));
                _mm512_xor_si512(signed, _mm512_set1_epi8(-128))
            }
            // Low and high halves of 32 bytes are 64 weights.
            Q4K => low_and_high(load_half(block.add(16 + unit % 4 * 32))),
            Q5K => {
                let low = low_and_high(load_half(block.add(48 + unit % 4 * 32)));
                // Bits 2 i and 2 i + 1 of each byte.
                let bits = _mm256_srl_epi16(load_half(block.add(16)), count(2 * (unit % 4)));
                let one = _mm256_set1_epi8(1);
                let first = _mm256_slli_epi16::<4>(_mm256_and_si256(bits, one));
                let second = _mm256_slli_epi16::<4>(_mm256_and_si256(_mm256_srli_epi16::<1>(bits), one));
                _mm512_or_si512(low, join(first, second))
            }
            _ => {
                let (part, shift) = (unit % 4 / 2, 4 * (unit % 2));
                let low = _mm512_srl_epi16(_mm512_loadu_si512(block.add(part * 64).cast()), count(shift));
                let bits = _mm256_srl_epi16(load_half(block.add(128 + part * 32)), count(shift));
                let three = _mm256_set1_epi8(3);
                let first = _mm256_slli_epi16::<4>(_mm256_and_si256(bits, three));
                let second = _mm256_slli_epi16::<4>(_mm256_and_si256(_mm256_srli_epi16::<2>(bits), three));
                _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(15)), join(first, second))
            }
        }
    }
}

/// Scale and least value of each group of a row: `w = scale · code + least`, by what [`codes`] gives. There is room for
/// whole registers of them.
#[target_feature(enable = "avx512f,avx512bw,avx2,f16c")]
#[inline]
pub fn row_scales<const KIND: u8>(row: &[u8], scales: &mut [f32], least: &mut [f32]) {
    let kind = kind::<KIND>();
    let zero = f32::from(kind.zero());
    let blocks = row.chunks_exact(kind.block_bytes());
    match kind {
        BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q8_0 => {
            // The first four bytes of each block, then sixteen blocks at a time.
            blocks.zip(scales.iter_mut()).for_each(|(block, scale)| *scale = f32::from_bits(word(block)));
            for (scales, least) in scales.chunks_exact_mut(16).zip(least.chunks_exact_mut(16)) {
                // SAFETY: sixteen floats of each.
                let words = unsafe { _mm512_loadu_si512(scales.as_ptr().cast()) };
                let scale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
                let low = match kind {
                    BlockType::Q4_1 | BlockType::Q5_1 => {
                        _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(words)))
                    }
                    _ => _mm512_mul_ps(scale, _mm512_set1_ps(-zero)),
                };
                // SAFETY: the same.
                unsafe {
                    _mm512_storeu_ps(scales.as_mut_ptr(), scale);
                    _mm512_storeu_ps(least.as_mut_ptr(), low);
                }
            }
        }
        BlockType::Q4K | BlockType::Q5K => {
            let eights = scales.chunks_exact_mut(8).zip(least.chunks_exact_mut(8));
            for ((scales, least), block) in eights.zip(blocks) {
                let both = _mm_cvtph_ps(_mm_cvtsi32_si128(word(block) as i32));
                let (d, dmin) = (_mm256_broadcastss_ps(both), _mm256_broadcastss_ps(_mm_movehdup_ps(both)));
                let (of_scales, of_least) = six_bits(&block[4..16]);
                let wide =
                    |bytes: u64| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes.cast_signed())));
                let low = _mm256_xor_ps(_mm256_mul_ps(wide(of_least), dmin), _mm256_set1_ps(-0.0));
                // SAFETY: eight floats of each.
                unsafe {
                    _mm256_storeu_ps(scales.as_mut_ptr(), _mm256_mul_ps(wide(of_scales), d));
                    _mm256_storeu_ps(least.as_mut_ptr(), low);
                }
            }
        }
        BlockType::Q6K => {
            let sixteens = scales.chunks_exact_mut(16).zip(least.chunks_exact_mut(16));
            for ((scales, least), block) in sixteens.zip(blocks) {
                let half = i32::from(u16::from_le_bytes([block[208], block[209]]));
                let d = _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
                let codes: &[u8; 16] = block[192..208].try_into().expect("sixteen bytes");
                // SAFETY: sixteen bytes, and sixteen floats of each.
                unsafe {
                    let scale = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(codes.as_ptr().cast())));
                    let scale = _mm512_mul_ps(scale, d);
                    _mm512_storeu_ps(scales.as_mut_ptr(), scale);
                    _mm512_storeu_ps(least.as_mut_ptr(), _mm512_mul_ps(scale, _mm512_set1_ps(-zero)));
                }
            }
        }
    }
}

/// The first four bytes of a block.
#[inline(always)]
fn word(block: &[u8]) -> u32 {
    u32::from_le_bytes([block[0], block[1], block[2], block[3]])
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

/// Eight scales and eight least values of 6 bits each, a byte each, of twelve bytes: those of the last four groups lie in
/// the bits that the first four leave.
#[inline(always)]
fn six_bits(bytes: &[u8]) -> (u64, u64) {
    let (first, second, third) = (word(bytes), word(&bytes[4..]), word(&bytes[8..]));
    let (six, four, two) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x0303_0303);
    let both = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    let high = |left: u32| (left >> 6 & two) << 4;
    (both(first & six, third & four | high(first)), both(second & six, third >> 4 & four | high(second)))
}

/// Codes of 4 bits of two blocks, each in 16 bytes whose low halves come first.
///
/// # Safety
/// Both must be there.
#[target_feature(enable = "avx512f,avx512bw,avx2")]
#[inline]
unsafe fn nibbles(first: *const u8, second: *const u8) -> __m512i {
    // SAFETY: 16 bytes each.
    let both = unsafe {
        _mm256_inserti128_si256::<1>(
            _mm256_castsi128_si256(_mm_loadu_si128(first.cast())),
            _mm_loadu_si128(second.cast()),
        )
    };
    // A register of the first's bytes twice, then the second's, of which each second time the high halves count.
    let twice = _mm512_permutexvar_epi64(_mm512_set_epi64(3, 2, 3, 2, 1, 0, 1, 0), _mm512_castsi256_si512(both));
    let shifts = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    _mm512_and_si512(_mm512_srlv_epi64(twice, shifts), _mm512_set1_epi8(15))
}

/// The same with a fifth bit each.
///
/// # Safety
/// Both must have four bytes.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn fifth_bits(low: __m512i, first: *const u8, second: *const u8) -> __m512i {
    // SAFETY: four bytes each, which need no alignment.
    let word = |bytes: *const u8| u64::from(unsafe { bytes.cast::<u32>().read_unaligned() });
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

/// # Safety
/// There must be 32 bytes.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load_half(bytes: *const u8) -> __m256i {
    // SAFETY: as for this function.
    unsafe { _mm256_loadu_si256(bytes.cast()) }
}
