//! `config.json` of a BERT model. Defaults are those of transformers' BertConfig, since files leave them out.

use std::path::Path;

use serde::Deserialize;

use crate::encoder::transformer::Sizes;
use crate::error::{Error, Result};
use crate::files;

/// Sizes of the model.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f32,
    /// Older configurations name it.
    pub position_embedding_type: String,
}

impl Default for BertConfig {
    fn default() -> BertConfig {
        BertConfig {
            vocab_size: 30522,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-12,
            position_embedding_type: "absolute".into(),
        }
    }
}

impl BertConfig {
    /// Reads and checks the `config.json` of a Hugging Face directory.
    pub fn read(folder: &Path) -> Result<BertConfig> {
        let path = folder.join("config.json");
        let config: BertConfig = serde_json::from_str(&files::read_text(&path)?)
            .map_err(|e| Error::file(&path, format!("is no configuration of BERT: {e}")))?;
        if [config.vocab_size, config.max_position_embeddings, config.type_vocab_size].contains(&0) {
            return Err(Error::file(&path, "has a size that makes no sense"));
        }
        if config.position_embedding_type != "absolute" {
            let found = &config.position_embedding_type;
            return Err(Error::file(&path, format!("has positions of type `{found}`; `absolute` is supported")));
        }
        config.sizes().map_err(|e| Error::file(&path, e.to_string()))?;
        Ok(config)
    }

    pub(super) fn sizes(&self) -> Result<Sizes> {
        let BertConfig { hidden_size, intermediate_size, num_attention_heads, layer_norm_eps, .. } = *self;
        Sizes::new(hidden_size, intermediate_size, num_attention_heads, layer_norm_eps, &self.hidden_act)
    }
}
