//! Time of encoding texts and images.

use rand::Rng;

use crate::encoder::{ImageEncoder, TextEncoder};
use crate::error::Result;
use crate::random::{Purpose, generator};

/// Texts or images to encode again and again.
pub struct EncodingWork<'a> {
    /// How many a run encodes.
    pub count: usize,
    /// Their tokens or patches.
    pub tokens: usize,
    /// Encodes them once.
    pub run: Box<dyn FnMut() -> Result<()> + 'a>,
}

/// Texts, cut into tokens already.
pub fn texts<'a>(encoder: &'a TextEncoder, texts: &[&str], max_tokens: usize) -> Result<EncodingWork<'a>> {
    let ids = encoder.tokenize(texts, max_tokens)?;
    let tokens = ids.iter().map(Vec::len).sum();
    Ok(EncodingWork { count: texts.len(), tokens, run: Box::new(move || encoder.encode_ids(&ids).map(drop)) })
}

/// Prepared images, drawn at random.
pub fn images(encoder: &ImageEncoder, count: usize) -> EncodingWork<'_> {
    let mut rng = generator(0, Purpose::Benchmark, 1);
    let size = encoder.processor().size();
    let mut image = || -> Vec<f32> { (0..3 * size * size).map(|_| rng.random_range(-2.0..2.0)).collect() };
    let images: Vec<Vec<f32>> = (0..count).map(|_| image()).collect();
    let run = Box::new(move || encoder.encode_images(&images).map(drop));
    EncodingWork { count, tokens: count * encoder.patches(), run }
}
