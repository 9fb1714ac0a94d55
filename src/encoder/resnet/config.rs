//! `config.json` of a ResNet. Defaults are those of transformers' ResNetConfig.

use std::path::Path;

use serde_json::json;

use super::REDUCTION;
use crate::autograd::Cost;
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
        if let Some(narrow) = config.hidden_sizes.iter().find(|&&size| size < REDUCTION) {
            return Err(
                fields.error(format!("`hidden_sizes` has {narrow}; a bottleneck is {REDUCTION} times narrower"))
            );
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
        let of = |outputs, inputs, kernel, stride| Filters { outputs, inputs, kernel, stride, padding: kernel / 2 };
        f(of(self.embedding_size, 3, 7, 2), side);
        let (mut side, mut inputs) = (side.div_ceil(2).div_ceil(2), self.embedding_size);
        for (stage, (&outputs, &depth)) in self.hidden_sizes.iter().zip(&self.depths).enumerate() {
            for layer in 0..depth {
                let (stride, narrow) = (self.stride(stage, layer), outputs / REDUCTION);
                if inputs != outputs || stride != 1 {
                    f(of(outputs, inputs, 1, stride), side);
                }
                f(of(narrow, inputs, 1, 1), side);
                f(of(narrow, narrow, 3, stride), side);
                (inputs, side) = (outputs, side.div_ceil(stride));
                f(of(outputs, narrow, 1, 1), side);
            }
        }
        side
    }

    /// By how much a layer of a stage strides.
    pub(super) fn stride(&self, stage: usize, layer: usize) -> usize {
        if layer == 0 && (stage > 0 || self.downsample_in_first_stage) { 2 } else { 1 }
    }
}
