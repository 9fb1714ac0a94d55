//! Time of encoding texts and images.

use rand::Rng;
use serde::Serialize;

use super::{Summary, Timing};
use crate::encoder::{ImageEncoder, TextEncoder};
use crate::error::Result;
use crate::random::{Purpose, generator};

/// A rate of encoding.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EncodingRate {
    /// Texts or images of a run.
    pub count: usize,
    /// Their tokens or patches.
    pub tokens: usize,
    pub seconds: Summary,
    /// Texts or images per second, of the median run.
    pub per_second: f64,
}

impl EncodingRate {
    fn new(count: usize, tokens: usize, timing: &Timing) -> EncodingRate {
        let seconds = timing.summary();
        EncodingRate { count, tokens, seconds, per_second: count as f64 / seconds.p50 }
    }
}

/// Times the encoding of texts that are cut into tokens already.
pub fn texts(encoder: &TextEncoder, texts: &[&str], max_tokens: usize, runs: usize) -> Result<EncodingRate> {
    let ids = encoder.tokenize(texts, max_tokens)?;
    let timing = Timing::of(1, runs, || encoder.encode_ids(&ids))?;
    Ok(EncodingRate::new(texts.len(), ids.iter().map(Vec::len).sum(), &timing))
}

/// Times the encoding of `count` prepared images, drawn at random.
pub fn images(encoder: &ImageEncoder, count: usize, runs: usize) -> Result<EncodingRate> {
    let mut rng = generator(0, Purpose::Benchmark, 1);
    let size = encoder.processor().size();
    let mut image = || -> Vec<f32> { (0..3 * size * size).map(|_| rng.random_range(-2.0..2.0)).collect() };
    let images: Vec<Vec<f32>> = (0..count).map(|_| image()).collect();
    let timing = Timing::of(1, runs, || encoder.encode_images(&images))?;
    Ok(EncodingRate::new(count, count * encoder.patches(), &timing))
}
