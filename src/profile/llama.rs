//! Rates of a language model beside what the machine can do: memory bandwidth bounds decoding, products bound the prompt.

use std::ops::ControlFlow;

use serde::Serialize;

use crate::device::cpu::read_bandwidth;
use crate::error::Result;
use crate::llama::{Generation, Llama, LlamaConfig, Sampling};
use crate::ops::linear::bf16_ceiling;

/// FLOPs of a prompt's matrix products. What stands behind the last block's keys and values is computed for the last token
/// alone.
pub fn prompt_flops(config: &LlamaConfig, tokens: usize) -> f64 {
    let width = config.hidden_size;
    let qkv = width * (config.query_width() + 2 * config.kv_width());
    let rest = width * (config.query_width() + 3 * config.intermediate_size);
    let of_each = config.layers * qkv + (config.layers - 1) * rest;
    2.0 * (tokens as f64 * of_each as f64 + (rest + width * config.vocab_size) as f64)
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
    /// FLOPs of the prompt's matrix products.
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
            prefill_flops: prompt_flops(config, prompt),
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
