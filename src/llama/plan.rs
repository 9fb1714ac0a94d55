//! How much memory a model takes, by its files' headers alone.

use super::checkpoint::Checkpoint;
use super::decoder::{activations, element};
use super::{LlamaConfig, Precision, Source, layout};
use crate::device::cuda::Arithmetic;
use crate::error::Result;

/// Bytes of a model, without any of it being read.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its sizes.
    pub config: LlamaConfig,
    /// What the weights of the blocks are kept in.
    pub precision: Precision,
    /// Bytes of all matrices.
    pub weights: u64,
    /// Bytes of the matrices that a new token reads.
    pub weights_per_token: u64,
    /// Bytes of keys and values of a token of a sequence.
    pub cache_per_token: u64,
    /// Bytes of activations of the longest pass.
    pub activations: u64,
}

impl Plan {
    /// Reads the headers of a model's files. `precision` is what weights would be converted to; `device` whether they would
    /// lie on a GPU.
    pub fn of(source: &Source, precision: Option<Precision>, device: bool) -> Result<Plan> {
        let checkpoint = Checkpoint::open(source, precision)?;
        let config = checkpoint.config().clone();
        let element = element(checkpoint.precision(), device.then(Arithmetic::default));
        let weights = layout::matrices(&config).map(|layer| checkpoint.matrix_bytes(&layer)).sum::<Result<u64>>()?;
        Ok(Plan {
            precision: checkpoint.precision(),
            weights,
            weights_per_token: checkpoint.bytes_per_token()?,
            cache_per_token: (2 * config.layers * config.kv_width() * element.size()) as u64,
            activations: activations(&config, checkpoint.precision(), element, device) as u64,
            config,
        })
    }

    /// Bytes with so many tokens in all sequences together.
    pub fn with_tokens(&self, tokens: u64) -> u64 {
        (self.weights + self.activations).saturating_add(self.cache_per_token.saturating_mul(tokens))
    }
}
