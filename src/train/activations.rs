//! What a step on encoders keeps of memory for its backward pass, before any of it is taken.

use crate::encoder::trained::{Blocks, Shapes};

/// What a batch is made of: distinct texts and images that are read.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Texts, and their tokens.
    pub texts: u64,
    pub tokens: u64,
    /// Images.
    pub images: u64,
}

/// Bytes that a step keeps of a token or a patch in a block of these sizes, at least: inputs of its layers and normalized rows.
fn kept(width: usize, inner: usize) -> u64 {
    4 * (8 * width + inner) as u64
}

/// Bytes that a step on this batch keeps of the blocks that are trained, at least: of all of it, or of `chunk` texts or images at
/// a time, where these are as large as in the mean.
pub fn activations(shapes: &Shapes, load: Load, freeze_layers: usize, chunk: usize) -> u64 {
    let tower = |Blocks { layers, width, inner }: Blocks, rows: u64| {
        kept(width, inner).saturating_mul(layers.saturating_sub(freeze_layers) as u64).saturating_mul(rows)
    };
    let texts = tower(shapes.text, load.tokens);
    let images = match shapes.maps.get(freeze_layers..) {
        Some(maps) if !shapes.maps.is_empty() => maps.iter().sum::<u64>().saturating_mul(4).saturating_mul(load.images),
        _ => tower(shapes.vision, load.images.saturating_mul(shapes.patches as u64)),
    };
    if chunk == 0 {
        return texts.saturating_add(images);
    }
    let share = |items: u64| (chunk as f64 / items.max(1) as f64).min(1.0);
    (share(load.texts) * texts as f64).max(share(load.images) * images as f64) as u64
}

/// Bytes of the states of all tokens and patches of a batch.
pub fn states(shapes: &Shapes, load: Load) -> u64 {
    let patches = load.images.saturating_mul(shapes.patches as u64);
    let texts = load.tokens.saturating_mul(shapes.text.width as u64);
    texts.saturating_add(patches.saturating_mul(shapes.vision.width as u64)).saturating_mul(4)
}
