//! Making blocks of floats.
//!
//! Q8_0 and Q4_0 give the weight of largest magnitude the code of largest magnitude, as ggml does. Of the other types each group's
//! scale, and its least value where there is one, are those of least squared error among some twenty that are tried, where
//! large weights count more. Scales of the K types are rounded to their few bits, and then codes are chosen for the rounded ones.
//!
//! Where it is known how large the values are that each column is multiplied by, a weight counts by their mean square times the
//! root of its own square and its group's mean, in Q4_0 as well: what is to be small is the error of the products, not of the
//! weights, and large weights still count more, since the text that showed the values is not all texts.

use half::f16;

use super::{BlockType, GROUP};

/// Groups of a block of the K types.
const GROUPS: usize = 8;

/// Steps between the scales that are tried, and how far they go to either side, in codes.
const STEP: f32 = 0.1;
const STEPS: i32 = 10;

impl BlockType {
    /// Quantises a row of finite floats. `importance`, above 0, is the mean square of what each column is
    /// multiplied by, if it is known.
    pub fn quantize(self, row: &[f32], importance: Option<&[f32]>, blocks: &mut [u8]) {
        let width = self.weights();
        for (index, (weights, block)) in
            row.chunks_exact(width).zip(blocks.chunks_exact_mut(self.block_bytes())).enumerate()
        {
            let group = Group { weights, importance: importance.map(|all| &all[index * width..][..width]) };
            match self {
                BlockType::Q4_0 if importance.is_some() => {
                    let scale = rounded(group.symmetric(8.0));
                    put(block, 0, scale);
                    pack_nibbles(&codes(weights, scale, 8.0, 15.0), &mut block[2..]);
                }
                BlockType::Q4_0 | BlockType::Q8_0 => self.simple(weights, block),
                BlockType::Q5_0 => {
                    let scale = rounded(group.symmetric(16.0));
                    put(block, 0, scale);
                    pack_fives(&codes(weights, scale, 16.0, 31.0), &mut block[2..]);
                }
                BlockType::Q4_1 | BlockType::Q5_1 => {
                    let largest = if self == BlockType::Q4_1 { 15.0 } else { 31.0 };
                    let (scale, below) = group.asymmetric(largest);
                    let (scale, below) = (rounded(scale), rounded(below));
                    put(block, 0, scale);
                    put(block, 2, -below);
                    let codes = codes(weights, scale, steps(below, scale), largest);
                    match self {
                        BlockType::Q4_1 => pack_nibbles(&codes, &mut block[4..]),
                        _ => pack_fives(&codes, &mut block[4..]),
                    }
                }
                BlockType::Q4K | BlockType::Q5K => self.with_six_bits(group, block),
                BlockType::Q6K => group.sixes(block),
            }
        }
    }

    /// Q4_0 and Q8_0.
    fn simple(self, weights: &[f32], block: &mut [u8]) {
        let extreme = extreme(weights);
        let scale = match self {
            BlockType::Q4_0 => extreme / -8.0,
            _ => extreme.abs() / 127.0,
        };
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        put(block, 0, scale);
        match self {
            BlockType::Q4_0 => {
                let code = |&w: &f32| (w * inverse + 8.5).clamp(0.0, 15.0) as u8;
                pack_nibbles(&weights.iter().map(code).collect::<Vec<u8>>(), &mut block[2..]);
            }
            _ => {
                block[2..].iter_mut().zip(weights).for_each(|(byte, w)| *byte = (w * inverse).round() as i8 as u8);
            }
        }
    }

    /// Q4_K and Q5_K: eight groups, whose scales and least values are of 6 bits under two floats.
    fn with_six_bits(self, all: Group, block: &mut [u8]) {
        let largest = if self == BlockType::Q4K { 15.0 } else { 31.0 };
        let mut found = [(0.0, 0.0); GROUPS];
        for (found, group) in found.iter_mut().zip(all.parts(GROUP)) {
            *found = group.asymmetric(largest);
        }
        let most = |of: fn(&(f32, f32)) -> f32| rounded(found.iter().map(of).fold(0.0, f32::max) / 63.0);
        let (d, dmin) = (most(|found| found.0), most(|found| found.1));
        block.fill(0);
        put(block, 0, d);
        put(block, 2, dmin);
        for (index, (group, (scale, below))) in all.weights.chunks_exact(GROUP).zip(found).enumerate() {
            let [scale, below] = [steps(scale, d), steps(below, dmin)].map(|steps| steps.round().min(63.0));
            pack_six_bits(&mut block[4..16], index, [scale as u8, below as u8]);
            let (scale, below) = (scale * d, below * dmin);
            let codes = codes(group, scale, steps(below, scale), largest);
            let packed = if self == BlockType::Q4K { 16 } else { 48 };
            for (i, &code) in codes.iter().enumerate() {
                block[packed + index / 2 * GROUP + i] |= (code & 15) << (index % 2 * 4);
                if self == BlockType::Q5K {
                    block[16 + i] |= (code >> 4) << index;
                }
            }
        }
    }
}

