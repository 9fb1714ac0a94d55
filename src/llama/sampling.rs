//! Choosing the next token from its logits.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::device::cpu::{simd, vector};
use crate::error::{Error, Result};
use crate::random::{Purpose, generator};

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Draws among the likeliest tokens whose probabilities add up to this.
    pub top_p: f32,
    /// Draws.
    pub seed: u64,
}

impl Sampling {
    /// Always the likeliest token.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 0 };

    /// Fails if a setting makes no sense.
    pub fn check(&self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::invalid(format!("temperature {} is not 0 or more", self.temperature)));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::invalid(format!("top-p {} is not above 0 and at most 1", self.top_p)));
        }
        Ok(())
    }
}

/// Chooses the tokens of one sequence. The same seed and sequence number give the same choices, whatever else is generated
/// beside it.
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
    order: Vec<(f32, u32)>,
}

impl Sampler {
    /// For the sequence of this number.
    pub fn new(sampling: Sampling, sequence: usize) -> Sampler {
        let rng = generator(sampling.seed, Purpose::Language, sequence as u64);
        Sampler { sampling, rng, order: Vec::new() }
    }

    /// The next token. Of equal logits the first counts as likelier.
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        let Sampling { temperature, top_p, .. } = self.sampling;
        if temperature == 0.0 {
            return likeliest(logits);
        }
        let mut p: Vec<f32> = logits.iter().map(|x| x / temperature).collect();
        simd!(vector::softmax(&mut p));
        self.order.clear();
        self.order.extend(p.iter().zip(0..).map(|(&p, id)| (p, id)));
        self.order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut kept = 0.0;
        let count = self.order.iter().take_while(|(p, _)| (kept < top_p).then(|| kept += p).is_some()).count();
        let mut at = self.rng.random_range(0.0..1.0f32) * kept;
        let drawn = self.order[..count].iter().find(|(p, _)| {
            at -= p;
            at < 0.0
        });
        // Rounding may leave a little of `at`: then it is the last of those kept.
        drawn.or(self.order[..count].last()).map_or(0, |(_, id)| *id)
    }
}

/// The number of the largest logit, of equal ones the first.
pub(super) fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().zip(0u32..).fold((f32::NEG_INFINITY, 0), |best, (&x, id)| match x > best.0 {
        true => (x, id),
        false => best,
    });
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(temperature: f32, top_p: f32, logits: &[f32]) -> Vec<u32> {
        let mut sampler = Sampler::new(Sampling { temperature, top_p, seed: 5 }, 2);
        (0..4000).map(|_| sampler.choose(logits)).collect()
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        let logits = [0.0, 3f32.ln() * 2.0, f32::NEG_INFINITY];
        let share = drawn(2.0, 1.0, &logits).iter().filter(|&&id| id == 1).count() as f32 / 4000.0;
        // Four deviations of 4000 draws of probability 3/4.
        assert!((share - 0.75).abs() < 4.0 * (0.75f32 * 0.25 / 4000.0).sqrt(), "{share}");
        assert!(drawn(2.0, 1.0, &logits).iter().all(|&id| id < 2));
    }

    #[test]
    fn top_p_keeps_the_fewest_that_suffice() {
        // Probabilities 1/2, 1/4, 1/4.
        let logits = [2f32.ln(), 0.0, 0.0];
        assert!(drawn(1.0, 0.5, &logits).iter().all(|&id| id == 0));
        let some = drawn(1.0, 0.6, &logits);
        assert!(some.contains(&1) && !some.contains(&2));
        assert!(drawn(1.0, 1.0, &logits).contains(&2));
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(likeliest(&[0.0, 2.0, 2.0]), 1);
        assert_eq!(likeliest(&[f32::NAN, -1.0]), 1);
        assert!(drawn(0.0, 1.0, &[1.0, 3.0]).iter().all(|&id| id == 1));
    }
}
