//! `config.json` of a Llama or its kin: sizes, rotary embedding, tied embeddings. Whatever this decoder does not compute is
//! refused.

use std::path::Path;

use serde_json::{Value, json};

use crate::error::Result;
use crate::fields::Fields;
use crate::files;

/// More attention heads, or wider ones, have no model.
const MOST_HEADS: usize = 1 << 16;

/// Base of the rotary frequencies where a configuration gives none.
const DEFAULT_THETA: f32 = 10_000.0;

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
    /// The longest context in tokens: what the model was made for, or its sliding window, within which it attends to all.
    pub context: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Whether the last layer is the embedding's matrix.
    pub tied: bool,
    /// Whether queries, keys and values have a bias (Qwen 2).
    pub qkv_bias: bool,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantizedConfig {
    /// Bits of a weight of the blocks: 8 or 4.
    pub bits: usize,
}

/// Architectures that differ from Llama in little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    /// Llama with a sliding window.
    Mistral,
    /// Llama with biases of queries, keys and values, and, if asked for, a sliding window.
    Qwen2,
}

impl Family {
    pub const ALL: [Family; 3] = [Family::Llama, Family::Mistral, Family::Qwen2];
    pub const NAMES: &str = "`llama` (Llama 2 and 3, TinyLlama, SmolLM2 and their kin), `mistral` and `qwen2`";

    /// As files name it.
    pub fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Mistral => "mistral",
            Family::Qwen2 => "qwen2",
        }
    }

    /// Of transformers.
    fn class(self) -> &'static str {
        match self {
            Family::Llama => "LlamaForCausalLM",
            Family::Mistral => "MistralForCausalLM",
            Family::Qwen2 => "Qwen2ForCausalLM",
        }
    }

    /// Token numbers, width inside the MLP and longest context where transformers finds none in a configuration.
    fn defaults(self) -> (usize, usize, u64) {
        match self {
            Family::Llama => (32_000, 11_008, 2048),
            Family::Mistral => (32_000, 14_336, 131_072),
            Family::Qwen2 => (151_936, 22_016, 32_768),
        }
    }

    /// Tokens that a token attends to at most: within so many the decoder, which has no such window, computes the same.
    fn window(self, fields: &Fields) -> Result<u64> {
        let used = match self {
            Family::Llama => false,
            Family::Mistral => true,
            Family::Qwen2 => fields.flag("use_sliding_window")?.unwrap_or(false),
        };
        let none = fields.is_null("sliding_window");
        let window = fields.whole("sliding_window")?;
        match (used && !none, window) {
            (false, _) => Ok(u64::MAX),
            (true, Some(0)) => Err(fields.wrong("sliding_window", "a size of at least 1")),
            (true, window) => Ok(window.unwrap_or(4096)),
        }
    }
}

/// What `quant_method` says in directories that `fissfuse llm quantize` wrote.
pub(super) const QUANT_METHOD: &str = "fissfuse";

impl LlamaConfig {
    /// Reads and checks the `config.json` of a Hugging Face directory. What it leaves out is as transformers has it.
    ///
    /// Fails if it is missing, is no JSON, describes another architecture, or asks for something that this decoder does
    /// not compute; the error names it and says what is supported.
    pub fn read(folder: &Path) -> Result<LlamaConfig> {
        let path = files::config_of(folder, "give the directory of a Hugging Face model")?;
        let fields = Fields::read(&path)?;
        let model_type = fields.text("model_type")?;
        let Some(family) = Family::ALL.into_iter().find(|family| model_type == Some(family.name())) else {
            let found = model_type.map_or("no model_type".into(), |m| format!("model_type `{}`", m.escape_debug()));
            return Err(fields.error(format!("has {found}; the decoder computes {}", Family::NAMES)));
        };
        LlamaConfig::of(&fields, family)
    }