/// Weights that are rounded together, and how much each of their columns matters.
#[derive(Clone, Copy)]
struct Group<'a> {
    weights: &'a [f32],
    importance: Option<&'a [f32]>,
}

impl<'a> Group<'a> {
    /// The group in parts of `width` weights.
    fn parts(self, width: usize) -> impl Iterator<Item = Group<'a>> {
        let parts = self.weights.chunks_exact(width).enumerate();
        parts.map(move |(i, weights)| Group {
            weights,
            importance: self.importance.map(|all| &all[i * width..][..width]),
        })
    }

    /// What the squared error of each weight counts: `by_itself` where nothing is known of its column.
    fn counts(self, by_itself: impl Fn(f32) -> f32) -> Vec<f32> {
        match self.importance {
            None => self.weights.iter().map(|&w| by_itself(w)).collect(),
            Some(importance) => {
                let square = self.weights.iter().map(|w| w * w).sum::<f32>() / self.weights.len() as f32;
                let counts = importance.iter().zip(self.weights).map(|(x, w)| x * (square + w * w).sqrt());
                counts.collect()
            }
        }
    }

    /// Q6_K: sixteen groups of 16, whose scales are of 8 bits under one float.
    fn sixes(self, block: &mut [u8]) {
        let scales: Vec<f32> = self.parts(GROUP / 2).map(|group| group.symmetric(32.0)).collect();
        let d = rounded(extreme(&scales) / -128.0);
        block.fill(0);
        put(block, 208, d);
        for (half, (group, scale)) in self.weights.chunks_exact(GROUP / 2).zip(scales).enumerate() {
            let scale = steps(scale, d).round().clamp(-128.0, 127.0);
            block[192 + half] = scale as i8 as u8;
            let codes = codes(group, scale * d, 32.0, 63.0);
            let (index, first) = (half / 2, half % 2 * GROUP / 2);
            let (part, quarter) = (index / 4, index % 4);
            for (i, &code) in (first..).zip(&codes) {
                block[part * 64 + quarter % 2 * GROUP + i] |= (code & 15) << (quarter / 2 * 4);
                block[128 + part * GROUP + i] |= (code >> 4) << (2 * quarter);
            }
        }
    }

    /// The scale of codes from `-zero` to `zero - 1` with the least squared error, in which each weight counts by its square, or
    /// by its importance. The weight of largest magnitude gets about the code `-zero`.
    fn symmetric(self, zero: f32) -> f32 {
        let extreme = extreme(self.weights);
        if extreme == 0.0 {
            return 0.0;
        }
        let counts = self.counts(|w| w * w);
        let (mut best, mut scale) = (f32::NEG_INFINITY, 0.0);
        for step in -STEPS..=STEPS {
            let inverse = -(zero + STEP * step as f32) / extreme;
            let (mut products, mut squares) = (0.0, 0.0);
            for (&w, count) in self.weights.iter().zip(&counts) {
                let code = (w * inverse).round_ties_even().clamp(-zero, zero - 1.0);
                products += count * w * code;
                squares += count * code * code;
            }
            // By the best scale for these codes, products / squares, the error falls by products² / squares.
            let gain = if squares > 0.0 { products * products / squares } else { 0.0 };
            if gain > best {
                (best, scale) = (gain, steps(products, squares));
            }
        }
        scale
    }

    /// Scale and what is subtracted, none below 0, of codes 0 to `largest` with the least squared error, in which a weight counts by
    /// its magnitude and the group's deviation, or by its importance.
    fn asymmetric(self, largest: f32) -> (f32, f32) {
        let weights = self.weights;
        let least = weights.iter().fold(0.0f32, |least, &w| least.min(w));
        let most = weights.iter().fold(f32::NEG_INFINITY, |most, &w| most.max(w));
        if most <= least {
            // All the same: none above 0, or 0.
            return (0.0, -least);
        }
        let spread = (weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32).sqrt();
        let counts = self.counts(|w| spread + w.abs());
        let (mut best, mut found) = (f32::INFINITY, ((most - least) / largest, -least));
        for step in -STEPS..=STEPS {
            let inverse = (largest + STEP * step as f32) / (most - least);
            let code = |w: f32| ((w - least) * inverse).round_ties_even().clamp(0.0, largest);
            // Of w = scale · code - below: sums of the normal equations.
            let [mut n, mut codes, mut squares, mut values, mut products] = [0.0f32; 5];
            for (&w, &count) in weights.iter().zip(&counts) {
                let code = code(w);
                n += count;
                codes += count * code;
                squares += count * code * code;
                values += count * w;
                products += count * w * code;
            }
            let determinant = n * squares - codes * codes;
            if determinant <= 0.0 {
                continue;
            }
            let (mut scale, mut below) =
                ((n * products - codes * values) / determinant, (codes * products - squares * values) / determinant);
            if below < 0.0 {
                (scale, below) = (products / squares, 0.0);
            }
            let error = |(w, count): (&f32, &f32)| count * (scale * code(*w) - below - w).powi(2);
            let error: f32 = weights.iter().zip(&counts).map(error).sum();
            if error < best {
                (best, found) = (error, (scale, below));
            }
        }
        found
    }
}

