//! `config.json` of a ResNet. Defaults are those of transformers' ResNetConfig.

use std::path::Path;

use serde_json::json;

use super::REDUCTION;
use crate::autograd::Cost;
use crate::encoder::trained::{Blocks, LARGEST, MOST_LAYERS, Maps, Shapes};
use crate::error::Result;
use crate::fields::Fields;
use crate::ops::convolution::{self, Filters};
use crate::tensor::Element;

/// Sizes of the model.
#[derive(Clone, Debug)]
pub struct ResNetConfig {
    pub embedding_size: usize,
    pub hidden_sizes: Vec<usize>,
    pub depths: Vec<usize>,
    pub downsample_in_first_stage: bool,
}

impl Default for ResNetConfig {
    fn default() -> ResNetConfig {
        ResNetConfig {
            embedding_size: 64,
            hidden_sizes: vec![256, 512, 1024, 2048],
            depths: vec![3, 4, 6, 3],
            downsample_in_first_stage: false,
        }
    }
}

impl ResNetConfig {
    /// Reads and checks the `config.json` of a Hugging Face directory.
    pub fn read(folder: &Path) -> Result<ResNetConfig> {
        let fields = Fields::read(&folder.join("config.json"))?;
        let default = ResNetConfig::default();
        fields.only("layer_type", &[json!("bottleneck")])?;
        fields.only("hidden_act", &[json!("relu")])?;
        fields.only("num_channels", &[json!(3)])?;
        fields.only("quantization_config", &[])?;
        if fields.flag("downsample_in_bottleneck")?.unwrap_or(false) {
            let reason = "has `downsample_in_bottleneck`, ResNet's first version; the second (v1.5) is supported";
            return Err(fields.error(reason));
        }
        let config = ResNetConfig {
            embedding_size: fields.positive("embedding_size", default.embedding_size)?,
            hidden_sizes: fields.sizes("hidden_sizes")?.unwrap_or(default.hidden_sizes),
            depths: fields.sizes("depths")?.unwrap_or(default.depths),
            downsample_in_first_stage: fields.flag("downsample_in_first_stage")?.unwrap_or(false),
        };
        let (stages, depths) = (config.hidden_sizes.len(), config.depths.len());
        if stages == 0 || stages != depths {
            return Err(fields.error(format!("has {stages} `hidden_sizes` and {depths} `depths`; each stage has both")));
        }
        if let Some(at) = config.hidden_sizes.iter().position(|&size| size < REDUCTION) {
            let (name, narrow) = (fields.name("hidden_sizes"), config.hidden_sizes[at]);
            let reason = format!("`{name}[{at}]` is {narrow}; a bottleneck is {REDUCTION} times narrower");
            return Err(fields.error(reason));
        }
        Ok(config)
    }

    /// What the convolutions of an image of this side cost in f32, and how many parameters they have, each with the scale and
    /// shift of its normalization.
    pub fn image_cost(&self, side: usize) -> (Cost, u64) {
        let (mut cost, mut parameters) = (Cost::default(), 0);
        self.convolutions(side, |filters, side| {
            let Filters { outputs, inputs, kernel, stride, .. } = filters;
            let windows = side.div_ceil(stride).pow(2);
            cost += convolution::cost(filters, side * side, windows, Element::F32, Element::F32);
            parameters += (outputs * (inputs * kernel * kernel + 2)) as u64;
        });
        (cost, parameters)
    }

    /// Pixels of the last feature map of an image of this side.
    pub fn patches(&self, side: usize) -> usize {
        self.convolutions(side, |_, _| ()).pow(2)
    }

    /// Calls `f` with each convolution and the side of what goes into it; gives the side of the last map.
    fn convolutions(&self, side: usize, mut f: impl FnMut(Filters, usize)) -> usize {
        f(self.first(), side);
        let mut side = self.first_side(side);
        for Block { shortcut, parts: [reduce, spatial, expand], .. } in self.blocks() {
            shortcut.into_iter().chain([reduce, spatial]).for_each(|filters| f(filters, side));
            side = side.div_ceil(spatial.stride);
            f(expand, side);
        }
        side
    }

    /// The convolution of pixels.
    pub(super) fn first(&self) -> Filters {
        filters(self.embedding_size, 3, 7, 2)
    }

    /// Side of the first bottleneck's map, behind the first convolution and the maxima of its windows, for images of this side.
    pub(super) fn first_side(&self, side: usize) -> usize {
        side.div_ceil(2).div_ceil(2)
    }

    /// The bottlenecks, one after the other.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        let stages = self.hidden_sizes.iter().zip(&self.depths).enumerate();
        stages.flat_map(move |(stage, (&outputs, &depth))| {
            let before = if stage == 0 { self.embedding_size } else { self.hidden_sizes[stage - 1] };
            let first_stride = if stage > 0 || self.downsample_in_first_stage { 2 } else { 1 };
            (0..depth).map(move |layer| {
                let (inputs, stride) = if layer == 0 { (before, first_stride) } else { (outputs, 1) };
                let narrow = outputs / REDUCTION;
                Block {
                    name: format!("encoder.stages.{stage}.layers.{layer}"),
                    shortcut: (inputs != outputs || stride != 1).then(|| filters(outputs, inputs, 1, stride)),
                    parts: [
                        filters(narrow, inputs, 1, 1),
                        filters(narrow, narrow, 3, stride),
                        filters(outputs, narrow, 1, 1),
                    ],
                }
            })
        })
    }

    /// Sizes of what a step on images of this side computes: its blocks are the bottlenecks.
    pub fn shapes(&self, side: usize) -> Shapes {
        let mut side = self.first_side(side);
        let maps = self.blocks().map(|Block { parts: [reduce, spatial, expand], .. }| {
            let (input, inner) = (side * side * reduce.inputs, side * side * reduce.outputs);
            side = side.div_ceil(spatial.stride);
            Maps { input: input as u64, kept: (inner + side * side * (spatial.outputs + expand.outputs)) as u64 }
        });
        let maps: Vec<Maps> = maps.collect();
        let width = self.hidden_sizes.last().copied().unwrap_or(0);
        let vision = Blocks { layers: maps.len(), width, inner: 0 };
        Shapes { vision, patches: side * side, maps, ..Shapes::default() }
    }

    /// A size, by its name, that no encoder has which is trained.
    pub(super) fn absurd(&self) -> Option<(&'static str, usize)> {
        let widths = self.hidden_sizes.iter().map(|&size| ("hidden_sizes", size));
        let sizes = [("embedding_size", self.embedding_size)].into_iter().chain(widths);
        let layers = ("depths", self.depths.iter().fold(0usize, |sum, depth| sum.saturating_add(*depth)));
        sizes.into_iter().find(|(_, size)| *size > LARGEST).or((layers.1 > MOST_LAYERS).then_some(layers))
    }
}

/// A bottleneck: three convolutions and, where the sizes differ, one that goes past them.
pub(super) struct Block {
    /// What the names of its tensors begin with.
    pub name: String,
    pub shortcut: Option<Filters>,
    /// One that narrows, one over pixels beside each other, one that widens.
    pub parts: [Filters; 3],
}

fn filters(outputs: usize, inputs: usize, kernel: usize, stride: usize) -> Filters {
    Filters { outputs, inputs, kernel, stride, padding: kernel / 2 }
}
