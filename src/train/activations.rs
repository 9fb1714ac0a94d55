//! What a step on encoders keeps of memory for its backward pass, before any of it is taken.

use crate::encoder::trained::{Blocks, Maps, Shapes};

/// What a batch is made of: distinct texts and images that are read.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Texts, and their tokens.
    pub texts: u64,
    pub tokens: u64,
    /// Images.
    pub images: u64,
}

/// What a step leaves out to keep less.
#[derive(Clone, Copy, Debug)]
pub struct Saving {
    /// Layers that are not trained, from below.
    pub freeze_layers: usize,
    /// Texts or images that are kept at a time; 0 for all.
    pub chunk: usize,
    /// Whether inputs of layers alone are kept, and one layer at a time is computed again.
    pub gradient_checkpointing: bool,
}

/// The blocks of a tower that are trained, and of how many rows or images.
struct Tower {
    blocks: Vec<Maps>,
    count: u64,
}

impl Tower {
    fn bytes_of(&self, values: impl Iterator<Item = u64>) -> u64 {
        values.fold(0, u64::saturating_add).saturating_mul(4).saturating_mul(self.count)
    }

    /// What waits for the backward pass.
    fn kept(&self, gradient_checkpointing: bool) -> u64 {
        self.bytes_of(self.blocks.iter().map(|block| if gradient_checkpointing { block.input } else { block.kept }))
    }

    /// The same when the backward pass begins: the last block may have been computed again.
    fn bytes(&self, gradient_checkpointing: bool) -> u64 {
        let again = self.blocks.last().filter(|_| gradient_checkpointing);
        let again = self.bytes_of(again.map(|block| block.kept.saturating_sub(block.input)).into_iter());
        self.kept(gradient_checkpointing).saturating_add(again)
    }
}

/// Bytes that a step on this batch keeps of the blocks that are trained, at least: of all of it, or of a chunk, where texts and
/// images are as large as in the mean.
pub fn activations(shapes: &Shapes, load: Load, saving: Saving) -> u64 {
    let Saving { freeze_layers, chunk, gradient_checkpointing } = saving;
    let tower = |Blocks { layers, width, inner }: Blocks, rows: u64| {
        // Inputs of its layers and normalized rows.
        let block = Maps { input: width as u64, kept: (8 * width + inner) as u64 };
        Tower { blocks: vec![block; layers.saturating_sub(freeze_layers)], count: rows }
    };
    let texts = tower(shapes.text, load.tokens);
    let images = match shapes.maps.get(freeze_layers..) {
        Some(maps) if !shapes.maps.is_empty() => Tower { blocks: maps.to_vec(), count: load.images },
        _ => tower(shapes.vision, load.images.saturating_mul(shapes.patches as u64)),
    };
    let [of_texts, of_images] = [&texts, &images].map(|tower| tower.bytes(gradient_checkpointing));
    if chunk == 0 {
        // Backward comes to the images first, while the texts are kept.
        return texts.kept(gradient_checkpointing).saturating_add(of_images).max(of_texts);
    }
    let share = |items: u64| (chunk as f64 / items.max(1) as f64).min(1.0);
    (share(load.texts) * of_texts as f64).max(share(load.images) * of_images as f64) as u64
}

/// Bytes of the states of all tokens and patches of a batch.
pub fn states(shapes: &Shapes, load: Load) -> u64 {
    let patches = load.images.saturating_mul(shapes.patches as u64);
    let texts = load.tokens.saturating_mul(shapes.text.width as u64);
    texts.saturating_add(patches.saturating_mul(shapes.vision.width as u64)).saturating_mul(4)
}
