//! GGUF files of the tests: vocabularies, and models of tests/fixtures/llama as llama.cpp's converter writes them.

use std::fs;
use std::path::Path;

use fissfuse::llama::{LlamaConfig, RopeScaling};
use fissfuse::tensor::Shards;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::llama::draw;
use crate::support;
use crate::support::gguf::{File, Value};

pub fn fixture() -> Json {
    serde_json::from_slice(&fs::read(support::fixture("gguf/sentencepiece.json")).unwrap()).unwrap()
}

pub fn texts(list: &Json) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect()
}

/// Settings of a SentencePiece vocabulary.
pub fn by_scores(file: &mut File, fixture: &Json) {
    let numbers = |key: &str| fixture[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    file.set("tokenizer.ggml.model", Value::Text("llama".into()));
    file.set("tokenizer.ggml.tokens", Value::Texts(texts(&fixture["pieces"])));
    file.set("tokenizer.ggml.scores", Value::Floats(numbers("scores").into_iter().map(|x| x as f32).collect()));
    file.set("tokenizer.ggml.token_type", Value::Ints(numbers("types").into_iter().map(|x| x as i32).collect()));
    for (which, id) in [("unknown", 0), ("bos", 1), ("eos", 2)] {
        file.set(&format!("tokenizer.ggml.{which}_token_id"), Value::U32(id));
    }
}

/// Settings of a byte-level vocabulary: all bytes, and these merges.
pub fn by_merges(file: &mut File, pre: &str, merges: &[&str]) {
    // GPT-2 writes printable bytes as themselves and the others from U+0100 on.
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|byte| {
            let code = if printable(byte) { u32::from(byte) } else { next };
            next += u32::from(!printable(byte));
            char::from_u32(code).unwrap().to_string()
        })
        .collect();
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let mut kinds = vec![1; tokens.len()];
    for special in ["<|im_start|>", "<|im_end|>"] {
        tokens.push(special.into());
        kinds.push(3);
    }
    file.set("tokenizer.ggml.model", Value::Text("gpt2".into()));
    file.set("tokenizer.ggml.pre", Value::Text(pre.into()));
    file.set("tokenizer.ggml.eos_token_id", Value::U32(tokens.len() as u32 - 1));
    file.set("tokenizer.ggml.bos_token_id", Value::U32(tokens.len() as u32 - 2));
    file.set("tokenizer.ggml.tokens", Value::Texts(tokens));
    file.set("tokenizer.ggml.token_type", Value::Ints(kinds));
    file.set("tokenizer.ggml.merges", Value::Texts(merges.iter().map(|merge| merge.to_string()).collect()));
}

/// Rows of queries or keys as llama.cpp's converter writes them: `reshape(heads, 2, width / 2, columns).swapaxes(1, 2)`.
fn turned(values: &[f32], heads: usize, columns: usize) -> Vec<f32> {
    let half = values.len() / columns / heads / 2;
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for i in 0..half {
            for j in 0..2 {
                let row = head * 2 * half + j * half + i;
                out.extend(&values[row * columns..][..columns]);
            }
        }
    }
    out
}

/// A model of tests/fixtures/llama as a GGUF file, and the directory that it is from.
pub fn converted(name: &str) -> (TempDir, LlamaConfig, File) {
    let folder = draw(name);
    let (config, file) = of_directory(folder.path());
    (folder, config, file)
}

/// The model of a directory as a GGUF file, with a vocabulary of bytes.
pub fn of_directory(folder: &Path) -> (LlamaConfig, File) {
    let config = LlamaConfig::read(folder).unwrap();
    let shards = Shards::open(folder).unwrap();
    let mut file = File::default();
    let architecture = if config.qkv_bias { "qwen2" } else { "llama" };
    let key = |name: &str| format!("{architecture}.{name}");
    file.set("general.architecture", Value::Text(architecture.into()));
    for (name, size) in [
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("block_count", config.layers),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("context_length", config.context),
        ("rope.dimension_count", config.head_dim),
    ] {
        file.set(&key(name), Value::U32(size as u32));
    }
    file.set(&key("attention.layer_norm_rms_epsilon"), Value::F32(config.rms_norm_eps));
    file.set(&key("rope.freq_base"), Value::F32(config.rope.theta));
    if let RopeScaling::Linear { factor } = config.rope.scaling {
        file.set(&key("rope.scaling.type"), Value::Text("linear".into()));
        file.set(&key("rope.scaling.factor"), Value::F32(factor));
    }
    by_merges(&mut file, "smollm", &[]);
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers.", "blk."),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ];
    for tensor in shards.names() {
        let shape = shards.shape(tensor).unwrap().to_vec();
        let values = shards.tensor_of(tensor, &shape).unwrap().data().to_vec();
        // Of a Llama alone.
        let values = match tensor {
            _ if config.qkv_bias => values,
            _ if tensor.contains("q_proj") => turned(&values, config.heads, shape[1]),
            _ if tensor.contains("k_proj") => turned(&values, config.kv_heads, shape[1]),
            _ => values,
        };
        let theirs = names.iter().fold(tensor.to_string(), |name, (ours, theirs)| name.replace(ours, theirs));
        let dimensions: Vec<usize> = shape.into_iter().rev().collect();
        file.add_f32(&theirs, &dimensions, &values);
    }
    (config, file)
}
