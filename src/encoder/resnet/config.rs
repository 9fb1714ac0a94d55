//! `config.json` of a ResNet. Defaults are those of transformers' ResNetConfig.

use std::path::Path;

use serde_json::json;

use super::REDUCTION;
use crate::error::Result;
use crate::fields::Fields;

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
}
