//! Plans by headers alone, files that become directories, and directories that become files.

use std::fs;
use std::path::Path;

use fissfuse::device::cpu::has_integers;
use fissfuse::llama::{Llama, LlamaConfig, Message, Plan, Precision, Rope, RopeScaling, Source, write_random};
use fissfuse::tensor::BlockType;
use fissfuse::tensor::gguf::Gguf;
use fissfuse::tensor::safetensors::Reader;
use tempfile::tempdir;

use super::models::{by_merges, by_scores, converted, fixture, of_directory, texts};
use crate::llama::draw;
use crate::support::gguf::{File, Value};
use crate::support::{fissfuse, refuse, succeed};

/// A Llama's header: names, shapes and types of Q4_K_M, as llama.cpp chooses them.
fn q4_k_m(path: &Path, layers: usize, [hidden, inner, kv, words]: [usize; 4]) {
    let mut file = File::default();
    file.set("general.architecture", Value::Text("llama".into()));
    for (key, size) in [
        ("embedding_length", hidden),
        ("feed_forward_length", inner),
        ("block_count", layers),
        ("attention.head_count", hidden / 128),
        ("attention.head_count_kv", kv / 128),
        ("context_length", 4096),
    ] {
        file.set(&format!("llama.{key}"), Value::U32(size as u32));
    }
    file.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    let mut sizes = Vec::new();
    let mut add = |name: String, rows: usize, columns: usize, kind: BlockType| {
        file.tensors.push((name, vec![columns as u64, rows as u64], kind.number(), Vec::new()));
        sizes.push((rows * kind.bytes(columns)) as u64);
    };
    let (four, six) = (BlockType::Q4K, BlockType::Q6K);
    add("token_embd.weight".into(), words, hidden, four);
    add("output.weight".into(), words, hidden, six);
    for layer in 0..layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        // The first and the last eighth of the layers, and every third between.
        let eighth = layers / 8;
        let more = layer < eighth || layer >= 7 * eighth || (layer - eighth) % 3 == 2;
        let best = if more { six } else { four };
        add(name("attn_q"), hidden, hidden, four);
        add(name("attn_k"), kv, hidden, four);
        add(name("attn_v"), kv, hidden, best);
        add(name("attn_output"), hidden, hidden, four);
        add(name("ffn_gate"), inner, hidden, four);
        add(name("ffn_up"), inner, hidden, four);
        add(name("ffn_down"), hidden, inner, best);
    }
    let norms = (0..layers).flat_map(|i| [format!("blk.{i}.attn_norm.weight"), format!("blk.{i}.ffn_norm.weight")]);
    for name in norms.chain(["output_norm.weight".to_string()]) {
        file.tensors.push((name, vec![hidden as u64], 0, Vec::new()));
        sizes.push(4 * hidden as u64);
    }
    file.write_sparse(path, &sizes);
}

#[test]
fn memory_is_planned_by_headers_alone() {
    let folder = tempdir().unwrap();
    for (layers, sizes, card, file_gb) in
        [(40, [5120, 13_824, 5120, 32_000], "24 GB", 7.9), (80, [8192, 28_672, 1024, 32_000], "80 GB", 41.4)]
    {
        let path = folder.path().join("model.gguf");
        q4_k_m(&path, layers, sizes);
        let plan = Plan::of(&Source::open(&path).unwrap(), None, true).unwrap();
        let length = fs::metadata(&path).unwrap().len() as f64 / 1e9;
        assert!((length - file_gb).abs() < 0.1, "{length} GB");
        // The embedding is read a row at a time; norms are no matrices.
        assert!((plan.weights as f64 / 1e9 - length).abs() < 0.01 && plan.weights_per_token < plan.weights);
        let printed = succeed(&["llm", "plan", "--model", path.to_str().unwrap()]);
        let fits = printed.lines().find(|line| line.starts_with("fits: ")).unwrap();
        assert!(fits.contains(card), "{printed}");
    }
}

