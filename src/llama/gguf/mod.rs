//! A Llama in a GGUF file: its settings, names and tokenizer, as a Hugging Face directory would have them, and the way back.

mod export;
mod tokenizer;
mod vocabulary;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

pub use self::export::export;
pub use self::tokenizer::{settings as tokenizer_settings, tokenizer};
use super::checkpoint::Stored;
use super::config::Family;
use super::{GenerationConfig, LlamaConfig, Rope, RopeScaling, layout};
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::tensor::gguf::Gguf;
use crate::tensor::{Matrix, Precision, Tensor};

/// Divisors of the rotary frequencies, in files of Llama 3.1 and later.
const FREQUENCIES: &str = "rope_freqs.weight";

/// Divisors are kept in f32; those that are computed from the settings differ by rounding.
const SAME_DIVISOR: f32 = 1e-4;

/// Tokens that end a turn, in Llama 3's conversations and in ChatML's.
const TURNS: [&str; 2] = ["<|eot_id|>", "<|im_end|>"];

/// Names of a block's tensors: as Hugging Face has them, and as such a file does.
const OF_BLOCKS: [(&str, &str); 9] = [
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

/// The tensor of a layer, such as `model.layers.0.self_attn.q_proj`.
fn name(layer: &str) -> String {
    let of_block = |rest: &str| {
        let (number, part) = rest.split_once('.')?;
        let (part, kind) = part.strip_suffix(".bias").map_or((part, "weight"), |part| (part, "bias"));
        let (_, theirs) = OF_BLOCKS.iter().find(|(ours, _)| *ours == part)?;
        Some(format!("blk.{number}.{theirs}.{kind}"))
    };
    match layer {
        layout::EMBEDDING => "token_embd.weight".into(),
        layout::HEAD => "output.weight".into(),
        layout::NORM => "output_norm.weight".into(),
        _ => layer.strip_prefix("model.layers.").and_then(of_block).unwrap_or_else(|| layer.into()),
    }
}

/// The architecture. Mistral's files say `llama`.
fn family(file: &Gguf) -> Result<Family> {
    match file.text("general.architecture")? {
        Some("llama") => Ok(Family::Llama),
        Some("qwen2") => Ok(Family::Qwen2),
        found => {
            let found = found.map_or("no architecture".into(), |a| format!("the architecture `{}`", a.escape_debug()));
            Err(file.error(format!("has {found}; the decoder computes {}", Family::NAMES)))
        }
    }
}

/// Sizes and constants. Fails if the file holds another architecture, or something that the decoder does not compute.
pub fn config(file: &Gguf) -> Result<LlamaConfig> {
    let family = family(file)?;
    let key = |name: &str| format!("{}.{name}", family.name());
    let whole = |name: &str| file.whole(&key(name));
    if whole("expert_count")?.is_some_and(|experts| experts > 0) {
        return Err(file.error("is a mixture of experts, which the decoder does not compute; take a dense Llama"));
    }
    let mut entries = Map::new();
    for (theirs, ours) in [
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("block_count", "num_hidden_layers"),
        ("attention.head_count", "num_attention_heads"),
        ("context_length", "max_position_embeddings"),
    ] {
        let Some(value) = whole(theirs)? else { return Err(file.wrong(&key(theirs), "a size")) };
        entries.insert(ours.into(), value.into());
    }
    let epsilon = "attention.layer_norm_rms_epsilon";
    let Some(value) = file.number(&key(epsilon))? else { return Err(file.wrong(&key(epsilon), "a number above 0")) };
    entries.insert("rms_norm_eps".into(), value.into());
    for (theirs, ours) in [("attention.head_count_kv", "num_key_value_heads"), ("attention.key_length", "head_dim")] {
        if let Some(value) = whole(theirs)? {
            entries.insert(ours.into(), value.into());
        }
    }
    if let Some(window) = whole("attention.sliding_window")?.filter(|&window| window > 0) {
        entries["max_position_embeddings"] =
            entries["max_position_embeddings"].as_u64().unwrap_or(0).min(window).into();
    }
    if let Some(theta) = file.number(&key("rope.freq_base"))? {
        entries.insert("rope_theta".into(), theta.into());
    }
    let &[words, _] = file.shape(&name(layout::EMBEDDING))? else {
        return Err(file.tensor_error(&name(layout::EMBEDDING), "is no table of tokens"));
    };
    entries.insert("vocab_size".into(), words.into());
    entries.insert("tie_word_embeddings".into(), (!file.contains(&name(layout::HEAD))).into());
    if let Some(scaling) = scaling(file, family)? {
        entries.insert("rope_scaling".into(), scaling);
    }
    let mut config = LlamaConfig::of(&Fields::of(file.path(), entries), family)?;
    for width in ["rope.dimension_count", "attention.value_length"] {
        if whole(width)?.is_some_and(|found| found != config.head_dim as u64) {
            return Err(file.wrong(&key(width), &format!("{}, the width of a head", config.head_dim)));
        }
    }
    if file.contains(FREQUENCIES) {
        config.rope = divided(file, &config)?;
    }
    Ok(config)
}

/// Where answers end: the end of a text, of a turn and of a message. Files from before turns had a setting only have their
/// tokens.
pub fn generation(file: &Gguf) -> Result<GenerationConfig> {
    let mut end = Vec::new();
    for which in ["eos", "eot", "eom"] {
        let key = format!("tokenizer.ggml.{which}_token_id");
        if let Some(id) = file.whole(&key)? {
            end.push(u32::try_from(id).map_err(|_| file.wrong(&key, "a token's number"))?);
        }
    }
    let tokens = file.texts("tokenizer.ggml.tokens")?.unwrap_or_default();
    let turns = tokens.iter().zip(0u32..).filter(|(token, _)| TURNS.contains(*token));
    end.extend(turns.map(|(_, id)| id));
    end.sort_unstable();
    end.dedup();
    Ok(GenerationConfig { end })
}

/// How positions are stretched, as `config.json` says it.
fn scaling(file: &Gguf, family: Family) -> Result<Option<Value>> {
    let [kind, factor] = ["type", "factor"].map(|name| format!("{}.rope.scaling.{name}", family.name()));
    match file.text(&kind)? {
        None | Some("none") => Ok(None),
        Some("linear") => match file.number(&factor)? {
            Some(factor) => Ok(Some(json!({"rope_type": "linear", "factor": factor}))),
            None => Err(file.wrong(&factor, "a number above 0")),
        },
        Some(_) => Err(file.wrong(&kind, "`none` or `linear`, or divisors of the frequencies, as Llama 3.1 has them")),
    }
}

/// The rotary embedding whose frequencies are those of the settings over the divisors in the file: Llama 3.1's.
///
/// Of its four numbers three are the same in all models of the family; the fourth, the factor, is the largest divisor.
fn divided(file: &Gguf, config: &LlamaConfig) -> Result<Rope> {
    let divisors = file.vector(FREQUENCIES, config.head_dim / 2)?;
    let factor = divisors.data().iter().copied().fold(1.0, f32::max);
    let scaling = RopeScaling::Llama3 { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192.0 };
    let (plain, scaled) =
        (Rope { theta: config.rope.theta, scaling: RopeScaling::None }, Rope { theta: config.rope.theta, scaling });
    let all = plain.frequencies(config.head_dim).into_iter().zip(scaled.frequencies(config.head_dim));
    let same = all
        .zip(divisors.data())
        .all(|((plain, scaled), &divisor)| divisor > 0.0 && (plain / scaled - divisor).abs() <= SAME_DIVISOR * divisor);
    match same && config.rope.scaling == RopeScaling::None {
        true => Ok(scaled),
        false => Err(file.tensor_error(
            FREQUENCIES,
            "divides the rotary frequencies otherwise than Llama 3.1 does, which the decoder does not compute",
        )),
    }
}

/// The weights of a file whose names and shapes are the configuration's.
pub struct InGguf {
    file: Arc<Gguf>,
    family: Family,
    config: LlamaConfig,
}

impl InGguf {
    /// Fails if a tensor is missing, has another shape than the settings say, or is none that the decoder reads.
    pub fn open(file: &Arc<Gguf>, config: &LlamaConfig) -> Result<InGguf> {
        if config.layers > file.names().count() {
            let reason = format!("it has {} blocks by its settings, but not as many tensors", config.layers);
            return Err(file.error(reason));
        }
        let mut known = BTreeSet::from([FREQUENCIES.to_string()]);
        for layer in layout::matrices(config).chain(layout::vectors(config)) {
            let name = name(&layer);
            let vector = || vec![layout::vector_len(config, &layer)];
            let wanted = layout::matrix_shape(config, &layer).map_or_else(vector, |shape| shape.to_vec());
            let found = file.shape(&name)?;
            if found != wanted {
                return Err(
                    file.tensor_error(&name, format!("has shape {found:?}, the file's settings say {wanted:?}"))
                );
            }
            known.insert(name);
        }
        match file.names().find(|name| !known.contains(*name)) {
            None => Ok(InGguf { file: Arc::clone(file), family: family(file)?, config: config.clone() }),
            Some(name) => {
                let reason =
                    "is no tensor of a Llama as the file's settings describe it; the decoder would leave it out";
                Err(file.tensor_error(name, reason))
            }
        }
    }
}

impl Stored for InGguf {
    fn precision(&self, layer: &str) -> Result<Precision> {
        self.file.precision(&name(layer))
    }

    /// Rows of a Llama's queries and keys are put back into the order of Hugging Face's checkpoints: the file has them as the
    /// original Llama did, whose rotary embedding turns neighbours (2i, 2i + 1) where ours turns halves (i, i + half). Rows move as
    /// they are, whatever their numbers.
    fn matrix(&self, layer: &str) -> Result<Matrix> {
        let weight = self.file.matrix(&name(layer))?;
        let turned = layer.ends_with(".q_proj") || layer.ends_with(".k_proj");
        if !turned || self.family != Family::Llama {
            return Ok(weight);
        }
        let (width, half) = (self.config.head_dim, self.config.head_dim / 2);
        weight.reordered(|row| {
            let (head, within) = (row / width, row % width);
            head * width + within % half * 2 + within / half
        })
    }

    fn vector(&self, layer: &str) -> Result<Tensor> {
        self.file.vector(&name(layer), layout::vector_len(&self.config, layer))
    }

    fn error(&self, layer: &str, reason: String) -> Error {
        self.file.tensor_error(&name(layer), reason)
    }
}
