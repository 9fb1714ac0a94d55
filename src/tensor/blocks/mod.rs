//! Quantised weights in the blocks of GGUF files (ggml's `block_q4_0` and its kin): each block of 32 or 256 weights of a
//! row has its scales beside its codes. They stay as the file has them.
//!
//! | type | weights | bytes | a weight |
//! |---|---|---|---|
//! | Q8_0 | 32 | 34 | d q |
//! | Q4_0, Q5_0 | 32 | 18, 22 | d (q - 8), d (q - 16) |
//! | Q4_1, Q5_1 | 32 | 20, 24 | d q + m |
//! | Q4_K, Q5_K | 256 | 144, 176 | d s q - dmin t, with s and t of 6 bits for each 32 |
//! | Q6_K | 256 | 210 | d s (q - 32), with s of 8 bits for each 16 |

mod quantize;

use std::fmt;

use half::f16;

use crate::device::cpu::simd;

/// How the weights of a block are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockType {
    #[serde(rename = "q4_0")]
    Q4_0,
    #[serde(rename = "q4_1")]
    Q4_1,
    #[serde(rename = "q5_0")]
    Q5_0,
    #[serde(rename = "q5_1")]
    Q5_1,
    #[serde(rename = "q8_0")]
    Q8_0,
    #[serde(rename = "q4_k")]
    Q4K,
    #[serde(rename = "q5_k")]
    Q5K,
    #[serde(rename = "q6_k")]
    Q6K,
}

/// Weights of a block of the K types.
const K: usize = 256;

/// Weights that share a scale, of all types but Q6_K: what codes are unpacked by.
pub const GROUP: usize = 32;

impl BlockType {
    /// All of them.
    pub const ALL: [BlockType; 8] = [
        BlockType::Q4_0,
        BlockType::Q4_1,
        BlockType::Q5_0,
        BlockType::Q5_1,
        BlockType::Q8_0,
        BlockType::Q4K,
        BlockType::Q5K,
        BlockType::Q6K,
    ];

    /// Name, weights and bytes of a block, and ggml's number of the type.
    const fn facts(self) -> (&'static str, usize, usize, u32) {
        match self {
            BlockType::Q4_0 => ("q4_0", 32, 18, 2),
            BlockType::Q4_1 => ("q4_1", 32, 20, 3),
            BlockType::Q5_0 => ("q5_0", 32, 22, 6),
            BlockType::Q5_1 => ("q5_1", 32, 24, 7),
            BlockType::Q8_0 => ("q8_0", 32, 34, 8),
            BlockType::Q4K => ("q4_k", K, 144, 12),
            BlockType::Q5K => ("q5_k", K, 176, 13),
            BlockType::Q6K => ("q6_k", K, 210, 14),
        }
    }