#[test]
fn a_file_becomes_a_directory_with_the_same_logits() {
    let (folder, config, file) = converted("grouped-tied");
    let path = folder.path().join("model.gguf");
    file.write(&path);
    let (all, out) = (tempdir().unwrap(), folder.path().join("converted"));
    let gguf = all.path().join("alone.gguf");
    fs::copy(&path, &gguf).unwrap();
    let [from, to] = [&gguf, &out].map(|path| path.to_str().unwrap());
    succeed(&["llm", "convert", "--model", from, "--out", to, "--precision", "f32"]);
    let [own, directory] = [&gguf, &out].map(|path| Llama::open(path, None, None).unwrap());
    assert_eq!(directory.config(), &config);
    let [want, got] = [&own, &directory].map(|llama| llama.logits(&[3, 5, 7]).unwrap());
    assert_eq!(got.data(), want.data());
    let tokens = [&own, &directory].map(|llama| llama.tokenizer().encode("a b", true).unwrap());
    assert_eq!(tokens[0], tokens[1]);
    refuse(&["llm", "convert", "--model", to, "--out", "elsewhere"], &["becomes a GGUF file; let --out end in .gguf"]);
    let other = folder.path().join("other.gguf");
    let other = other.to_str().unwrap();
    refuse(&["llm", "convert", "--model", from, "--out", other], &["becomes a Hugging Face directory", "other.gguf"]);
    refuse(
        &["llm", "convert", "--model", other, "--out", "elsewhere"],
        &["other.gguf: cannot open", "nothing is there"],
    );
}

