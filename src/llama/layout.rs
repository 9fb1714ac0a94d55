//! Names and shapes of a Llama's tensors, as Hugging Face writes them.

use super::LlamaConfig;

/// The embedding of tokens.
pub const EMBEDDING: &str = "model.embed_tokens";
/// The last layer.
pub const HEAD: &str = "lm_head";
/// The last norm.
pub const NORM: &str = "model.norm";

const BLOCK_MATRICES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];
const BLOCK_NORMS: [&str; 2] = ["input_layernorm", "post_attention_layernorm"];
const BLOCK_BIASES: [&str; 3] = ["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"];

fn of_blocks(config: &LlamaConfig, parts: &'static [&'static str]) -> impl Iterator<Item = String> {
    (0..config.layers).flat_map(|i| parts.iter().map(move |part| format!("model.layers.{i}.{part}")))
}

/// Layers that have a matrix; each is `<layer>.weight` in the files.
pub fn matrices(config: &LlamaConfig) -> impl Iterator<Item = String> {
    let head = if config.tied { None } else { Some(HEAD.to_string()) };
    [EMBEDDING.to_string()].into_iter().chain(of_blocks(config, &BLOCK_MATRICES)).chain(head)
}

/// Layers that have a vector of gains, and the biases that the model has.
pub fn vectors(config: &LlamaConfig) -> impl Iterator<Item = String> {
    let biases: &[_] = if config.qkv_bias { &BLOCK_BIASES } else { &[] };
    of_blocks(config, &BLOCK_NORMS).chain([NORM.to_string()]).chain(of_blocks(config, biases))
}

/// The tensor of a layer: its weights, unless the name is that of a bias.
pub fn tensor(layer: &str) -> String {
    if layer.ends_with(".bias") { layer.to_string() } else { format!("{layer}.weight") }
}

/// Length of a vector of [`vectors`].
pub fn vector_len(config: &LlamaConfig, layer: &str) -> usize {
    let outputs = |of: &str| matrix_shape(config, of).map_or(0, |[outputs, _]| outputs);
    layer.strip_suffix(".bias").map_or(config.hidden_size, outputs)
}

/// Shape (outputs, inputs) of a layer's matrix.
pub fn matrix_shape(config: &LlamaConfig, layer: &str) -> Option<[usize; 2]> {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    match layer.rsplit('.').next()? {
        "embed_tokens" | "lm_head" => Some([config.vocab_size, width]),
        "q_proj" => Some([config.query_width(), width]),
        "k_proj" | "v_proj" => Some([config.kv_width(), width]),
        "o_proj" => Some([width, config.query_width()]),
        "gate_proj" | "up_proj" => Some([inner, width]),
        "down_proj" => Some([width, inner]),
        _ => None,
    }
}

/// Where the scales of a quantized matrix stand.
pub fn scale_name(layer: &str) -> String {
    format!("{layer}.weight_scale")
}
