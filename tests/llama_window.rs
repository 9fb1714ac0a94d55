//! Llama's kin with a sliding window: their context ends there.

use std::fs;

use fissfuse::llama::{Llama, LlamaConfig};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::llama;

#[test]
fn a_context_ends_at_the_sliding_window() {
    let cases = [
        ("mistral", "sliding_window", json!(76), Ok(76)),
        ("mistral", "sliding_window", json!(null), Ok(128)),
        ("mistral", "sliding_window", json!(0), Err("`sliding_window` is 0, needs a size of at least 1")),
        ("qwen2", "sliding_window", json!(76), Ok(128)),
        ("qwen2", "use_sliding_window", json!(true), Ok(128)),
        ("qwen2", "model_type", json!("mistral"), Ok(128)),
        ("qwen2", "model_type", json!("qwen3"), Err("has model_type `qwen3`; the decoder computes `llama` (")),
    ];
    for (name, key, value, wanted) in cases {
        let folder = tempdir().unwrap();
        let path = folder.path().join("config.json");
        let mut config: Value =
            serde_json::from_slice(&fs::read(llama::fixture(name).join("config.json")).unwrap()).unwrap();
        config[key] = value;
        fs::write(&path, config.to_string()).unwrap();
        match (LlamaConfig::read(folder.path()), wanted) {
            (Ok(config), Ok(context)) => assert_eq!(config.context, context, "{name}, {key}"),
            (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{error}"),
            (got, wanted) => panic!("{name}, {key}: {got:?}, wanted {wanted:?}"),
        }
    }
    let mut config: Value =
        serde_json::from_slice(&fs::read(llama::fixture("qwen2").join("config.json")).unwrap()).unwrap();
    (config["use_sliding_window"], config["sliding_window"]) = (json!(true), json!(50));
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    assert_eq!(LlamaConfig::read(folder.path()).unwrap().context, 50);
    // What is beyond it is refused, for it would be another model's answer.
    let folder = llama::draw("mistral");
    let llama = Llama::open(folder.path(), None, None).unwrap();
    let refused = llama.logits(&[1; 77]).unwrap_err().to_string();
    assert!(refused.contains("more than the model's context of 76"), "{refused}");
}
