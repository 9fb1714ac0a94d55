//! A Llama with random weights, written as a Hugging Face directory: for tests, benchmarks and the demo, where none can be
//! shipped. What it writes means nothing.

use std::collections::HashMap;
use std::path::Path;

use serde_json::json;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, NormalizerWrapper, TokenizerBuilder};

use super::shards::{self, Planned, Stored};
use super::{LlamaConfig, Rope, RopeScaling, layout};
use crate::device::cpu::simd;
use crate::error::{Error, Result};
use crate::files;
use crate::random::{LANES, philox_lanes};
use crate::tensor::{Matrix, Precision, Values};
use crate::tokenizer::{failed, learned};

/// Last word of the counters that weights are drawn at; part of their definition.
const WEIGHTS: u32 = 7;

const START: &str = "<s>";
const END: &str = "</s>";

/// Llama 2's chat format without its system prompt.
const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\
    {% if message['role'] == 'user' %}[INST] {{ message['content'].strip() }} [/INST]\
    {% elif message['role'] == 'assistant' %} {{ message['content'].strip() }} {{ eos_token }}\
    {% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}";

/// Sizes of well-known models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// Two layers of width 128 with grouped-query attention, for tests.
    Tiny,
    /// TinyLlama-1.1B: 22 layers of width 2048, grouped-query attention.
    #[value(name = "1b")]
    OneB,
    /// Llama-2-7B: 32 layers of width 4096, multi-head attention.
    #[value(name = "7b")]
    SevenB,
    /// Llama-3.1-8B: 32 layers of width 4096, grouped-query attention, scaled rotary frequencies, 128,256 tokens.
    #[value(name = "8b")]
    EightB,
}

impl Preset {
    /// Its configuration.
    pub fn config(self) -> LlamaConfig {
        let of = |vocab_size, hidden_size, intermediate_size, layers, heads, kv_heads, context| LlamaConfig {
            vocab_size,
            hidden_size,
            intermediate_size,
            layers,
            heads,
            kv_heads,
            head_dim: hidden_size / heads,
            context,
            rms_norm_eps: 1e-5,
            tied: false,
            qkv_bias: false,
            rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
            quantized: None,
        };
        match self {
            Preset::Tiny => of(512, 128, 256, 2, 4, 2, 2048),
            Preset::OneB => of(32_000, 2048, 5632, 22, 32, 4, 2048),
            Preset::SevenB => of(32_000, 4096, 11_008, 32, 32, 32, 4096),
            Preset::EightB => {
                let scaling = RopeScaling::Llama3 {
                    factor: 8.0,
                    low_freq_factor: 1.0,
                    high_freq_factor: 4.0,
                    original_context: 8192.0,
                };
                let rope = Rope { theta: 500_000.0, scaling };
                LlamaConfig { rope, ..of(128_256, 4096, 14_336, 32, 32, 8, 131_072) }
            }
        }
    }
}

/// Writes the directory, whole or not at all, with weights in f32, f16 or bf16. The tokenizer learns its words from `texts`;
/// it has as many as they yield, up to the vocabulary's size. Gives the number of weights.
pub fn write_random<'a>(
    folder: &Path,
    config: &LlamaConfig,
    precision: Precision,
    seed: u64,
    texts: impl Iterator<Item = &'a str> + Send,
) -> Result<u64> {
    if precision.bits().is_some() {
        return Err(Error::invalid(
            "random weights are written as f32, f16 or bf16; `fissfuse llm quantize` packs them",
        ));
    }
    files::expect_room_for(folder, config.matrix_parameters().saturating_mul(bytes_of(precision)))?;
    files::write_folder_whole(folder, |folder| write_files(folder, config, precision, seed, texts))
}

/// Bytes of a weight that is not packed.
fn bytes_of(precision: Precision) -> u64 {
    if precision == Precision::F32 { 4 } else { 2 }
}

fn write_files<'a>(
    folder: &Path,
    config: &LlamaConfig,
    precision: Precision,
    seed: u64,
    texts: impl Iterator<Item = &'a str> + Send,
) -> Result<u64> {
    let tokenizer = train_tokenizer(texts, config.vocab_size)?;
    let write = |name: &str, text: String| files::write_whole(&folder.join(name), |out| writeln!(out, "{text}"));
    write("tokenizer.json", tokenizer)?;
    let settings = json!({"bos_token": START, "eos_token": END, "tokenizer_class": "PreTrainedTokenizerFast"});
    write("tokenizer_config.json", format!("{settings:#}"))?;
    write("chat_template.jinja", TEMPLATE.into())?;
    let count = write_weights(folder, config, precision, seed)?;
    let mut value = config.to_json();
    (value["bos_token_id"], value["eos_token_id"]) = (json!(0), json!(1));
    write("generation_config.json", format!("{:#}", json!({"bos_token_id": 0, "eos_token_id": 1})))?;
    write("config.json", format!("{value:#}"))?;
    Ok(count)
}

