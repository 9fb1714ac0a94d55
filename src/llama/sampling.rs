//! Choosing the next token: settings, and the random numbers of a sequence.

use rand::RngCore;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::ops::sample::Draw;
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
            return Err(Error::invalid(format!("temperature {} is no finite number of 0 or more", self.temperature)));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::invalid(format!("top-p {} is not above 0 and at most 1", self.top_p)));
        }
        Ok(())
    }
}

/// Draws the tokens of one sequence. The same seed and sequence number give the same draws, whatever else is generated
/// beside it and on whichever device.
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// For the sequence of this number.
    pub fn new(sampling: Sampling, sequence: usize) -> Sampler {
        Sampler { sampling, rng: generator(sampling.seed, Purpose::Language, sequence as u64) }
    }

    /// How the next token is chosen ([`crate::ops::sample::choose`]).
    pub fn draw(&mut self) -> Draw {
        let Sampling { temperature, top_p, .. } = self.sampling;
        match temperature {
            0.0 => Draw::LIKELIEST,
            _ => Draw { number: self.rng.next_u64(), sharpness: 1.0 / temperature, top_p },
        }
    }
}
