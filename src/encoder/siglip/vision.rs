//! SigLIP's vision tower.

use super::config::VisionConfig;
use super::pooling::PoolingHead;
use crate::encoder::loader::Loader;
use crate::encoder::transformer::{Block, Layout};
use crate::encoder::vision::ImageModel;
use crate::encoder::{Compute, Encoded, collect, of_length_one};
use crate::error::Result;
use crate::ops::convolution::{Convolution, Filters, Maps};
use crate::ops::embedding::PatchEmbedding;
use crate::ops::layer_norm::Norm;
use crate::tensor::Tensor;

/// A transformer over an image's patches; a query that was learned says what the image shows.
pub struct SiglipVision {
    config: VisionConfig,
    patches: Convolution,
    positions: PatchEmbedding,
    blocks: Vec<Block>,
    after: Norm,
    head: PoolingHead,
}

impl SiglipVision {
    pub(super) fn read(loader: &Loader, config: VisionConfig, compute: &Compute) -> Result<SiglipVision> {
        let (width, sizes) = (config.tower.hidden_size, config.tower.sizes);
        let tower = loader.under("vision_model");
        let embeddings = tower.under("embeddings");
        let (kernel, padding) = (config.patch_size, 0);
        let filters = Filters { outputs: width, inputs: 3, kernel, stride: kernel, padding };
        Ok(SiglipVision {
            patches: embeddings.convolution("patch_embedding", filters)?.wide(),
            positions: embeddings.positions("patch_embedding", "position_embedding", config.patches(), width)?,
            blocks: Block::read_all(&tower, ("encoder.layers", &Layout::CLIP), config.tower.num_hidden_layers, sizes)?,
            after: tower.norm("post_layernorm", width, sizes.eps)?.wide(),
            head: PoolingHead::read(&tower.under("head"), sizes, compute)?,
            config,
        })
    }
}

impl ImageModel for SiglipVision {
    fn widths(&self) -> (usize, usize) {
        (self.config.tower.hidden_size, self.config.tower.hidden_size)
    }

    fn patches(&self) -> usize {
        self.config.patches()
    }

    fn encode(&self, images: &[Vec<f32>]) -> Result<Vec<Encoded>> {
        let (size, width) = (self.config.image_size, self.config.tower.hidden_size);
        let patches = self.patches.forward(&Maps::from_planes(images, size, size)?)?;
        let (mut x, images) = self.positions.forward(&patches.rows)?;
        self.blocks.iter().try_for_each(|block| block.forward(&mut x, &images))?;
        let x = self.after.forward(&x)?;
        let logits = self.head.logits(&x)?;
        let x = x.into_host()?;
        let global = of_length_one(self.head.forward(&x, &logits, &images)?)?;
        collect(Tensor::of_rows(x, width)?, &images, global)
    }
}
