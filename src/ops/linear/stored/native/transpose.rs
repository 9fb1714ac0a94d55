//! Transposing 16 x 16 blocks of 32-bit units: pairs of bf16 or fours of bytes of sixteen rows become lines in which each
//! row has one unit.

use std::arch::x86_64::{
    __m512i, _mm512_shuffle_i32x4, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64,
};

/// Line `j` of the result holds unit `j` of each row.
#[target_feature(enable = "avx512f")]
#[inline]
pub fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    // Within 128-bit lanes: units of two rows, then of four.
    let mut pairs = rows;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // fours[4 i + u]: in lane l, unit 4 l + u of the rows 4 i..4 i + 4.
    let mut fours = pairs;
    for i in 0..4 {
        for u in 0..2 {
            let (a, b) = (pairs[4 * i + u], pairs[4 * i + 2 + u]);
            fours[4 * i + 2 * u] = _mm512_unpacklo_epi64(a, b);
            fours[4 * i + 2 * u + 1] = _mm512_unpackhi_epi64(a, b);
        }
    }
    // Across lanes: first lanes 0 and 2, then 1 and 3.
    let mut out = fours;
    for u in 0..4 {
        let [a, b, c, d] = [fours[u], fours[4 + u], fours[8 + u], fours[12 + u]];
        let (ab, cd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
        out[u] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        out[8 + u] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
        let (ab, cd) = (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d));
        out[4 + u] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
        out[12 + u] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_rows_become_rows_of_units() {
        if !is_x86_feature_detected!("avx512f") {
            eprintln!("skipped: the processor has no AVX-512");
            return;
        }
        let rows: [[u32; 16]; 16] = std::array::from_fn(|row| std::array::from_fn(|unit| (16 * row + unit) as u32));
        // SAFETY: both are 64 bytes of any bits, and the processor has the instructions.
        let lines = unsafe { transpose(rows.map(|row| std::mem::transmute::<[u32; 16], __m512i>(row))) };
        for (unit, line) in lines.into_iter().enumerate() {
            // SAFETY: as above.
            let line = unsafe { std::mem::transmute::<__m512i, [u32; 16]>(line) };
            assert_eq!(line, std::array::from_fn(|row| (16 * row + unit) as u32));
        }
    }
}
