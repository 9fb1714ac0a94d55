//! Pretrained models, where scripts/models.sh has fetched them: SmolLM2 against transformers (tests/fixtures/real/make.py).
//! Where they are not there, the tests say so and pass.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use fissfuse::llama::{Generation, Llama, Sampling};
use serde::Deserialize;

use crate::support;

/// Half of what the two likeliest tokens differ by at least, wherever the fixtures choose one.
const NEAR: f32 = 0.01;

#[derive(Deserialize)]
struct Expected {
    prompt: String,
    ids: Vec<u32>,
    /// The largest logits after the prompt, by their tokens.
    largest: Vec<(usize, f32)>,
    greedy: Vec<u32>,
}

/// A model of weights/, if it is there.
fn fetched(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("weights").join(name);
    if !path.exists() {
        eprintln!("skipped: weights/{name} is not there; scripts/models.sh fetches it");
    }
    path.exists().then_some(path)
}

#[test]
fn smollm2_says_what_it_says_in_transformers() {
    let Some(path) = fetched("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let text = fs::read_to_string(support::fixture("real/smollm2.json")).unwrap();
    let expected: Vec<Expected> = serde_json::from_str(&text).unwrap();
    assert!(expected.iter().map(|e| e.greedy.len()).sum::<usize>() >= 64);
    let llama = Llama::open(&path, None, None).unwrap();
    for Expected { prompt, ids, largest, greedy } in expected {
        assert_eq!(llama.tokenizer().encode(&prompt, true).unwrap(), ids, "{prompt}");
        let logits = llama.logits(&ids).unwrap();
        let last = &logits.data()[(ids.len() - 1) * llama.config().vocab_size..];
        for (token, want) in largest {
            // Keys and values are kept in f16, activations in 16 bits: far below what tokens differ by.
            assert!((last[token] - want).abs() < NEAR, "{prompt}: token {token} has {}, wanted {want}", last[token]);
        }
        let how = Generation { sampling: Sampling::GREEDY, max_new_tokens: greedy.len().max(1) };
        let (answers, _) = llama.generate(None, &[&ids], how, |_, _| ControlFlow::Continue(())).unwrap();
        assert_eq!(answers[0].tokens[..greedy.len()], greedy, "{prompt}");
    }
}