/// How many times a step goes into a value; nothing of no step.
fn steps(value: f32, step: f32) -> f32 {
    if step == 0.0 { 0.0 } else { value / step }
}

/// As a block keeps it.
fn rounded(scale: f32) -> f32 {
    f16::from_f32(scale).to_f32()
}

/// Writes a scale as f16.
fn put(block: &mut [u8], at: usize, scale: f32) {
    block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
}

/// The value of largest magnitude, with its sign.
fn extreme(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |extreme, &x| if x.abs() > extreme.abs() { x } else { extreme })
}

/// Codes 0 to `largest` of which `zero` stands for 0.
fn codes(weights: &[f32], scale: f32, zero: f32, largest: f32) -> Vec<u8> {
    weights.iter().map(|&w| (steps(w, scale) + zero).round_ties_even().clamp(0.0, largest) as u8).collect()
}

/// Packs 32 codes of 4 bits: see [`super::nibbles`].
fn pack_nibbles(codes: &[u8], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(GROUP / 2);
    bytes.iter_mut().zip(low.iter().zip(high)).for_each(|(byte, (low, high))| *byte = (low & 15) | (high & 15) << 4);
}

/// The same with a fifth bit each, of which all lie in the first four bytes.
fn pack_fives(codes: &[u8], bytes: &mut [u8]) {
    let bits = codes.iter().enumerate().fold(0u32, |bits, (i, &code)| bits | u32::from(code >> 4) << i);
    bytes[..4].copy_from_slice(&bits.to_le_bytes());
    pack_nibbles(codes, &mut bytes[4..]);
}