/// Writes the weights alone: uniform values by Philox, so that any other program can draw the same
/// (tests/fixtures/llama/make.py does). Tensor number t, in the order of [`layout::matrices`] and [`layout::vectors`], takes the
/// numbers of key `seed` at the counters (block, 0, t, 7), four at a time; a matrix (outputs, inputs) scales them to a
/// variance of 1 / inputs, the embedding to 1; gains lie within 0.1 of 1, biases of 0.
fn write_weights(folder: &Path, config: &LlamaConfig, precision: Precision, seed: u64) -> Result<u64> {
    let size = bytes_of(precision);
    let matrices: Vec<String> = layout::matrices(config).collect();
    let names: Vec<String> = matrices.iter().cloned().chain(layout::vectors(config)).collect();
    let shape = |layer: &str| match layout::matrix_shape(config, layer) {
        Some(shape) => shape.to_vec(),
        None => vec![layout::vector_len(config, layer)],
    };
    let planned: Vec<Planned> = names
        .iter()
        .map(|layer| Planned { layer: layer.clone(), bytes: shape(layer).iter().product::<usize>() as u64 * size })
        .collect();
    let numbers: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
    shards::write(folder, &planned, |layer| {
        let number = numbers.get(layer).copied().unwrap_or(0);
        let shape = shape(layer);
        let mut values = uniform(seed, number, shape.iter().product());
        let scale = match shape[..] {
            [_, _] if layer == layout::EMBEDDING => 3f32.sqrt(),
            [_, inputs] => (3.0 / inputs as f32).sqrt(),
            _ => 0.1,
        };
        let offset = if shape.len() == 1 && !layer.ends_with(".bias") { 1.0 } else { 0.0 };
        values.iter_mut().for_each(|x| *x = *x * scale + offset);
        let (rows, columns) = (shape[0], shape.get(1).copied().unwrap_or(1));
        let values = Matrix::new(rows, columns, Values::F32(values.into()))?.to(precision)?.values().clone();
        Ok(vec![Stored { name: layout::tensor(layer), shape, values }])
    })?;
    Ok(planned.iter().map(|planned| planned.bytes / size).sum())
}

/// Numbers in [-1, 1), multiples of 2^-23.
fn uniform(seed: u64, tensor: u32, len: usize) -> Vec<f32> {
    use rayon::prelude::*;
    let mut out = vec![0.0; len];
    out.par_chunks_mut(4 * LANES).enumerate().for_each(|(chunk, out)| {
        let drawn = simd!(philox_lanes(seed, (chunk * LANES) as u64, [tensor, WEIGHTS]));
        for (i, out) in out.iter_mut().enumerate() {
            *out = (drawn[i % 4][i / 4] >> 8) as f32 / (1 << 23) as f32 - 1.0;
        }
    });
    out
}

/// `tokenizer.json` of a byte-level BPE, which can write any text.
fn train_tokenizer<'a>(texts: impl Iterator<Item = &'a str> + Send, vocabulary: usize) -> Result<String> {
    let model = BPE::builder().build().map_err(|e| failed(&e))?;
    let template = TemplateProcessing::builder()
        .try_single(format!("{START} $A"))
        .map_err(|e| failed(&e))?
        .special_tokens(vec![(START, 0)])
        .build()
        .map_err(|e| failed(&e))?;
    let bytes = ByteLevel::new(false, true, true);
    let tokenizer = TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(None::<NormalizerWrapper>)
        .with_pre_tokenizer(Some(bytes))
        .with_post_processor(Some(template))
        .with_decoder(Some(bytes))
        .build()
        .map_err(|e| failed(&e))?;
    let special = [START, END].map(|token| AddedToken::from(token, true)).to_vec();
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(vocabulary)
        .special_tokens(special)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build();
    let tokenizer = learned(tokenizer, trainer, texts.map(str::to_string).collect())?;
    tokenizer.to_string(false).map_err(|e| failed(&e))
}
