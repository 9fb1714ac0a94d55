//! `config.json` of a ResNet. Defaults are those of transformers' ResNetConfig.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::files;

/// Sizes of the model.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ResNetConfig {
    pub num_channels: usize,
    pub embedding_size: usize,
    pub hidden_sizes: Vec<usize>,
    pub depths: Vec<usize>,
    pub layer_type: String,
    pub hidden_act: String,
    pub downsample_in_first_stage: bool,
    pub downsample_in_bottleneck: bool,
}

impl Default for ResNetConfig {
    fn default() -> ResNetConfig {
        ResNetConfig {
            num_channels: 3,
            embedding_size: 64,
            hidden_sizes: vec![256, 512, 1024, 2048],
            depths: vec![3, 4, 6, 3],
            layer_type: "bottleneck".into(),
            hidden_act: "relu".into(),
            downsample_in_first_stage: false,
            downsample_in_bottleneck: false,
        }
    }
}

impl ResNetConfig {
    /// Reads and checks the `config.json` of a Hugging Face directory.
    pub fn read(folder: &Path) -> Result<ResNetConfig> {
        let path = folder.join("config.json");
        let config: ResNetConfig = serde_json::from_str(&files::read_text(&path)?)
            .map_err(|e| Error::file(&path, format!("is no configuration of a ResNet: {e}")))?;
        let sizes = [&config.hidden_sizes[..], &config.depths].concat();
        let stages = config.hidden_sizes.len();
        if sizes.contains(&0) || stages == 0 || stages != config.depths.len() || config.embedding_size == 0 {
            return Err(Error::file(&path, "has a size that makes no sense"));
        }
        if config.layer_type != "bottleneck" || config.hidden_act != "relu" || config.num_channels != 3 {
            let ResNetConfig { layer_type, hidden_act, num_channels, .. } = config;
            let found = format!("layers `{layer_type}` with `{hidden_act}` on {num_channels} channels");
            return Err(Error::file(&path, format!("has {found}; `bottleneck` with `relu` on 3 is supported")));
        }
        if config.downsample_in_bottleneck {
            let reason = "has `downsample_in_bottleneck`, ResNet's first version; the second (v1.5) is supported";
            return Err(Error::file(&path, reason));
        }
        Ok(config)
    }
}
