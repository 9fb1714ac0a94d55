//! CLIP's vision tower.

use super::config::{ClipConfig, VisionConfig};
use crate::encoder::loader::Loader;
use crate::encoder::transformer::{Block, Layout};
use crate::encoder::vision::ImageModel;
use crate::encoder::{Encoded, collect, of_length_one};
use crate::error::Result;
use crate::ops::convolution::{Convolution, Filters, Maps};
use crate::ops::embedding::PatchEmbedding;
use crate::ops::layer_norm::Norm;
use crate::ops::linear::Linear;

/// A transformer over an image's patches and a class token, whose state says what the image shows.
pub struct ClipVision {
    config: VisionConfig,
    patches: Convolution,
    positions: PatchEmbedding,
    before: Norm,
    blocks: Vec<Block>,
    after: Norm,
    projection: Linear,
}

impl ClipVision {
    pub(super) fn read(loader: &Loader, config: &ClipConfig) -> Result<ClipVision> {
        let c = &config.vision_config;
        let (width, eps, sizes) = (c.hidden_size, c.layer_norm_eps, c.sizes()?);
        let tower = loader.under("vision_model");
        let embeddings = tower.under("embeddings");
        let (kernel, padding) = (c.patch_size, 0);
        let filters = Filters { outputs: width, inputs: 3, kernel, stride: kernel, padding };
        Ok(ClipVision {
            patches: embeddings.convolution("patch_embedding", filters)?.wide(),
            positions: embeddings.class_and_positions("class_embedding", "position_embedding", c.patches(), width)?,
            // The missing letter is in every published file.
            before: tower.norm("pre_layrnorm", width, eps)?.wide(),
            blocks: Block::read_all(&tower, ("encoder.layers", &Layout::CLIP), c.num_hidden_layers, sizes)?,
            after: tower.norm("post_layernorm", width, eps)?,
            projection: loader.projection("visual_projection", config.projection_dim, width)?.wide(),
            config: c.clone(),
        })
    }
}

impl ImageModel for ClipVision {
    fn widths(&self) -> (usize, usize) {
        (self.config.hidden_size, self.projection.outputs())
    }

    fn patches(&self) -> usize {
        self.config.patches()
    }

    fn encode(&self, images: &[Vec<f32>]) -> Result<Vec<Encoded>> {
        let size = self.config.image_size;
        let patches = self.patches.forward(&Maps::from_planes(images, size, size)?)?;
        let (x, images) = self.positions.forward(&patches.rows)?;
        let mut x = self.before.forward(&x)?;
        self.blocks.iter().try_for_each(|block| block.forward(&mut x, &images))?;
        let first = x.select(&images.ranges().map(|rows| rows.start).collect::<Vec<_>>())?;
        let global = of_length_one(self.projection.forward(&self.after.forward(&first)?)?)?;
        collect(x, &images, global)
    }
}
