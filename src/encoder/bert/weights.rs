//! BERT's weights as they are trained. A head for some task that a file has besides is not read, nor is the pooler.

use super::config::BertConfig;
use super::names::names;
use crate::autograd::Parameters;
use crate::encoder::loader::Loader;
use crate::encoder::trained::weights::ordered;
use crate::encoder::trained::{List, Parameter, Role, Tower, weights};
use crate::error::Result;
use crate::tensor::{Compute, Precision, Shards};

/// All parameters, those that decay first.
pub fn all(config: &BertConfig) -> Vec<Parameter> {
    let (names, width) = (names(config), config.hidden_size);
    let mut list = List::of(Tower::Text);
    list.add("embeddings.word_embeddings.weight", &[config.vocab_size, width], Role::Tokens);
    list.add("embeddings.position_embeddings.weight", &[config.max_position_embeddings, width], Role::Positions);
    if config.type_vocab_size > 0 {
        list.add("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, width], Role::Types);
    }
    list.norm("embeddings.LayerNorm", width);
    list.blocks(names.blocks, &names.block, config.num_hidden_layers, (width, config.intermediate_size));
    ordered(list.parameters)
}

/// Reads the parameters of a model's files, saved alone or with a head for some task.
pub fn read(shards: &Shards, config: &BertConfig) -> Result<Parameters> {
    let compute = Compute::from(Precision::F32);
    let loader = Loader::new(shards, &compute).under_if(names(config).part, "embeddings.word_embeddings.weight");
    weights::read(all(config), |parameter| match parameter.shape[..] {
        // Of a normalization or a bias.
        [width] => loader.of_norm(&parameter.name, width),
        _ => loader.tensor(&parameter.name, &parameter.shape),
    })
}
