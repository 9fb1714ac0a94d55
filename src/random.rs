//! Random numbers that a run can take up where it was killed: every draw is a function of the seed and of what it
//! is drawn for, and there is no state to carry.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Philox4x32-10 (Salmon et al., 2011): four uniform 32-bit numbers from a key and a counter.
pub fn philox(key: u64, mut counter: [u32; 4]) -> [u32; 4] {
    let mut key = [key as u32, (key >> 32) as u32];
    for _ in 0..10 {
        let a = 0xD251_1F53u64 * counter[0] as u64;
        let b = 0xCD9E_8D57u64 * counter[2] as u64;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
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
        assert_eq!(philox(u64::MAX, [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }
}