/// Scale and least value of 6 bits each: see [`super::six_bits`]. The bytes are zeros before the first group.
fn pack_six_bits(bytes: &mut [u8], index: usize, [scale, below]: [u8; 2]) {
    if index < 4 {
        bytes[index] |= scale;
        bytes[index + 4] |= below;
    } else {
        bytes[index + 4] = (scale & 15) | (below & 15) << 4;
        bytes[index - 4] |= (scale >> 4) << 6;
        bytes[index] |= (below >> 4) << 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simple_types_are_off_by_half_a_step() {
        let row: Vec<f32> = (0..256).map(|i| (i as f32 * 1.7).sin() * (1.0 + (i / 32) as f32)).collect();
        for (kind, codes) in [(BlockType::Q8_0, 127.0), (BlockType::Q4_0, 8.0)] {
            let (mut blocks, mut back) = (vec![0; kind.bytes(row.len())], vec![f32::NAN; row.len()]);
            kind.quantize(&row, None, &mut blocks);
            kind.dequantize(&blocks, &mut back);
            for (i, (row, back)) in row.chunks_exact(32).zip(back.chunks_exact(32)).enumerate() {
                let largest = row.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                for (x, back) in row.iter().zip(back) {
                    // Of 16 codes the highest is one short of the lowest's magnitude: half a step more at one end. Scales
                    // have 11 bits.
                    let steps = if kind == BlockType::Q4_0 { 1.0 } else { 0.5 };
                    let bound = largest * (steps / codes + 1.0 / 2048.0) * 1.001;
                    assert!((x - back).abs() <= bound, "{kind}, group {i}: {x} as {back}");
                }
            }
            assert_eq!(kind.first_unbounded(&blocks), None);
            let at = kind.block_bytes();
            blocks[at..at + 2].copy_from_slice(&f16::INFINITY.to_le_bytes());
            assert_eq!(kind.first_unbounded(&blocks), Some(1));
        }
    }

    /// Root of the mean squared error of a row, over that of its values.
    fn error(kind: BlockType, row: &[f32]) -> f64 {
        let (mut blocks, mut back) = (vec![0xa5; kind.bytes(row.len())], vec![f32::NAN; row.len()]);
        kind.quantize(row, None, &mut blocks);
        kind.dequantize(&blocks, &mut back);
        let squares = |of: &mut dyn Iterator<Item = f32>| of.map(|x| f64::from(x).powi(2)).sum::<f64>();
        let off = squares(&mut row.iter().zip(&back).map(|(x, back)| x - back));
        (off / squares(&mut row.iter().copied())).sqrt()
    }

    #[test]
    fn more_bits_and_more_scales_are_closer() {
        // About a bell curve, with a scale of its own for each 64.
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let mut bell = || (0..12).map(|_| uniform()).sum::<f32>();
        let row: Vec<f32> = (0..8192).map(|i| bell() * (1.0 + (i / 64 % 7) as f32)).collect();
        let of = |kind: BlockType| error(kind, &row);
        // A bit halves the error. What each type is off by at most: known from types of as many bits in ggml.
        for (kind, most) in [
            (BlockType::Q4_0, 0.095),
            (BlockType::Q4_1, 0.08),
            (BlockType::Q4K, 0.08),
            (BlockType::Q5_0, 0.045),
            (BlockType::Q5_1, 0.04),
            (BlockType::Q5K, 0.04),
            (BlockType::Q6K, 0.021),
            (BlockType::Q8_0, 0.006),
        ] {
            assert!(of(kind) < most, "{kind}: {}", of(kind));
        }
        assert!(of(BlockType::Q4K) < of(BlockType::Q4_0) && of(BlockType::Q5K) < of(BlockType::Q5_0));
    }

    #[test]
    fn weights_that_are_alike_or_nothing_are_kept() {
        for kind in BlockType::ALL {
            let none = [0.0f32; 256];
            let (mut blocks, mut back) = (vec![0xa5; kind.bytes(256)], [f32::NAN; 256]);
            kind.quantize(&none, None, &mut blocks);
            kind.dequantize(&blocks, &mut back);
            assert_eq!(back, none, "{kind}");
            for alike in [0.37f32, -0.37] {
                let row = [alike; 256];
                // A float of 11 bits, and one of 6 or 8 where scales have them.
                assert!(error(kind, &row) < 0.02, "{kind}: {} of {alike}", error(kind, &row));
            }
        }
    }

    #[test]
    fn columns_that_matter_are_rounded_with_more_care() {
        let row: Vec<f32> =
            (0..512).map(|i| ((i * 7919 % 1009) as f32 / 504.0 - 1.0) * (1.0 + (i % 5) as f32)).collect();
        // Each ninth is multiplied by values ten times as large.
        let importance: Vec<f32> = (0..512).map(|i| if i % 9 == 4 { 100.0 } else { 1.0 }).collect();
        let off = |kind: BlockType, by: Option<&[f32]>| -> f64 {
            let (mut blocks, mut back) = (vec![0xa5; kind.bytes(512)], vec![f32::NAN; 512]);
            kind.quantize(&row, by, &mut blocks);
            kind.dequantize(&blocks, &mut back);
            let each = row.iter().zip(&back).zip(&importance);
            each.map(|((x, back), count)| f64::from(count * (x - back) * (x - back))).sum()
        };
        for kind in BlockType::ALL {
            let (alike, with_care) = (off(kind, None), off(kind, Some(&importance)));
            let most = if kind == BlockType::Q8_0 { alike } else { 0.98 * alike };
            assert!(with_care <= most, "{kind}: {with_care} instead of {alike}");
        }
    }
}
