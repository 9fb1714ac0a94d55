//! Rates of a language model beside what the machine can do: memory bandwidth bounds decoding, products bound the prompt.

use std::ops::ControlFlow;

use serde::Serialize;

use crate::autograd::Cost;
use crate::device::cpu::read_bandwidth;
use crate::error::Result;
use crate::llama::{Generation, Llama, LlamaConfig, Sampling};
use crate::ops::linear::{bf16_ceiling, stored};
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

/// What was measured of a model on the CPU, each the best of some turns.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LlamaRates {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Prompt tokens per second.
    pub prefill: f64,
    /// New tokens per second, one after the other.
    pub decode: f64,
    /// Bytes of weights that each new token reads.
    pub bytes_per_token: u64,
    /// FLOPs of the prompt.
    pub prefill_flops: f64,
    /// Bytes per second of reading memory with all threads.
    pub bandwidth: f64,
    /// FLOPs per second of bf16 products on registers alone, where the processor has them.
    pub ceiling: Option<f64>,
}

impl LlamaRates {
    /// Measures prompts of `prompt` tokens and `new` tokens after them, in turn with the ceilings.
    pub fn measure(llama: &Llama, prompt: usize, new: usize, turns: usize) -> Result<LlamaRates> {
        let config = llama.config();
        let ids: Vec<u32> = (0..prompt as u32).map(|i| i * 37 % config.vocab_size as u32).collect();
        let mut rates = LlamaRates {
            prompt,
            prefill: 0.0,
            decode: 0.0,
            bytes_per_token: llama.bytes_per_token(),
            prefill_flops: prompt_cost(config, prompt).forward as f64,
            bandwidth: 0.0,
            ceiling: None,
        };
        let how = Generation { sampling: Sampling::GREEDY, max_new_tokens: new.max(2) };
        for _ in 0..turns {
            rates.bandwidth = rates.bandwidth.max(read_bandwidth()?);
            rates.ceiling = bf16_ceiling(1).map(|rate| rate.max(rates.ceiling.unwrap_or(0.0)));
            let (_, spent) = llama.generate(None, &[&ids], how, |_, _| ControlFlow::Continue(()))?;
            rates.prefill = rates.prefill.max(prompt as f64 / spent.prefill.as_secs_f64());
            // From a short prompt, so that the weights are nearly all that is read.
            let (_, spent) = llama.generate(None, &[&ids[..1]], how, |_, _| ControlFlow::Continue(()))?;
            rates.decode = rates.decode.max(spent.decoded_tokens as f64 / spent.decode.as_secs_f64());
        }
        Ok(rates)
    }
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
