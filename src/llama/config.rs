//! `config.json` of a Llama: sizes, rotary embedding, tied embeddings. Whatever this decoder does not compute is refused.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::files;

/// Sizes and constants of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Token numbers.
    pub vocab_size: usize,
    /// Width of a token's state.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads (grouped-query attention, GQA).
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// The longest context that the model was made for, in tokens.
    pub context: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Whether the last layer is the embedding's matrix.
    pub tied: bool,
    /// Rotary position embedding.
    pub rope: Rope,
    /// How `fissfuse llm quantize` packed the matrices, if it did.
    pub quantized: Option<QuantizedConfig>,
}

/// Rotary position embedding: base and how frequencies are stretched for longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f32,
    /// Change of the frequencies.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are changed for contexts longer than those of pretraining.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All divided by a factor.
    Linear { factor: f32 },
    /// Llama 3.1: low frequencies divided by a factor, high ones kept, those between blended.
    Llama3 { factor: f32, low_freq_factor: f32, high_freq_factor: f32, original_context: f32 },
}

/// The entry that `fissfuse llm quantize` leaves in `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct QuantizedConfig {
    /// Bits of a weight of the blocks: 8 or 4.
    pub bits: usize,
}

/// What `quant_method` says in directories that `fissfuse llm quantize` wrote.
pub(super) const QUANT_METHOD: &str = "fissfuse";

#[derive(Deserialize)]
struct Raw {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "context")]
    max_position_embeddings: usize,
    #[serde(default = "eps")]
    rms_norm_eps: f32,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    rope_theta: Option<f32>,
    rope_scaling: Option<Map<String, Value>>,
    rope_parameters: Option<Map<String, Value>>,
    quantization_config: Option<Map<String, Value>>,
}

fn context() -> usize {
    2048
}

fn eps() -> f32 {
    1e-6
}

fn silu() -> String {
    "silu".into()
}

impl LlamaConfig {
    /// Reads and checks the `config.json` of a Hugging Face directory.
    ///
    /// Fails if it is missing, is no JSON, describes another architecture, or asks for something that this decoder does
    /// not compute; the error names it and says what is supported.
    pub fn read(folder: &Path) -> Result<LlamaConfig> {
        let path = folder.join("config.json");
        if !path.exists() {
            return Err(Error::file(folder, "has no config.json; give the directory of a Hugging Face model"));
        }
        let value: Value = serde_json::from_str(&files::read_text(&path)?)
            .map_err(|e| Error::file(&path, format!("is no JSON: {e}")))?;
        let model_type = value.get("model_type").and_then(Value::as_str);
        if model_type != Some("llama") {
            let found = model_type.map_or("no model_type".into(), |m| format!("model_type `{m}`"));
            let reason = format!("has {found}; the decoder computes `llama` (Llama 2 and 3, TinyLlama and their kin)");
            return Err(Error::file(&path, reason));
        }
        let raw: Raw = serde_json::from_value(value)
            .map_err(|e| Error::file(&path, format!("is no configuration of a Llama: {e}")))?;
        LlamaConfig::checked(raw).map_err(|reason| Error::file(&path, reason))
    }