    pub(super) fn of(fields: &Fields, family: Family) -> Result<LlamaConfig> {
        let hidden_size = fields.positive("hidden_size", 4096)?;
        let heads = fields.positive("num_attention_heads", 32)?;
        let kv_heads = fields.positive("num_key_value_heads", if family == Family::Mistral { 8 } else { heads })?;
        let given = fields.size("head_dim")?;
        if heads > MOST_HEADS || given.is_some_and(|width| width > MOST_HEADS) {
            return Err(fields.error("has more attention heads, or wider ones, than makes sense"));
        }
        if given.is_none() && !hidden_size.is_multiple_of(heads) {
            return Err(fields.error(format!("{heads} attention heads do not divide hidden_size {hidden_size}")));
        }
        let head_dim = given.unwrap_or(hidden_size / heads);
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(fields.error(format!("head_dim is {head_dim}; rotary embedding needs an even one")));
        }
        if !heads.is_multiple_of(kv_heads) {
            let reason = format!("{kv_heads} key and value heads do not divide {heads} attention heads");
            return Err(fields.error(reason));
        }
        let (words, inner, longest) = family.defaults();
        let context = fields.whole("max_position_embeddings")?.unwrap_or(longest);
        if context == 0 {
            return Err(fields.wrong("max_position_embeddings", "a size of at least 1"));
        }
        // Two names of one function.
        fields.only("hidden_act", &[json!("silu"), json!("swish")])?;
        for biases in ["attention_bias", "mlp_bias"] {
            fields.only(biases, &[json!(false)])?;
        }
        fields.only("pruned_heads", &[json!({})])?;
        Ok(LlamaConfig {
            vocab_size: fields.positive("vocab_size", words)?,
            hidden_size,
            intermediate_size: fields.positive("intermediate_size", inner)?,
            layers: fields.positive("num_hidden_layers", 32)?,
            heads,
            kv_heads,
            head_dim,
            context: usize::try_from(context.min(family.window(fields)?)).unwrap_or(usize::MAX),
            rms_norm_eps: fields.or(fields.above_zero("rms_norm_eps"), 1e-6)?,
            tied: fields.flag("tie_word_embeddings")?.unwrap_or(false),
            qkv_bias: family == Family::Qwen2,
            rope: Rope::of(fields, context)?,
            quantized: quantized(fields)?,
        })
    }

    /// The `config.json` that transformers reads.
    pub(super) fn to_json(&self) -> Value {
        let family = if self.qkv_bias { Family::Qwen2 } else { Family::Llama };
        let mut value = json!({
            "architectures": [family.class()], "model_type": family.name(), "vocab_size": self.vocab_size,
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
        // Saturating: sizes come from files and arguments.
        let product = |a: usize, b: usize| (a as u64).saturating_mul(b as u64);
        let attention = product(self.hidden_size, 2 * self.query_width() + 2 * self.kv_width());
        let mlp = product(self.hidden_size, self.intermediate_size).saturating_mul(3);
        let layers = attention.saturating_add(mlp).saturating_mul(self.layers as u64);
        layers.saturating_add(product(self.vocab_size, self.hidden_size))
    }
}

fn quantized(fields: &Fields) -> Result<Option<QuantizedConfig>> {
    let Some(entry) = fields.under("quantization_config")? else { return Ok(None) };
    let method = entry.text("quant_method")?.unwrap_or("unnamed");
    if method != QUANT_METHOD {
        return Err(fields.error(format!(
            "is quantized by `{}`; take the model's f16, bf16 or f32 weights, which `fissfuse llm quantize` packs",
            method.escape_debug()
        )));
    }
    match entry.size("bits")? {
        Some(bits @ (4 | 8)) => Ok(Some(QuantizedConfig { bits })),
        _ => Err(entry.wrong("bits", "8 or 4, which this version reads")),
    }
}

/// Where transformers 4 and 5 keep the settings of rotary embedding.
const ROPE_PLACES: [&str; 2] = ["rope_scaling", "rope_parameters"];

/// Settings of the types that are computed here.
const ROPE_KEYS: [&str; 8] = [
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
];

/// Settings of rotary scaling of other types, which transformers passes over for the types that are computed here.
const ROPE_PASSED_OVER: [&str; 8] = [
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "short_factor",
    "long_factor",
    "mscale",
    "mscale_all_dim",
    "truncate",
];

impl Rope {
    /// From `rope_theta` and `rope_scaling`, or from `rope_parameters`, where transformers 5 keeps both. Places that
    /// disagree are refused: the versions of transformers do not agree on which counts.
    fn of(fields: &Fields, context: u64) -> Result<Rope> {
        fields.only("partial_rotary_factor", &[json!(1.0)])?;
        let theta = fields.above_zero("rope_theta")?;
        let mut found: Vec<(&str, Rope)> = Vec::new();
        for place in ROPE_PLACES {
            let Some(settings) = fields.under(place)?.filter(|settings| settings.keys().next().is_some()) else {
                continue;
            };
            let own = settings.above_zero("rope_theta")?;
            if let (Some(outer), Some(own)) = (theta, own)
                && outer != own
            {
                let name = settings.name("rope_theta");
                let reason = format!("`{name}` is {own}, `rope_theta` is {outer}; let them agree, or take one out");
                return Err(fields.error(reason));
            }
            let theta = own.or(theta).unwrap_or(DEFAULT_THETA);
            found.push((place, Rope { theta, scaling: RopeScaling::of(fields, &settings, context)? }));
        }
        match &found[..] {
            [] => Ok(Rope { theta: theta.unwrap_or(DEFAULT_THETA), scaling: RopeScaling::None }),
            [(_, rope)] => Ok(rope.clone()),
            [(_, first), (_, second), ..] if first == second => Ok(first.clone()),
            [(one, _), (other, _), ..] => {
                let reason =
                    format!("`{one}` and `{other}` are there and disagree; take out the one that is not meant");
                Err(fields.error(reason))
            }
        }
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
    fn of(config: &Fields, settings: &Fields, context: u64) -> Result<RopeScaling> {
        settings.only("partial_rotary_factor", &[json!(1.0)])?;
        let name = |key: &str| settings.name(key);
        let kind = match (settings.text("rope_type")?, settings.text("type")?) {
            (Some(a), Some(b)) if a != b => {
                let reason = format!("`{}` is `{a}`, `{}` is `{b}`; let them agree", name("rope_type"), name("type"));
                return Err(config.error(reason));
            }
            (a, b) => a.or(b).unwrap_or("default"),
        };
        let needed = |key: &str| match settings.above_zero(key)? {
            Some(value) => Ok(value),
            None => Err(config.error(format!("rope scaling lacks a positive `{}`", name(key)))),
        };
        if !["default", "linear", "llama3"].contains(&kind) {
            let found = kind.escape_debug();
            let reason = format!("rope type `{found}` is not supported; `default`, `linear` and `llama3` are");
            return Err(config.error(reason));
        }
        let known = |key: &str| ROPE_KEYS.contains(&key) || ROPE_PASSED_OVER.contains(&key);
        if let Some(unknown) = settings.keys().find(|key| !known(key)) {
            return Err(config.error(format!("`{}` is not supported in rotary scaling", name(unknown))));
        }
        match kind {
            "linear" => Ok(RopeScaling::Linear { factor: needed("factor")? }),
            "llama3" => {
                let (low, high) = (needed("low_freq_factor")?, needed("high_freq_factor")?);
                if high <= low {
                    let names = (name("high_freq_factor"), name("low_freq_factor"));
                    return Err(config.error(format!("`{}` {high} is not above `{}` {low}", names.0, names.1)));
                }
                let original = "original_max_position_embeddings";
                let (outer, own) = (config.above_zero(original)?, settings.above_zero(original)?);
                if let (Some(outer), Some(own)) = (outer, own)
                    && outer != own
                {
                    let reason = format!("`{}` is {own}, `{original}` is {outer}; let them agree", name(original));
                    return Err(config.error(reason));
                }
                let original_context = own.or(outer).unwrap_or(context as f32);
                let factor = needed("factor")?;
                Ok(RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context })
            }
            _ => Ok(RopeScaling::None),
        }
    }

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
