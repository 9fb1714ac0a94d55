//! Codes, scales and least values of blocks of GGUF files, a register at a time.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, __m512, __m512i, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtsi64_si128, _mm_loadu_si128,
    _mm_movehdup_ps, _mm_set1_epi64x, _mm256_and_si256, _mm256_broadcastss_ps, _mm256_castps_si256,
    _mm256_castsi128_si256, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_inserti128_si256, _mm256_loadu_si256,
    _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_ps, _mm256_slli_epi16, _mm256_srl_epi16, _mm256_srli_epi16,
    _mm256_xor_ps, _mm512_and_si512, _mm512_broadcastss_ps, _mm512_castsi256_si512, _mm512_castsi512_ps,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps, _mm512_cvtph_ps, _mm512_inserti64x4,
    _mm512_loadu_si512, _mm512_maskz_set1_epi8, _mm512_mul_ps, _mm512_or_si512, _mm512_permutexvar_epi64,
    _mm512_set_epi32, _mm512_set_epi64, _mm512_set1_epi8, _mm512_set1_ps, _mm512_srl_epi16, _mm512_srli_epi32,
    _mm512_srlv_epi64, _mm512_storeu_ps, _mm512_xor_si512, _mm512_zextps256_ps512,
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
    let groups = row.len() / kind.block_bytes() * kind.weights() / kind.group_size();
    let sixteens = scales.chunks_exact_mut(16).zip(least.chunks_exact_mut(16));
    for ((scales, least), at) in sixteens.zip((0..groups).step_by(16)) {
        let (of_groups, low) = sixteen_scales::<KIND>(&row[kind.bytes(at * kind.group_size())..], groups - at);
        // SAFETY: sixteen floats of each.
        unsafe {
            _mm512_storeu_ps(scales.as_mut_ptr(), of_groups);
            _mm512_storeu_ps(least.as_mut_ptr(), low);
        }
    }
}

/// The same of the first sixteen groups of a part of a row, or of all `groups` that it has; anything finite behind them.
#[target_feature(enable = "avx512f,avx512bw,avx2,f16c")]
#[inline]
pub fn sixteen_scales<const KIND: u8>(row: &[u8], groups: usize) -> (__m512, __m512) {
    let kind = kind::<KIND>();
    let (size, zero) = (kind.block_bytes(), f32::from(kind.zero()));
    match kind {
        BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q8_0 => {
            // The first four bytes of each block.
            let words = match row.len() >= 16 * size {
                // SAFETY: there are sixteen blocks.
                true => unsafe { sixteen_words(row.as_ptr(), size) },
                false => {
                    let mut words = [0u32; 16];
                    words.iter_mut().zip(row.chunks_exact(size)).for_each(|(to, block)| *to = word(block));
                    // SAFETY: sixteen words.
                    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
                }
            };
            let scale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
            let least = match kind {
                BlockType::Q4_1 | BlockType::Q5_1 => {
                    _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(words)))
                }
                _ => _mm512_mul_ps(scale, _mm512_set1_ps(-zero)),
            };
            (scale, least)
        }
        BlockType::Q4K | BlockType::Q5K => {
            let (scale, least) = eight_scales(row);
            if groups <= 8 {
                return (_mm512_zextps256_ps512(scale), _mm512_zextps256_ps512(least));
            }
            let (more, more_least) = eight_scales(&row[size..]);
            let both = |low: __m256, high: __m256| {
                let low = _mm512_castsi256_si512(_mm256_castps_si256(low));
                _mm512_castsi512_ps(_mm512_inserti64x4::<1>(low, _mm256_castps_si256(high)))
            };
            (both(scale, more), both(least, more_least))
        }
        BlockType::Q6K => {
            let half = i32::from(u16::from_le_bytes([row[208], row[209]]));
            let d = _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
            let codes: &[u8; 16] = row[192..208].try_into().expect("sixteen bytes");
            // SAFETY: sixteen bytes.
            let codes = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
            let scale = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)), d);
            (scale, _mm512_mul_ps(scale, _mm512_set1_ps(-zero)))
        }
    }
}

/// Words of four bytes, each so many bytes behind the one before.
///
/// # Safety
/// They must be there.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn sixteen_words(first: *const u8, step: usize) -> __m512i {
    macro_rules! at {
        // SAFETY: as for this function; words need no alignment.
        ($i:literal) => {
            unsafe { first.add($i * step).cast::<i32>().read_unaligned() }
        };
    }
    _mm512_set_epi32(
        at!(15),
        at!(14),
        at!(13),
        at!(12),
        at!(11),
        at!(10),
        at!(9),
        at!(8),
        at!(7),
        at!(6),
        at!(5),
        at!(4),
        at!(3),
        at!(2),
        at!(1),
        at!(0),
    )
}

/// Those of a block of 256 weights of 4 or 5 bits.
#[target_feature(enable = "avx512f,avx2,f16c")]
#[inline]
fn eight_scales(block: &[u8]) -> (__m256, __m256) {
    let both = _mm_cvtph_ps(_mm_cvtsi32_si128(word(block).cast_signed()));
    let (d, dmin) = (_mm256_broadcastss_ps(both), _mm256_broadcastss_ps(_mm_movehdup_ps(both)));
    let (of_scales, of_least) = six_bits(&block[4..16]);
    let wide = |bytes: u64| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes.cast_signed())));
    let least = _mm256_xor_ps(_mm256_mul_ps(wide(of_least), dmin), _mm256_set1_ps(-0.0));
    (_mm256_mul_ps(wide(of_scales), d), least)
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
