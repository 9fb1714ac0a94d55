//! Weights as small integers: `w = scale · (code - zero)`, one scale (bf16) for each group of 64 or 128 weights of a row.
//!
//! Codes are unsigned, since the processor's dot product multiplies unsigned by signed bytes. 8 bits: a byte per weight,
//! zero 128. 4 bits: zero 8; 64 weights lie in 32 bytes, of which byte i holds weight i in its low and weight i + 32 in
//! its high half, so that two operations unpack a register.

use half::bf16;

use super::Precision;
use crate::device::cpu::simd;

/// Weights that share a block of packed bytes.
pub const BLOCK: usize = 64;

/// Width of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    Eight,
    Four,
}

impl Bits {
    /// 8 or 4.
    pub fn count(self) -> usize {
        match self {
            Bits::Eight => 8,
            Bits::Four => 4,
        }
    }

    /// Bytes of a row of `columns` weights.
    pub fn bytes(self, columns: usize) -> usize {
        match self {
            Bits::Eight => columns,
            Bits::Four => columns / 2,
        }
    }

    /// The code of a weight of 0.
    pub fn zero(self) -> u8 {
        match self {
            Bits::Eight => 128,
            Bits::Four => 8,
        }
    }

    /// Weights per scale when rows of `columns` weights are quantized: 128 with 8 bits, where the step is small anyhow, if
    /// that divides the row, else 64. `None` if neither does.
    pub fn group(self, columns: usize) -> Option<usize> {
        match self {
            _ if columns == 0 || !columns.is_multiple_of(BLOCK) => None,
            Bits::Eight if columns.is_multiple_of(2 * BLOCK) => Some(2 * BLOCK),
            _ => Some(BLOCK),
        }
    }
}

impl Precision {
    /// Integer width, if weights are integers.
    pub fn bits(self) -> Option<Bits> {
        match self {
            Precision::Int8 => Some(Bits::Eight),
            Precision::Int4 => Some(Bits::Four),
            _ => None,
        }
    }
}

/// Quantizes a row. `codes` has [`Bits::bytes`] bytes; `scales.len()` divides the row into groups.
pub fn quantize(bits: Bits, row: &[f32], codes: &mut [u8], scales: &mut [bf16]) {
    let group = row.len() / scales.len();
    let groups = row.chunks_exact(group).zip(codes.chunks_exact_mut(bits.bytes(group)));
    for ((weights, codes), scale) in groups.zip(scales) {
        *scale = match bits {
            Bits::Eight => simd!(quantize8(weights, codes)),
            Bits::Four => simd!(quantize4(weights, codes)),
        };
    }
}

#[inline(always)]
fn quantize8(weights: &[f32], codes: &mut [u8]) -> bf16 {
    let scale = scale8(weights);
    codes.iter_mut().zip(weights).for_each(|(code, &w)| *code = encode(w, scale, 128.0, 255.0));
    scale
}

#[inline(always)]
fn quantize4(weights: &[f32], codes: &mut [u8]) -> bf16 {
    let scale = scale4(weights);
    for (codes, weights) in codes.chunks_exact_mut(BLOCK / 2).zip(weights.chunks_exact(BLOCK)) {
        let (low, high) = weights.split_at(BLOCK / 2);
        for (code, (&low, &high)) in codes.iter_mut().zip(low.iter().zip(high)) {
            *code = encode(low, scale, 8.0, 15.0) | encode(high, scale, 8.0, 15.0) << 4;
        }
    }
    scale
}

#[inline(always)]
fn encode(weight: f32, scale: bf16, zero: f32, largest: f32) -> u8 {
    let scale = scale.to_f32();
    let steps = if scale == 0.0 { 0.0 } else { weight / scale };
    // A float that is no number becomes 0 here; callers refuse it.
    (steps + zero).round_ties_even().clamp(0.0, largest) as u8
}

/// The step that maps the largest magnitude to 127, rounded up so that none is cut.
#[inline(always)]
fn scale8(weights: &[f32]) -> bf16 {
    let largest = weights.iter().fold(0.0f32, |max, w| max.max(w.abs()));
    let scale = bf16::from_f32(largest / 127.0);
    if scale.to_f32() * 127.0 >= largest { scale } else { bf16::from_bits(scale.to_bits() + 1) }
}