    fn checked(raw: Raw) -> Result<LlamaConfig, String> {
        let (heads, kv_heads) = (raw.num_attention_heads, raw.num_key_value_heads.unwrap_or(raw.num_attention_heads));
        let sizes = [raw.vocab_size, raw.hidden_size, raw.intermediate_size, raw.num_hidden_layers, heads, kv_heads];
        if sizes.contains(&0) || raw.max_position_embeddings == 0 {
            return Err("has a size of 0".into());
        }
        if sizes.iter().any(|&size| size > 1 << 30) || heads > 1 << 16 || raw.head_dim.is_some_and(|d| d > 1 << 16) {
            return Err("has a size that makes no sense".into());
        }
        if raw.head_dim.is_none() && !raw.hidden_size.is_multiple_of(heads) {
            return Err(format!("{heads} attention heads do not divide hidden_size {}", raw.hidden_size));
        }
        let head_dim = raw.head_dim.unwrap_or(raw.hidden_size / heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(format!("head_dim is {head_dim}; rotary embedding needs an even one"));
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!("{kv_heads} key and value heads do not divide {heads} attention heads"));
        }
        if raw.hidden_act != "silu" {
            return Err(format!("hidden_act `{}` is not supported, `silu` is", raw.hidden_act));
        }
        if raw.attention_bias || raw.mlp_bias {
            return Err("asks for biases (attention_bias or mlp_bias), which the decoder does not compute".into());
        }
        Ok(LlamaConfig {
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            layers: raw.num_hidden_layers,
            heads,
            kv_heads,
            head_dim,
            context: raw.max_position_embeddings,
            rms_norm_eps: raw.rms_norm_eps,
            tied: raw.tie_word_embeddings,
            rope: Rope::checked(&raw)?,
            quantized: quantized(raw.quantization_config)?,
        })
    }

    /// The `config.json` that transformers reads.
    pub(super) fn to_json(&self) -> Value {
        let mut value = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size, "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "max_position_embeddings": self.context, "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tied, "hidden_act": "silu", "rope_theta": self.rope.theta,
        });
        match self.rope.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => value["rope_scaling"] = json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                value["rope_scaling"] = json!({
                    "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                    "high_freq_factor": high_freq_factor,
                    "original_max_position_embeddings": original_context as u64,
                });
            }
        }
        value
    }

    /// Width of all query heads.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads, and of all value heads.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Numbers in all matrices that multiply each token's state: those of the blocks and the last layer.
    pub fn matrix_parameters(&self) -> u64 {
        let attention = self.hidden_size * (2 * self.query_width() + 2 * self.kv_width());
        let mlp = 3 * self.hidden_size * self.intermediate_size;
        (self.layers * (attention + mlp) + self.vocab_size * self.hidden_size) as u64
    }
}

fn quantized(entry: Option<Map<String, Value>>) -> Result<Option<QuantizedConfig>, String> {
    let Some(entry) = entry else { return Ok(None) };
    let method = entry.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
    if method != QUANT_METHOD {
        return Err(format!(
            "is quantized by `{method}`; take the model's f16, bf16 or f32 weights, which `fissfuse llm quantize` packs"
        ));
    }
    let found: QuantizedConfig =
        serde_json::from_value(Value::Object(entry)).map_err(|e| format!("quantization_config: {e}"))?;
    match found.bits {
        4 | 8 => Ok(Some(found)),
        bits => Err(format!("quantization_config: {bits} bits; this version reads 8 and 4")),
    }
}

impl Rope {
    /// From `rope_theta` and `rope_scaling`, or from `rope_parameters`, where transformers 5 keeps both.
    fn checked(raw: &Raw) -> Result<Rope, String> {
        let settings = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
        let number = |name: &str| settings.and_then(|s| s.get(name)).and_then(Value::as_f64).map(|x| x as f32);
        let needed = |name: &str| match number(name) {
            Some(value) if value > 0.0 && value.is_finite() => Ok(value),
            _ => Err(format!("rope scaling lacks a positive `{name}`")),
        };
        let theta = number("rope_theta").or(raw.rope_theta).unwrap_or(10_000.0);
        if !(theta > 0.0 && theta.is_finite()) {
            return Err(format!("rope_theta is {theta}"));
        }
        let text = |name: &str| settings.and_then(|s| s.get(name)).and_then(Value::as_str);
        let scaling = match text("rope_type").or(text("type")) {
            None | Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: needed("factor")? },
            Some("llama3") => RopeScaling::Llama3 {
                factor: needed("factor")?,
                low_freq_factor: needed("low_freq_factor")?,
                high_freq_factor: needed("high_freq_factor")?,
                original_context: needed("original_max_position_embeddings")?,
            },
            Some(other) => {
                return Err(format!("rope type `{other}` is not supported; `default`, `linear` and `llama3` are"));
            }
        };
        Ok(Rope { theta, scaling })
    }

    /// The angle, in radians per position, of each pair of a head's dimensions (head_dim / 2).
    ///
    /// Pair i is dimensions i and i + head_dim / 2, as in Hugging Face checkpoints, whose query and key weights are
    /// permuted for it; the original Llama files pair 2i with 2i + 1.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let base = |i: usize| 1.0 / self.theta.powf((2 * i) as f32 / head_dim as f32);
        (0..head_dim / 2).map(|i| self.scaling.apply(base(i))).collect()
    }
}

impl RopeScaling {
    fn apply(&self, frequency: f32) -> f32 {
        match *self {
            RopeScaling::None => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let turns = original_context * frequency / std::f32::consts::TAU;
                let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }
}
