//! FLOPs and parameters of a language model.

use crate::autograd::Cost;
use crate::llama::LlamaConfig;
use crate::ops::linear::stored;
use crate::ops::paged_attention::{self, Heads, Span};
use crate::ops::rms_norm;
use crate::tensor::{Element, Precision};

/// What a prompt costs in f32, as the decoder computes it: behind the last block's keys and values for the last token alone.
pub fn prompt_cost(config: &LlamaConfig, tokens: usize) -> Cost {
    let (width, inner, element) = (config.hidden_size, config.intermediate_size, Element::F32);
    let product = |rows, inputs, outputs| stored::cost(rows, (inputs, outputs), Precision::F32, element);
    let norm = |rows| rms_norm::cost(rows, width, element);
    let heads = Heads { queries: config.heads, kv: config.kv_heads, size: config.head_dim, element };
    let attention = paged_attention::cost(&heads, &[Span { start: 0, rows: tokens, position: 0 }]);
    let first = norm(tokens) + product(tokens, width, heads.width()) + attention;
    let rest = |rows| {
        let mlp = norm(rows) + product(rows, width, 2 * inner) + product(rows, inner, width);
        product(rows, config.query_width(), width) + mlp
    };
    let layers = config.layers as u64;
    let head = norm(1) + product(1, width, config.vocab_size);
    first * layers + rest(tokens) * (layers - 1) + rest(1) + head
}

/// Parameters of a decoder: table and head, which may be one, and of each block attention, a gated MLP and two norms.
pub fn parameters(config: &LlamaConfig) -> u64 {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let keys = config.kv_heads * config.head_dim;
    let block = 2 * width * config.query_width() + 2 * width * keys + 3 * width * inner + 2 * width;
    let tables = if config.tied { 1 } else { 2 };
    (tables * config.vocab_size * width + config.layers * block + width) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llama::Preset;

    #[test]
    fn parameters_are_those_of_the_published_models() {
        // transformers counts these of meta-llama/Llama-2-7b-hf and Llama-3.1-8B.
        assert_eq!(parameters(&Preset::SevenB.config()), 6_738_415_616);
        assert_eq!(parameters(&Preset::EightB.config()), 8_030_261_248);
    }
}