/// Of the steps that map the weight of largest magnitude to -8, or a little beyond, the one of least squared error.
/// Sixteen codes are few: what the extreme weight loses by being cut, the others may gain twice.
#[inline(always)]
fn scale4(weights: &[f32]) -> bf16 {
    let extreme = weights.iter().fold(0.0f32, |e, &w| if w.abs() > e.abs() { w } else { e });
    let error = |scale: bf16| -> f32 {
        const LANES: usize = 16;
        let (step, mut sums) = (scale.to_f32(), [0.0; LANES]);
        for weights in weights.as_chunks::<LANES>().0 {
            for (sum, &w) in sums.iter_mut().zip(weights) {
                let off = w - step * (encode(w, scale, 8.0, 15.0) as f32 - 8.0);
                *sum += off * off;
            }
        }
        sums.into_iter().sum()
    };
    let candidates = (0..8).map(|i| bf16::from_f32(extreme / -(8.0 + 0.35 * i as f32 - 0.7)));
    let best = candidates.map(|scale| (error(scale), scale)).min_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or(bf16::ZERO, |(_, scale)| scale)
}

/// A row as f32.
pub fn dequantize(bits: Bits, codes: &[u8], scales: &[bf16], out: &mut [f32]) {
    let group = out.len() / scales.len();
    let groups = out.chunks_exact_mut(group).zip(codes.chunks_exact(bits.bytes(group)));
    for ((out, codes), scale) in groups.zip(scales) {
        let scale = scale.to_f32();
        match bits {
            Bits::Eight => simd!(out.iter_mut().zip(codes).for_each(|(x, &c)| *x = scale * (c as f32 - 128.0))),
            Bits::Four => {
                for (out, codes) in out.chunks_exact_mut(BLOCK).zip(codes.chunks_exact(BLOCK / 2)) {
                    let (low, high) = out.split_at_mut(BLOCK / 2);
                    simd!(low.iter_mut().zip(codes).for_each(|(x, &c)| *x = scale * ((c & 15) as f32 - 8.0)));
                    simd!(high.iter_mut().zip(codes).for_each(|(x, &c)| *x = scale * ((c >> 4) as f32 - 8.0)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(bits: Bits, row: &[f32], group: usize) -> (Vec<f32>, Vec<bf16>) {
        let (mut codes, mut scales) = (vec![0; bits.bytes(row.len())], vec![bf16::ZERO; row.len() / group]);
        quantize(bits, row, &mut codes, &mut scales);
        let mut back = vec![f32::NAN; row.len()];
        dequantize(bits, &codes, &scales, &mut back);
        (back, scales)
    }

    #[test]
    fn eight_bits_are_off_by_half_a_step_at_most() {
        let row: Vec<f32> = (0..256).map(|i| (i as f32 * 1.7).sin() * (1.0 + (i / 128) as f32 * 9.0)).collect();
        for group in [64, 128] {
            let (back, scales) = round_trip(Bits::Eight, &row, group);
            for (i, (x, back)) in row.iter().zip(&back).enumerate() {
                let step = scales[i / group].to_f32();
                assert!((x - back).abs() <= 0.501 * step && step <= 10.1 / 127.0, "{x}: {back}");
            }
        }
    }

    #[test]
    fn four_bits_place_each_weight_and_lose_no_more_than_an_even_step_would() {
        let row: Vec<f32> = (0..192).map(|i| ((i * 37 % 97) as f32 - 48.0) / 48.0).collect();
        let (back, _) = round_trip(Bits::Four, &row, 64);
        let squares: f32 = row.iter().zip(&back).map(|(x, back)| (x - back).powi(2)).sum();
        // Fifteen even steps from -1 to 1 have a deviation of 2 / 15 / sqrt(12).
        assert!((squares / 192.0).sqrt() < 2.0 / 15.0 / 12f32.sqrt() * 1.02, "{squares}");
        for extreme in [3.0, -3.0] {
            let mut row = [0.01; 64];
            row[40] = extreme;
            let (back, scales) = round_trip(Bits::Four, &row, 64);
            assert!((back[40] - extreme).abs() <= scales[0].to_f32().abs() && back[8] == 0.0);
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        for bits in [Bits::Eight, Bits::Four] {
            assert_eq!(round_trip(bits, &[0.0; 128], 64).0, [0.0; 128]);
        }
    }
}
