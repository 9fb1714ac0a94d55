//! Random numbers that a run can take up where it was killed: every draw is a function of the seed and of what it
//! is drawn for, and there is no state to carry.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Blocks that [`philox_lanes`] draws at once: as many as one vector register has 32-bit lanes.
pub const LANES: usize = 16;

/// Uniform values of this standard deviation.
pub fn uniform(values: &mut [f32], deviation: f32, rng: &mut impl Rng) {
    let bound = deviation * 3f32.sqrt();
    values.iter_mut().for_each(|x| *x = rng.random_range(-bound..bound));
}

/// Philox4x32-10 (Salmon et al., 2011): four uniform 32-bit numbers from a key and a counter.
pub fn philox(key: u64, counter: [u32; 4]) -> [u32; 4] {
    philox_rounds::<1>(key, counter.map(|c| [c])).map(|[x]| x)
}

/// Philox at the counters `block..block + 16` (the low 64 bits) with the same high words: number `i` of block `b` is
/// `[i][b]`. Inline into `simd!`.
#[inline(always)]
pub fn philox_lanes(key: u64, block: u64, high: [u32; 2]) -> [[u32; LANES]; 4] {
    let mut counters = [[0; LANES], [0; LANES], [high[0]; LANES], [high[1]; LANES]];
    let [low, middle, ..] = &mut counters;
    for (counter, (low, middle)) in (block..).zip(low.iter_mut().zip(middle)) {
        *low = counter as u32;
        *middle = (counter >> 32) as u32;
    }
    philox_rounds(key, counters)
}

#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "four arrays walk together")]
fn philox_rounds<const N: usize>(key: u64, mut c: [[u32; N]; 4]) -> [[u32; N]; 4] {
    let mut key = [key as u32, (key >> 32) as u32];
    for _ in 0..10 {
        for lane in 0..N {
            let a = 0xD251_1F53u64 * c[0][lane] as u64;
            let b = 0xCD9E_8D57u64 * c[2][lane] as u64;
            c[0][lane] = (b >> 32) as u32 ^ c[1][lane] ^ key[0];
            c[1][lane] = b as u32;
            c[2][lane] = (a >> 32) as u32 ^ c[3][lane] ^ key[1];
            c[3][lane] = a as u32;
        }
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

/// What a sequence of draws is for; each purpose has draws of its own.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// Initial weights.
    Weights = 1,
    /// Order of a mention's candidates.
    CandidateOrder = 2,
    /// Order of the mentions in an epoch.
    EpochOrder = 3,
    /// Which negatives a mention gets in an epoch.
    Negatives = 4,
    /// Demo data.
    Demo = 5,
    /// Synthetic features for benchmarks.
    Benchmark = 6,
    /// Which mentions are for training, validation and test.
    Split = 7,
    /// Tokens of a generated text.
    Language = 8,
    /// Which mentions show a language model's preference for letters.
    Debias = 9,
    /// Simulated datasets.
    Simulation = 10,
    /// Which mentions a bootstrap draws.
    Bootstrap = 11,
    /// Order in which a language model sees a mention's options.
    OptionOrder = 12,
    /// On which mentions the weights of a ranking and of a language model are fitted, and in which folds.
    Fusion = 13,
    /// Which of equal entities of a knowledge base comes first.
    EntityOrder = 14,
    /// On which mentions the recall of a first stage is measured.
    RecallSample = 15,
    /// What LoRA starts from.
    Adapters = 16,
}

/// A generator for one purpose; `index` tells its uses apart (an epoch, a mention).
pub fn generator(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' Random123 distribution (kat_vectors, philox4x32 10).
    #[test]
    fn philox_gives_the_published_numbers() {
        assert_eq!(philox(0, [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let lanes = philox_lanes(9, u32::MAX as u64 - 3, [7, 8]);
        for b in 0..LANES as u64 {
            let counter = u32::MAX as u64 - 3 + b;
            let want = philox(9, [counter as u32, (counter >> 32) as u32, 7, 8]);
            assert_eq!([0, 1, 2, 3].map(|i| lanes[i][b as usize]), want);
        }
        assert_eq!(philox(u64::MAX, [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }
}