#[test]
fn how_texts_are_cut_goes_into_a_file_and_comes_back() {
    let folder = tempdir().unwrap();
    let config = LlamaConfig { vocab_size: 300, ..LlamaConfig::read(draw("multi-head").path()).unwrap() };
    let random = folder.path().join("random");
    write_random(&random, &config, Precision::F32, 3, ["a word"].into_iter()).unwrap();
    // Spaces, lines and digits that one kind merges and another keeps apart.
    let merges =
        ["\u{120} \u{120}", "\u{10a} \u{10a}", "1 2", "12 3", "\u{120} a", "\u{120} 2", "e \u{cc}", "\u{cc} \u{123}"];
    // In SmolLM2's no digit is merged, and several spaces before one are all that tells its kind from GPT-2's.
    let spaces = &merges[..1];
    let kinds = ["gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-r1-qwen"].map(|pre| (pre, &merges[..]));
    for (pre, merges) in kinds.into_iter().chain([("gpt-2", spaces), ("smollm", spaces)]) {
        let (_, mut made) = of_directory(&random);
        by_merges(&mut made, pre, merges);
        let (file, model) = (
            folder.path().join(format!("{pre}-{}.gguf", merges.len())),
            folder.path().join(format!("{pre}-{}", merges.len())),
        );
        made.write(&file);
        let [from, to] = [&file, &model].map(|path| path.to_str().unwrap());
        succeed(&["llm", "convert", "--model", from, "--out", to, "--precision", "f32"]);
        let back = written(&model, "f32");
        let named = Gguf::open(&back).unwrap();
        assert_eq!(named.text("tokenizer.ggml.pre").unwrap(), Some(pre));
        let [want, got] = [&file, &back].map(|path| Source::open(path).unwrap().tokenizer().unwrap());
        for text in ["a  2", "1234\n\n\n 12", "e\u{301}  \n a"] {
            assert_eq!(got.encode(text, true).unwrap(), want.encode(text, true).unwrap(), "{pre}, {text:?}");
        }
    }
    // What a file could not say is refused, not left out.
    let path = folder.path().join("qwen2-8/tokenizer.json");
    let mut words: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    words["added_tokens"][0]["lstrip"] = true.into();
    fs::write(&path, words.to_string()).unwrap();
    let [from, to] = [folder.path().join("qwen2-8"), folder.path().join("x.gguf")];
    let convert = ["llm", "convert", "--model", from.to_str().unwrap(), "--out", to.to_str().unwrap()];
    refuse(&convert, &["tokenizer.json: has an added token", "with `lstrip`"]);
    let generation = from.join("generation_config.json");
    fs::write(generation, r#"{"eos_token_id": [1, 2, 3, 4]}"#).unwrap();
    words["added_tokens"][0]["lstrip"] = false.into();
    fs::write(&path, words.to_string()).unwrap();
    refuse(&convert, &["has 4 end tokens; a GGUF file has at most 3"]);
}

/// `fissfuse llm convert` of a directory to a file beside it.
fn written(folder: &Path, precision: &str) -> std::path::PathBuf {
    let out = folder.join(format!("{precision}.gguf"));
    let [from, to] = [folder, &out].map(|path| path.to_str().unwrap());
    succeed(&["llm", "convert", "--model", from, "--out", to, "--precision", precision]);
    // Elsewhere than the directory, whose tokenizer.json would count.
    let alone = folder.join("files");
    fs::create_dir_all(&alone).unwrap();
    let moved = alone.join(out.file_name().unwrap());
    fs::rename(out, &moved).unwrap();
    moved
}

#[test]
fn a_directory_becomes_a_file_with_the_same_logits() {
    for name in ["multi-head", "grouped-tied", "qwen2"] {
        let folder = draw(name);
        // The rows of the embedding are fewer than the tokens of any vocabulary of bytes.
        // Rows of the MLP's last layer are whole blocks of the K types.
        let of = LlamaConfig::read(folder.path()).unwrap();
        let config = LlamaConfig { vocab_size: 300, intermediate_size: 256, ..of };
        let folder = tempdir().unwrap();
        let folder = folder.path().join(name);
        let words = ["a red ball", "a blue ball, 12 of them"];
        write_random(&folder, &config, Precision::F32, 3, words.into_iter()).unwrap();
        for (asked, precision) in [
            ("f32", Precision::F32),
            ("f16", Precision::F16),
            ("bf16", Precision::Bf16),
            ("q8_0", Precision::Blocks(BlockType::Q8_0)),
            ("q6_k", Precision::Blocks(BlockType::Q6K)),
            ("q5_k", Precision::Blocks(BlockType::Q5K)),
            ("q4_k", Precision::Blocks(BlockType::Q4K)),
            ("q4_0", Precision::Blocks(BlockType::Q4_0)),
        ] {
            let path = written(&folder, asked);
            let directory = Llama::open(&folder, Some(precision), None).unwrap();
            let file = Llama::open(&path, None, None).unwrap();
            assert_eq!(file.config(), directory.config(), "{name}");
            let [want, got] = [&directory, &file].map(|llama| llama.logits(&[3, 5, 7, 298]).unwrap());
            assert_eq!(got.data(), want.data(), "{name}, {asked}");
            let both = [&directory, &file];
            for text in ["a red ball", " 12  blue\n\nlines"] {
                let [want, got] = both.map(|llama| llama.tokenizer().encode(text, true).unwrap());
                assert_eq!(got, want, "{name}, {text:?}");
            }
            let [want, got] = [Source::open(&folder).unwrap(), Source::open(&path).unwrap()];
            assert_eq!(got.generation().unwrap(), want.generation().unwrap());
            let [want, got] = [want, got]
                .map(|source| source.template().unwrap().unwrap().render(&[Message::user("Who?")], true).unwrap());
            assert_eq!(got, want);
        }
        let elsewhere = folder.join("x.gguf");
        let [from, to] = [&folder, &elsewhere].map(|path| path.to_str().unwrap());
        let refused = ["llm", "convert", "--model", from, "--out", to, "--precision", "int4"];
        refuse(&refused, &["int4 has no place in a GGUF file; q8_0 and q4_k are like it"]);
        assert!(!elsewhere.exists());
    }
}

#[test]
fn prompts_are_multiplied_in_bytes_where_that_is_asked_for() {
    let folder = tempdir().unwrap();
    let config = LlamaConfig { vocab_size: 300, ..LlamaConfig::read(draw("multi-head").path()).unwrap() };
    let model = folder.path().join("model");
    write_random(&model, &config, Precision::F32, 3, ["a red ball"].into_iter()).unwrap();
    let model = written(&model, "q8_0");
    let logits = |value: &str| -> Vec<f32> {
        let file = folder.path().join("logits.safetensors");
        let [model, out] = [&model, &file].map(|path| path.to_str().unwrap());
        let prompt = "a red ball and twelve blue ones";
        let mut llm = fissfuse(&["llm", "--model", model, "--device", "cpu", "--prompt", prompt, "--logits", out]);
        assert!(llm.env("FISSFUSE_BYTE_PROMPTS", value).output().unwrap().status.success());
        Reader::open(&file).unwrap().tensor("logits").unwrap().data().to_vec()
    };
    let [usual, fine, coarse] = ["", "off", "on"].map(logits);
    assert_eq!(usual, fine);
    let off = fine.iter().zip(&coarse).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    let largest = fine.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    // Each activation is off by at most a 254th of the largest of its 32, mostly by less, and errors add up as squares do.
    assert!(off <= largest / 50.0 && (off > 0.0) == has_integers(), "{off} of {largest}");
    let mut llm = fissfuse(&["llm", "--model", model.to_str().unwrap(), "--device", "cpu", "--prompt", "x"]);
    let output = llm.env("FISSFUSE_BYTE_PROMPTS", "yes").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("FISSFUSE_BYTE_PROMPTS is \"yes\"; it is off, as where it is not set, or on"), "{errors}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn frequencies_of_llama_3_go_into_a_file_and_come_back() {
    let folder = tempdir().unwrap();
    let scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192.0 };
    let config = LlamaConfig {
        vocab_size: 300,
        rope: Rope { theta: 500_000.0, scaling },
        ..LlamaConfig::read(draw("llama3").path()).unwrap()
    };
    let folder = folder.path().join("llama3");
    write_random(&folder, &config, Precision::F32, 3, ["a word"].into_iter()).unwrap();
    let file = Llama::open(&written(&folder, "f32"), None, None).unwrap();
    assert_eq!(file.config(), &config);
}

