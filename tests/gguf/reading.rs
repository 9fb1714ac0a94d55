//! Blocks against ggml's Python, tokens against SentencePiece, whole models against the same weights in a directory.

use std::fs;

use fissfuse::llama::{Llama, Rope, RopeScaling, Source};
use fissfuse::tensor::BlockType;
use fissfuse::tensor::safetensors::Reader;
use tempfile::tempdir;

use super::models::{by_merges, by_scores, converted, fixture, texts};
use crate::support;
use crate::support::gguf::{File, Value};

#[test]
fn blocks_mean_what_ggml_says() {
    let reader = Reader::open(&support::fixture("gguf/blocks.safetensors")).unwrap();
    for kind in BlockType::ALL {
        let blocks = reader.bytes(&format!("{kind}.blocks")).unwrap();
        let want = reader.tensor_of(&format!("{kind}.values"), &[2, 512]).unwrap();
        let mut got = vec![f32::NAN; 1024];
        kind.dequantize(blocks, &mut got);
        for (i, (got, want)) in got.iter().zip(want.data()).enumerate() {
            // ggml multiplies by the scales in another order: two roundings.
            assert!((got - want).abs() <= 3e-7 * want.abs().max(1e-3), "{kind}, weight {i}: {got}, ggml has {want}");
        }
    }
}

#[test]
fn a_model_has_the_logits_that_its_directory_has() {
    for name in ["multi-head", "grouped-tied", "qwen2"] {
        let (folder, config, file) = converted(name);
        let path = folder.path().join("model.gguf");
        file.write(&path);
        let tokens: Vec<u32> = (0..40).map(|i| i * 37 % 120).collect();
        let [directory, gguf] = [folder.path(), &path].map(|path| Llama::open(path, None, None).unwrap());
        assert_eq!(gguf.config(), &config);
        let [want, got] = [&directory, &gguf].map(|llama| llama.logits(&tokens).unwrap());
        assert_eq!(got.data(), want.data(), "{name}");
    }
}

#[test]
fn frequencies_of_llama_3_are_known_by_their_divisors() {
    let (folder, config, mut file) = converted("multi-head");
    let scaling =
        |factor| RopeScaling::Llama3 { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192.0 };
    let path = folder.path().join("model.gguf");
    let of = |scaling| Rope { theta: 500_000.0, scaling }.frequencies(config.head_dim);
    file.set("llama.rope.freq_base", Value::F32(500_000.0));
    let plain = of(RopeScaling::None);
    let divisors: Vec<f32> = plain.iter().zip(of(scaling(32.0))).map(|(plain, scaled)| plain / scaled).collect();
    assert!(divisors.contains(&1.0) && divisors.contains(&32.0), "{divisors:?}");
    file.add_f32("rope_freqs.weight", &[divisors.len()], &divisors);
    file.write(&path);
    let found = Source::open(&path).unwrap().config().unwrap().rope;
    assert!(
        found.theta == 500_000.0
            && matches!(found.scaling, RopeScaling::Llama3 { factor, .. } if (factor - 32.0).abs() < 1e-4)
    );
    let last = divisors.len() - 1;
    file.tensor("rope_freqs.weight").3[4 * last..].copy_from_slice(&7.0f32.to_le_bytes());
    file.write(&path);
    let refused = Source::open(&path).unwrap().config().unwrap_err().to_string();
    assert!(refused.contains("`rope_freqs.weight`: divides the rotary frequencies otherwise"), "{refused}");
}

#[test]
fn tokens_are_those_of_sentencepiece() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let fixture = fixture();
    let mut file = File::default();
    by_scores(&mut file, &fixture);
    file.write(&path);
    let tokenizer = Source::open(&path).unwrap().tokenizer().unwrap();
    for (sentence, tokens) in texts(&fixture["sentences"]).iter().zip(fixture["tokens"].as_array().unwrap()) {
        let want: Vec<u32> = tokens.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        // SentencePiece puts no space in front of what is empty.
        let got = tokenizer.encode(sentence, false).unwrap();
        assert_eq!(got, want, "{sentence:?}");
        let with_start = tokenizer.encode(sentence, true).unwrap();
        assert_eq!(with_start, [&[1], &want[..]].concat(), "{sentence:?}");
        // What a text has of SentencePiece's own mark for a space comes back as one.
        assert_eq!(tokenizer.decode(&want).unwrap(), sentence.replace('▁', " "));
    }
}

#[test]
fn bytes_are_cut_and_merged_as_the_file_says() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    // Merges across digits happen only where digits are not cut apart.
    for (pre, tokens) in [("gpt-2", 2), ("smollm", 3), ("llama-bpe", 2), ("qwen2", 3)] {
        let mut file = File::default();
        by_merges(&mut file, pre, &["1 2", "a b"]);
        file.set("tokenizer.chat_template", Value::Text("{{ bos_token }}{{ messages[0].content }}".into()));
        file.write(&path);
        let source = Source::open(&path).unwrap();
        let tokenizer = source.tokenizer().unwrap();
        assert_eq!(tokenizer.encode("12ab", false).unwrap().len(), tokens, "{pre}");
        assert_eq!(tokenizer.encode("<|im_start|>ab<|im_end|>", false).unwrap(), [258, 257, 259], "{pre}");
        for text in ["héllo wörld", "日本語 \n\n x", "  12  ab"] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text, true).unwrap()).unwrap(), text, "{pre}");
        }
        assert_eq!(source.generation().unwrap().end, [259]);
        let template = source.template().unwrap().unwrap();
        let message = fissfuse::llama::Message::user("hi");
        assert_eq!(template.render(&[message], true).unwrap(), "<|im_start|>hi");
        // A tokenizer.json beside the file counts more than its own.
        let beside = path.with_file_name("tokenizer.json");
        fs::write(&beside, "{}").unwrap();
        assert!(source.tokenizer().err().unwrap().to_string().contains("tokenizer.json"));
        fs::remove_file(beside).unwrap();
    }
}
