//! Llama and its kin.

use fissfuse::llama::{self, GenerationConfig, Llama, LlamaConfig};
use serde_json::{Value, json};
use tempfile::tempdir;

use super::{Differ, Refuse, Row, Same, check};
use crate::support::fixture;

#[test]
fn every_entry_of_a_llama_is_computed_or_refused() {
    let folder = tempdir().unwrap();
    let config = LlamaConfig::read(&fixture("llama/multi-head")).unwrap();
    llama::write_random(folder.path(), &config, llama::Precision::F32, 11, ["a word"].into_iter()).unwrap();
    std::fs::copy(fixture("llama/multi-head/config.json"), folder.path().join("config.json")).unwrap();
    let c = "config.json";
    let linear = json!({"rope_type": "linear", "factor": 2.0});
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32, "rope_theta": 10000.0});
    let with = |base: &Value, key: &str, value: Value| {
        let mut base = base.clone();
        base[key] = value;
        base
    };
    let mut rows: Vec<Row> = vec![
        (c, "num_key_value_heads", json!(null), Same),
        (c, "head_dim", json!(null), Same),
        (c, "hidden_act", json!(null), Same),
        (c, "hidden_act", json!("swish"), Same),
        (c, "hidden_act", json!("relu"), Refuse("`hidden_act` is `relu`")),
        (c, "rms_norm_eps", json!(0.5), Differ),
        (c, "rms_norm_eps", json!(-1.0), Refuse("`rms_norm_eps` is -1.0, needs a number above 0")),
        (c, "rms_norm_eps", json!("1e-5"), Refuse("`rms_norm_eps` is `1e-5`, needs a number")),
        (c, "hidden_size", json!(64.5), Refuse("`hidden_size` is 64.5, needs a whole number")),
        (c, "max_position_embeddings", json!(4), Refuse("")),
        (c, "mlp_bias", json!(true), Refuse("`mlp_bias` is true")),
        (c, "mlp_bias", json!(null), Same),
        (c, "tie_word_embeddings", json!(null), Same),
        (c, "tie_word_embeddings", json!(1), Refuse("`tie_word_embeddings` is 1, needs true or false")),
        (c, "quantization_config", json!(null), Same),
        (c, "quantization_config", json!({"quant_method": "awq"}), Refuse("is quantized by `awq`")),
        (c, "pruned_heads", json!({"0": [1]}), Refuse("`pruned_heads`")),
        (c, "partial_rotary_factor", json!(0.5), Refuse("`partial_rotary_factor` is 0.5")),
        (c, "partial_rotary_factor", json!(1), Same),
        (c, "rope_parameters", json!(null), Same),
        (c, "rope_parameters", json!({}), Same),
        (c, "rope_parameters.rope_theta", json!(100.0), Differ),
        (c, "rope_theta", json!(100.0), Refuse("`rope_parameters.rope_theta` is 10000, `rope_theta` is 100")),
        (c, "rope_theta", json!(10000.0), Same),
        (c, "rope_scaling", json!(null), Same),
        (c, "rope_scaling", linear.clone(), Refuse("`rope_scaling` and `rope_parameters` are there and disagree")),
        (c, "rope_scaling", json!({"rope_type": "default"}), Same),
        (c, "rope_parameters", linear.clone(), Differ),
        (c, "rope_parameters", json!({"type": "linear", "factor": 2.0}), Differ),
        (c, "rope_parameters", with(&linear, "type", json!("llama3")), Refuse("let them agree")),
        (c, "rope_parameters", with(&linear, "factor", json!(null)), Refuse("`rope_parameters.factor`")),
        (c, "rope_parameters", with(&linear, "factor", json!(0)), Refuse("`rope_parameters.factor` is 0")),
        (c, "rope_parameters", llama3.clone(), Differ),
        (c, "rope_parameters", with(&llama3, "high_freq_factor", json!(1.0)), Refuse("is not above")),
        (c, "rope_parameters", json!({"full_attention": linear}), Refuse("`rope_parameters.full_attention`")),
        (c, "rope_parameters", json!({"rope_type": "dynamic", "factor": 2.0}), Refuse("rope type `dynamic`")),
        (c, "rope_parameters.attention_factor", json!(1.5), Same),
        (c, "rope_parameters", json!([1]), Refuse("`rope_parameters` is [1], needs an object")),
        (c, "eos_token_id", json!([1, 2]), Same),
        (c, "eos_token_id", json!(-1), Refuse("`eos_token_id` is -1, needs a token's number")),
        ("generation_config.json", "eos_token_id", json!([1, "x"]), Refuse("`eos_token_id[1]` is `x`")),
        ("generation_config.json", "repetition_penalty", json!(1.1), Same),
        ("tokenizer_config.json", "added_tokens_decoder.900", json!({"content": "<no>"}), Refuse("has no such token")),
    ];
    // What transformers keeps for training, for memory, or for others.
    for (key, value) in [
        ("attention_dropout", json!(0.1)),
        ("initializer_range", json!(0.5)),
        ("use_cache", json!(false)),
        ("pretraining_tp", json!(2)),
        ("bos_token_id", json!(7)),
        ("pad_token_id", json!(7)),
        ("torch_dtype", json!("float16")),
        ("dtype", json!("float16")),
        ("architectures", json!(["LlamaForCausalLM"])),
        ("transformers_version", json!("4.31.0")),
        ("chunk_size_feed_forward", json!(0)),
        ("id2label", json!({"0": "x"})),
    ] {
        rows.push((c, key, value, Same));
    }
    check(folder.path(), rows, |folder| {
        let tokens = [3, 100, 42, 7, 99, 8];
        Ok(Llama::open(folder, None, None)?
            .logits(&tokens)
            .map_err(|e| {
                // The context is a matter of the text's length.
                fissfuse::Error::file(folder.join(c), e.to_string())
            })?
            .data()
            .to_vec())
    });
    assert!(!GenerationConfig::read(folder.path()).unwrap().end.is_empty());
}