#[test]
fn vocabularies_of_sentencepiece_go_into_a_file_and_come_back() {
    let folder = tempdir().unwrap();
    let config = LlamaConfig { vocab_size: 1000, ..LlamaConfig::read(draw("multi-head").path()).unwrap() };
    let (random, file, model) =
        (folder.path().join("random"), folder.path().join("a.gguf"), folder.path().join("model"));
    write_random(&random, &config, Precision::F32, 3, ["a word"].into_iter()).unwrap();
    let (fixture, (_, mut made)) = (fixture(), of_directory(&random));
    by_scores(&mut made, &fixture);
    made.write(&file);
    let [from, to] = [&file, &model].map(|path| path.to_str().unwrap());
    succeed(&["llm", "convert", "--model", from, "--out", to, "--precision", "f32"]);
    let back = Source::open(&written(&model, "f32")).unwrap();
    assert_eq!(back.generation().unwrap().end, [2]);
    let back = back.tokenizer().unwrap();
    for (sentence, tokens) in texts(&fixture["sentences"]).iter().zip(fixture["tokens"].as_array().unwrap()) {
        let want: Vec<u32> = tokens.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(back.encode(sentence, false).unwrap(), want, "{sentence:?}");
        assert_eq!(back.encode(sentence, true).unwrap(), [&[1], &want[..]].concat(), "{sentence:?}");
    }
    // A tokenizer of another kind is no vocabulary of such files, and nothing is written.
    let path = model.join("tokenizer.json");
    let mut other: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    other["normalizer"] = serde_json::json!({"type": "Lowercase"});
    fs::write(&path, other.to_string()).unwrap();
    let out = model.join("x.gguf");
    let [from, to] = [&model, &out].map(|path| path.to_str().unwrap());
    refuse(
        &["llm", "convert", "--model", from, "--out", to],
        &["tokenizer.json: cuts texts otherwise than the kinds that GGUF files name, for instance"],
    );
    assert!(!out.exists());
}
