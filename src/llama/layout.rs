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

/// The layer of a block, such as `model.layers.0.self_attn.q_proj`.
pub fn of_block(block: usize, part: &str) -> String {
    format!("model.layers.{block}.{part}")
}

/// Of the layers that take the same inputs as this one, the first.
pub fn first_of_same_inputs(layer: &str) -> String {
    let (block, part) = layer.rsplit_once('.').unwrap_or(("", layer));
    match part {
        "k_proj" | "v_proj" => format!("{block}.q_proj"),
        "up_proj" => format!("{block}.gate_proj"),
        _ => layer.to_string(),
    }
}

/// Of the layers that a device reads in turn, and so keeps in one type, the first: an MLP's gates and ups.
pub fn first_of_same_type(layer: &str) -> String {
    if layer.ends_with(".up_proj") { first_of_same_inputs(layer) } else { layer.to_string() }
}

fn of_blocks(config: &LlamaConfig, parts: &'static [&'static str]) -> impl Iterator<Item = String> {
    (0..config.layers).flat_map(|i| parts.iter().map(move |part| of_block(i, part)))
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

/// Matrices that multiply, in groups of one kind: those of the first eighth of the blocks, of the last and of the rest, and the
/// last layer.
pub fn groups(config: &LlamaConfig) -> Vec<Vec<String>> {
    let (blocks, edge) = (config.layers, config.layers.div_ceil(8));
    let starts = [0, edge.min(blocks), blocks.saturating_sub(edge).max(edge.min(blocks)), blocks];
    let parts = starts.windows(2).map(|ends| ends[0]..ends[1]).filter(|blocks| !blocks.is_empty());
    let of = |blocks: std::ops::Range<usize>| {
        BLOCK_MATRICES.iter().map(move |part| blocks.clone().map(|block| of_block(block, part)).collect())
    };
    let head = if config.tied { EMBEDDING } else { HEAD };
    parts.flat_map(of).chain([vec![head.to_string()]]).collect()
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
