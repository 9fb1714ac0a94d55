//! Layers of a vision transformer, with weights drawn by seed.

use rand::Rng;

use crate::autograd::Cost;
use crate::encoder::Compute;
use crate::encoder::transformer::{Block, Sizes, block_cost};
use crate::error::Result;
use crate::ops::attention::Heads;
use crate::ops::linear::Activation;
use crate::random::{Purpose, generator};
use crate::tensor::{Sequences, Tensor};

/// Sizes of CLIP ViT-B/32's vision tower.
const SIZES: Sizes = Sizes {
    width: 768,
    inner: 3072,
    heads: Heads { count: 12, width: 64, causal: false },
    eps: 1e-5,
    activation: Activation::QuickGelu,
};

/// Its layers, and patches of an image with the class token.
pub const VIT_LAYERS: usize = 12;
const LENGTH: usize = 50;

/// Layers of ViT-B/32 with the states of some images.
pub struct LayerBench {
    blocks: Vec<Block>,
    states: Tensor,
    images: Sequences,
    compute: Compute,
}

impl LayerBench {
    /// Draws the layers and the states.
    pub fn new(layers: usize, images: usize, compute: Compute) -> Result<LayerBench> {
        let mut rng = generator(0, Purpose::Benchmark, 3);
        let states: Vec<f32> = (0..images * LENGTH * SIZES.width).map(|_| rng.random_range(-1.0..1.0)).collect();
        Ok(LayerBench {
            blocks: (0..layers).map(|i| Block::random(SIZES, i as u64, &compute)).collect::<Result<_>>()?,
            states: Tensor::of_rows(states, SIZES.width)?.to(compute.gpu.as_ref())?,
            images: Sequences::equal(images, LENGTH),
            compute,
        })
    }

    /// Runs the layers and waits until they are done.
    pub fn run(&mut self) -> Result<()> {
        let LayerBench { blocks, states, images, compute } = self;
        blocks.iter().try_for_each(|block| block.forward(states, images))?;
        compute.gpu.as_ref().map_or(Ok(()), |gpu| gpu.synchronize())
    }

    /// What a run costs, if each step reads and writes each of its operands once.
    pub fn cost(&self) -> Result<Cost> {
        let block = block_cost(&SIZES, self.images.lengths(), self.compute.element()?);
        Ok(block * self.blocks.len() as u64)
    }
}
