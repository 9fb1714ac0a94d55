//! `config.json` of a BERT or a DistilBERT. Defaults are those of transformers' BertConfig and DistilBertConfig, since files leave
//! them out.

use std::path::Path;

use serde_json::json;

use crate::autograd::Cost;
use crate::encoder::trained::{Blocks, LARGEST, MOST_LAYERS, Shapes};
use crate::encoder::transformer::{Sizes, block_cost, block_parameters};
use crate::error::Result;
use crate::fields::Fields;
use crate::tensor::Element;

/// Sizes of the model.
#[derive(Clone, Debug)]
pub struct BertConfig {
    /// Whether it is a DistilBERT (Sanh et al., 2019): the same layers under other names, without types of tokens.
    pub distilled: bool,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f32,
}

impl Default for BertConfig {
    fn default() -> BertConfig {
        BertConfig {
            distilled: false,
            vocab_size: 30522,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-12,
        }
    }
}

impl BertConfig {
    /// Reads and checks the `config.json` of a Hugging Face directory.
    pub fn read(folder: &Path) -> Result<BertConfig> {
        let fields = Fields::read(&folder.join("config.json"))?;
        fields.only("pruned_heads", &[json!({})])?;
        fields.only("quantization_config", &[])?;
        let config = match fields.text("model_type")? {
            Some("distilbert") => BertConfig::distilled(&fields),
            _ => BertConfig::bert(&fields),
        }?;
        config.sizes().map_err(|e| fields.error(e.to_string()))?;
        Ok(config)
    }

    fn bert(fields: &Fields) -> Result<BertConfig> {
        let default = BertConfig::default();
        // Positions by distance, tokens that see only those before them.
        fields.only("position_embedding_type", &[json!("absolute")])?;
        fields.only("is_decoder", &[json!(false)])?;
        fields.only("add_cross_attention", &[json!(false)])?;
        Ok(BertConfig {
            distilled: false,
            vocab_size: fields.positive("vocab_size", default.vocab_size)?,
            hidden_size: fields.positive("hidden_size", default.hidden_size)?,
            intermediate_size: fields.positive("intermediate_size", default.intermediate_size)?,
            num_hidden_layers: fields.or(fields.size("num_hidden_layers"), default.num_hidden_layers)?,
            num_attention_heads: fields.positive("num_attention_heads", default.num_attention_heads)?,
            max_position_embeddings: fields.positive("max_position_embeddings", default.max_position_embeddings)?,
            type_vocab_size: fields.positive("type_vocab_size", default.type_vocab_size)?,
            hidden_act: fields.text("hidden_act")?.map_or(default.hidden_act, String::from),
            layer_norm_eps: fields.or(fields.above_zero("layer_norm_eps"), default.layer_norm_eps)?,
        })
    }

    fn distilled(fields: &Fields) -> Result<BertConfig> {
        let default = BertConfig { num_hidden_layers: 6, ..BertConfig::default() };
        Ok(BertConfig {
            distilled: true,
            vocab_size: fields.positive("vocab_size", default.vocab_size)?,
            hidden_size: fields.positive("dim", default.hidden_size)?,
            intermediate_size: fields.positive("hidden_dim", default.intermediate_size)?,
            num_hidden_layers: fields.or(fields.size("n_layers"), default.num_hidden_layers)?,
            num_attention_heads: fields.positive("n_heads", default.num_attention_heads)?,
            max_position_embeddings: fields.positive("max_position_embeddings", default.max_position_embeddings)?,
            type_vocab_size: 0,
            hidden_act: fields.text("activation")?.map_or(default.hidden_act, String::from),
            layer_norm_eps: default.layer_norm_eps,
        })
    }

    /// What the products of a text of so many tokens cost in f32.
    pub fn text_cost(&self, tokens: usize) -> Result<Cost> {
        Ok(block_cost(&self.sizes()?, &[tokens], Element::F32) * self.num_hidden_layers as u64)
    }

    /// Parameters, without the pooler, which is not read.
    pub fn parameters(&self) -> u64 {
        let width = self.hidden_size as u64;
        let embeddings = (self.vocab_size + self.max_position_embeddings + self.type_vocab_size) as u64;
        // Embeddings and their normalization.
        embeddings * width
            + 2 * width
            + self.num_hidden_layers as u64 * block_parameters(self.hidden_size, self.intermediate_size)
    }

    /// Sizes of its blocks.
    pub fn shapes(&self) -> Shapes {
        let (layers, width, inner) = (self.num_hidden_layers, self.hidden_size, self.intermediate_size);
        Shapes { text: Blocks { layers, width, inner }, ..Shapes::default() }
    }

    /// A size, by its name, that no encoder has which is trained.
    pub(super) fn absurd(&self) -> Option<(&'static str, usize)> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        let layers = ("num_hidden_layers", self.num_hidden_layers);
        sizes.into_iter().find(|(_, size)| *size > LARGEST).or((layers.1 > MOST_LAYERS).then_some(layers))
    }

    pub(super) fn sizes(&self) -> Result<Sizes> {
        let BertConfig { hidden_size, intermediate_size, num_attention_heads, layer_norm_eps, .. } = *self;
        Sizes::new(hidden_size, intermediate_size, num_attention_heads, layer_norm_eps, &self.hidden_act)
    }
}