    /// As ggml names it, in small letters.
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// The type that has this number in a file.
    pub fn numbered(number: u32) -> Option<BlockType> {
        BlockType::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Its number in a file.
    pub fn number(self) -> u32 {
        self.facts().3
    }

    /// Weights of a block.
    pub fn weights(self) -> usize {
        self.facts().1
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.facts().2
    }

    /// Weights that share a scale.
    pub fn group_size(self) -> usize {
        if self == BlockType::Q6K { GROUP / 2 } else { GROUP }
    }

    /// Bytes of so many weights, which are whole blocks.
    pub fn bytes(self, weights: usize) -> usize {
        weights / self.weights() * self.block_bytes()
    }

    /// Where the floats of a block lie that scale it: two of them, or the same one twice.
    pub(crate) fn scales(self) -> [usize; 2] {
        match self {
            BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => [0, 0],
            BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => [0, 2],
            BlockType::Q6K => [208, 208],
        }
    }

    /// The first block whose scales are not finite.
    pub fn first_unbounded(self, blocks: &[u8]) -> Option<usize> {
        let bounded = |block: &[u8]| self.scales().into_iter().all(|at| float(block, at).is_finite());
        blocks.chunks_exact(self.block_bytes()).position(|block| !bounded(block))
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The f16 at a place of a block.
#[inline(always)]
fn float(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// What a group of 32 weights is: codes without a sign, and `w = scale · (code - zero) + least` with a scale for each half.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub codes: [u8; GROUP],
    pub scales: [f32; 2],
    pub least: f32,
}

impl BlockType {
    /// The code of a weight of 0, where no least value is added.
    pub fn zero(self) -> u8 {
        match self {
            BlockType::Q4_0 => 8,
            BlockType::Q5_0 => 16,
            BlockType::Q8_0 => 128,
            BlockType::Q6K => 32,
            BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => 0,
        }
    }

    /// Unpacks group `index` of a block.
    #[inline(always)]
    pub fn group(self, block: &[u8], index: usize) -> Group {
        let simple = |codes, least| Group { codes, scales: [float(block, 0); 2], least };
        match self {
            BlockType::Q4_0 => simple(nibbles(&block[2..18]), 0.0),
            BlockType::Q4_1 => simple(nibbles(&block[4..20]), float(block, 2)),
            BlockType::Q5_0 => simple(fives(&block[2..6], &block[6..22]), 0.0),
            BlockType::Q5_1 => simple(fives(&block[4..8], &block[8..24]), float(block, 2)),
            BlockType::Q8_0 => simple(std::array::from_fn(|i| block[2 + i] ^ 128), 0.0),
            BlockType::Q4K | BlockType::Q5K => {
                let (packed, high) = match self {
                    BlockType::Q4K => (&block[16..144], None),
                    _ => (&block[48..176], Some(&block[16..48])),
                };
                // 64 weights lie in 32 bytes, the first 32 in their low halves.
                let packed = &packed[index / 2 * GROUP..][..GROUP];
                let shift = index % 2 * 4;
                let mut codes: [u8; GROUP] = std::array::from_fn(|i| packed[i] >> shift & 15);
                if let Some(high) = high {
                    codes.iter_mut().zip(high).for_each(|(code, high)| *code |= (high >> index & 1) << 4);
                }
                let (scale, least) = six_bits(&block[4..16], index);
                let (d, dmin) = (float(block, 0), float(block, 2));
                Group { codes, scales: [d * scale as f32; 2], least: -(dmin * least as f32) }
            }
            BlockType::Q6K => {
                // Each 128 weights: 64 bytes of low halves, 32 of two high bits, which serve four groups.
                let (part, quarter) = (index / 4, index % 4);
                let low = &block[part * 64 + quarter % 2 * GROUP..][..GROUP];
                let high = &block[128 + part * GROUP..][..GROUP];
                let shift = quarter / 2 * 4;
                let codes = std::array::from_fn(|i| (low[i] >> shift & 15) | (high[i] >> (2 * quarter) & 3) << 4);
                let d = float(block, 208);
                let scale = |half: usize| d * f32::from(block[192 + 2 * index + half] as i8);
                Group { codes, scales: [scale(0), scale(1)], least: 0.0 }
            }
        }
    }

    /// A row as f32.
    pub fn dequantize(self, blocks: &[u8], out: &mut [f32]) {
        simd!(self.dequantize_inner(blocks, out));
    }

    #[inline(always)]
    fn dequantize_inner(self, blocks: &[u8], out: &mut [f32]) {
        let zero = i32::from(self.zero());
        let rows = out.chunks_exact_mut(self.weights()).zip(blocks.chunks_exact(self.block_bytes()));
        for (out, block) in rows {
            for (index, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
                let group = self.group(block, index);
                let halves = out.chunks_exact_mut(GROUP / 2).zip(group.codes.chunks_exact(GROUP / 2));
                for ((out, codes), scale) in halves.zip(group.scales) {
                    for (x, &code) in out.iter_mut().zip(codes) {
                        *x = scale * (i32::from(code) - zero) as f32 + group.least;
                    }
                }
            }
        }
    }
}

/// 32 codes of 4 bits: the first 16 in the low halves of 16 bytes.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [u8; GROUP] {
    let mut codes = [0; GROUP];
    let (low, high) = codes.split_at_mut(GROUP / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    codes
}

/// The same with a fifth bit each, of 4 bytes.
#[inline(always)]
fn fives(bits: &[u8], bytes: &[u8]) -> [u8; GROUP] {
    let bits = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    let mut codes = nibbles(bytes);
    codes.iter_mut().enumerate().for_each(|(i, code)| *code |= ((bits >> i & 1) as u8) << 4);
    codes
}

/// Scale and least value of 6 bits each, of twelve bytes for eight groups: those of the last four lie in the bits that the
/// first four leave.
#[inline(always)]
fn six_bits(bytes: &[u8], index: usize) -> (u8, u8) {
    match index {
        0..4 => (bytes[index] & 63, bytes[index + 4] & 63),
        _ => (bytes[index + 4] & 15 | bytes[index - 4] >> 6 << 4, bytes[index + 4] >> 4 | bytes[index] >> 6 << 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_each_types_own() {
        for kind in BlockType::ALL {
            assert_eq!(BlockType::numbered(kind.number()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
            assert!(kind.bytes(1024) == 1024 / kind.weights() * kind.block_bytes());
        }
        assert_eq!(BlockType::numbered(10), None);
    }
}
