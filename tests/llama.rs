//! The Llama decoder against transformers (tests/fixtures/llama/make.py), in all precisions, and with any split of a text
//! into cached prefix and rest.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use fissfuse::llama::{
    Generation, Llama, LlamaConfig, Message, Precision, Preset, Sampling, Stop, quantize, write_random,
};
use fissfuse::tensor::safetensors::{Reader, Writer};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::support::{self, refuse, run, succeed};

/// What make.py draws its weights from.
const SEED: u64 = 11;

/// f32 against transformers' f32, relative to the largest logit.
const F32: f32 = 1e-5;

/// The same text in other pieces: sums run over other numbers of terms at a time.
const SPLIT: f32 = 1e-5;

const MODELS: [&str; 5] = ["multi-head", "grouped-tied", "llama3", "qwen2", "mistral"];

pub fn fixture(name: &str) -> PathBuf {
    support::fixture("llama").join(name)
}

/// A directory with a fixture's weights.
pub fn draw(name: &str) -> TempDir {
    let folder = tempdir().unwrap();
    let config = LlamaConfig::read(&fixture(name)).unwrap();
    write_random(folder.path(), &config, Precision::F32, SEED, ["a word"].into_iter()).unwrap();
    folder
}

struct Expected {
    ids: Vec<u32>,
    logits: Vec<f32>,
    greedy: Vec<u32>,
}

fn expected(name: &str) -> Expected {
    let reader = Reader::open(&fixture(name).join("expected.safetensors")).unwrap();
    let ids = |name| reader.values::<i64>(name).unwrap().into_iter().map(|id| id as u32).collect();
    Expected { ids: ids("ids"), logits: reader.tensor("logits").unwrap().data().to_vec(), greedy: ids("greedy") }
}

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max, x| max.max(x.abs()))
}

/// Largest difference, relative to the largest value wanted.
fn error(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).fold(0.0f32, |max, (g, w)| max.max((g - w).abs())) / largest(want)
}

#[test]
fn logits_and_greedy_tokens_are_those_of_transformers() {
    for name in MODELS {
        let (folder, want) = (draw(name), expected(name));
        let llama = Llama::open(folder.path(), None, None).unwrap();
        let logits = llama.logits(&want.ids).unwrap();
        let off = error(logits.data(), &want.logits);
        assert!(off < F32, "{name}: logits are off by {off}");
        let how = Generation { sampling: Sampling::GREEDY, max_new_tokens: want.greedy.len() };
        let (answers, spent) = llama.generate(None, &[&want.ids[..12]], how, |_, _| ControlFlow::Continue(())).unwrap();
        assert_eq!((&answers[0].tokens, answers[0].stop), (&want.greedy, Stop::Length), "{name}");
        assert_eq!((spent.prompt_tokens, spent.decoded_tokens), (12, want.greedy.len() - 1));
    }
}

#[test]
fn any_split_into_prefix_and_rest_gives_the_same_logits() {
    for name in MODELS {
        let (folder, want) = (draw(name), expected(name));
        let llama = Llama::open(folder.path(), None, None).unwrap();
        let vocabulary = llama.config().vocab_size;
        let row = |position: usize| &want.logits[position * vocabulary..][..vocabulary];
        for cut in 1..want.ids.len() {
            let (first, rest) = want.ids.split_at(cut);
            let prefix = llama.prefill_prefix(None, first).unwrap();
            // A ragged batch, all on one prefix: the whole rest, its first token, and its first half.
            let batch = [rest, &rest[..1], &rest[..rest.len().div_ceil(2)]];
            let got = llama.continue_from(Some(&prefix), &batch).unwrap();
            for (tokens, got) in batch.iter().zip(&got) {
                let off = error(got, row(cut + tokens.len() - 1));
                assert!(off < F32 + SPLIT, "{name}, cut at {cut}: off by {off}");
            }
            // A prefix on a prefix.
            if rest.len() > 1 {
                let (second, last) = rest.split_at(rest.len() / 2);
                let longer = llama.prefill_prefix(Some(&prefix), second).unwrap();
                assert_eq!(longer.len(), cut + second.len());
                let got = llama.continue_from(Some(&longer), &[last]).unwrap();
                assert!(error(&got[0], row(want.ids.len() - 1)) < F32 + SPLIT, "{name}, cut at {cut}");
            }
        }
    }
}

#[test]
fn texts_longer_than_a_pass_are_cut_without_a_trace() {
    let folder = tempdir().unwrap();
    write_random(folder.path(), &Preset::Tiny.config(), Precision::F32, 3, [].into_iter()).unwrap();
    let llama = Llama::open(folder.path(), None, None).unwrap();
    let text: Vec<u32> = (0..1500).map(|i| i * 37 % 500).collect();
    let short = &text[..5];
    let together = llama.continue_from(None, &[short, &text, short]).unwrap();
    let alone = llama.continue_from(None, &[short]).unwrap();
    assert!(error(&together[0], &alone[0]) < SPLIT && error(&together[2], &alone[0]) < SPLIT);
    let prefix = llama.prefill_prefix(None, &text[..777]).unwrap();
    let split = llama.continue_from(Some(&prefix), &[&text[777..]]).unwrap();
    assert!(error(&together[1], &split[0]) < SPLIT);
}

#[test]
fn answers_are_the_same_alone_and_in_a_batch() {
    let (folder, want) = (draw("llama3"), expected("llama3"));
    let llama = Llama::open(folder.path(), None, None).unwrap();
    let prompts = [&want.ids[..12], &want.ids[5..9], &want.ids[20..21]];
    let greedy = Generation { sampling: Sampling::GREEDY, max_new_tokens: 16 };
    let run = |prompts: &[&[u32]], how| llama.generate(None, prompts, how, |_, _| ControlFlow::Continue(())).unwrap().0;
    let together = run(&prompts, greedy);
    assert_eq!(together[0].tokens, want.greedy[..16]);
    for (prompt, together) in prompts.iter().zip(&together) {
        assert_eq!(&run(&[prompt], greedy)[0], together);
    }
    let drawn = |seed| Generation { sampling: Sampling { temperature: 1.5, top_p: 0.9, seed }, max_new_tokens: 16 };
    assert_eq!(run(&prompts, drawn(1)), run(&prompts, drawn(1)));
    assert_ne!(run(&prompts, drawn(1)), run(&prompts, drawn(2)));
    let (answers, _) = llama
        .generate(
            None,
            &prompts,
            greedy,
            |i, _| if i == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) },
        )
        .unwrap();
    assert_eq!(
        answers.iter().map(|a| (a.tokens.len(), a.stop)).collect::<Vec<_>>(),
        [(16, Stop::Length), (1, Stop::Caller), (16, Stop::Length)]
    );
}

/// Bounds of the logits' error, relative to the largest: the error of one rounding of weights and activations (f16 weights
/// 2^-12, bf16 2^-9, int8 1/254 of the group's largest, int4 1/15), which two layers of random weights add up to a few
/// times as much. In trained models the terms are as many, and their errors as independent.
#[test]
fn other_precisions_stay_within_their_bounds() {
    for (precision, bound) in
        [(Precision::F16, 2e-3), (Precision::Bf16, 0.03), (Precision::Int8, 0.04), (Precision::Int4, 0.5)]
    {
        for name in MODELS {
            let (folder, want) = (draw(name), expected(name));
            let llama = Llama::open(folder.path(), Some(precision), None).unwrap();
            assert_eq!(llama.precision(), precision);
            let off = error(llama.logits(&want.ids).unwrap().data(), &want.logits);
            println!("{precision} {name}: {off}");
            assert!(off < bound, "{precision}, {name}: logits are off by {off}");
            assert!(off > bound / 100.0, "{precision}, {name}: an error of {off} is that of a higher precision");
            // One token at a time goes through other kernels than many at once.
            let prefix = llama.prefill_prefix(None, &want.ids[..20]).unwrap();
            let got = llama.continue_from(Some(&prefix), &[&want.ids[20..21]]).unwrap();
            let vocabulary = llama.config().vocab_size;
            let off = error(&got[0], &want.logits[20 * vocabulary..][..vocabulary]);
            assert!(off < bound, "{precision}, {name}: the logits of one token are off by {off}");
        }
    }
}

#[test]
fn a_quantized_directory_is_what_quantizing_on_load_gives() {
    for (name, precision) in
        [("multi-head", Precision::Int8), ("grouped-tied", Precision::Int8), ("grouped-tied", Precision::Int4)]
    {
        let (folder, out, want) = (draw(name), tempdir().unwrap(), expected(name));
        quantize(folder.path(), out.path(), precision, |_, _| {}).unwrap();
        let on_load = Llama::open(folder.path(), Some(precision), None).unwrap();
        let packed = Llama::open(out.path(), None, None).unwrap();
        assert_eq!(packed.precision(), precision);
        assert_eq!(packed.logits(&want.ids).unwrap().data(), on_load.logits(&want.ids).unwrap().data());
        assert!(packed.encode_chat(&[Message::user("a word")]).is_ok());
        let again = quantize(folder.path(), out.path(), precision, |_, _| {}).unwrap_err().to_string();
        assert!(again.contains("exists already"), "{again}");
        let other = Llama::open(out.path(), Some(Precision::Bf16), None).err().unwrap().to_string();
        assert!(other.contains(&format!("holds {precision} weights")), "{other}");
    }
}

#[test]
fn streamed_text_is_the_text_and_never_half_a_character() {
    let folder = draw("multi-head");
    let llama = Llama::open(folder.path(), None, None).unwrap();
    let (text, tokenizer) = ("Jürgen 🌟 a word, 名前.", llama.tokenizer());
    let ids = tokenizer.encode(text, true).unwrap();
    let mut stream = tokenizer.stream();
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert!(pieces.iter().any(|piece| piece == "🌟") && !pieces.iter().any(|piece| piece.contains('\u{fffd}')));
    pieces.push(stream.finish().unwrap());
    assert_eq!(pieces.concat(), tokenizer.decode(&ids).unwrap());
    // An answer that ends within a character shows it as such.
    let mut stream = tokenizer.stream();
    let star = tokenizer.encode("🌟", false).unwrap();
    assert_eq!(stream.push(star[0]).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "\u{fffd}");
}

/// A directory that opens, for spoiling; its weights are in shards.
fn sharded() -> TempDir {
    let folder = draw("multi-head");
    let (path, at) = (folder.path().to_path_buf(), |name: &str| folder.path().join(name));
    let reader = Reader::open(&at("model.safetensors")).unwrap();
    let mut places = serde_json::Map::new();
    for (i, part) in ["layers.0", "layers.1", ""].into_iter().enumerate() {
        let name = format!("model-{:05}-of-00003.safetensors", i + 1);
        let mine: Vec<&str> = reader
            .names()
            .filter(|n| if part.is_empty() { !n.contains("layers.") } else { n.contains(part) })
            .collect();
        let tensors: Vec<_> = mine.iter().map(|n| reader.tensor(n).unwrap()).collect();
        let mut writer = Writer::default();
        mine.iter().zip(&tensors).for_each(|(name, tensor)| {
            writer.tensor(*name, tensor);
        });
        writer.write(&at(&name)).unwrap();
        places.extend(mine.iter().map(|n| (n.to_string(), name.clone().into())));
    }
    let index = json!({"metadata": {}, "weight_map": places});
    std::fs::write(path.join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::remove_file(at("model.safetensors")).unwrap();
    folder
}

fn refusal(folder: &Path) -> String {
    Llama::open(folder, None, None).err().expect("must be refused").to_string()
}

#[test]
fn shards_are_read_and_missing_ones_named() {
    let (folder, want) = (sharded(), expected("multi-head"));
    let logits = Llama::open(folder.path(), None, None).unwrap().logits(&want.ids).unwrap();
    assert!(error(logits.data(), &want.logits) < F32);
    let shard = folder.path().join("model-00002-of-00003.safetensors");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &bytes[..bytes.len() - 4]).unwrap();
    assert!(refusal(folder.path()).contains("model-00002-of-00003.safetensors: is no complete safetensors file"));
    std::fs::remove_file(&shard).unwrap();
    let says = refusal(folder.path());
    assert!(says.contains("index.json: names shards that are missing: model-00002-of-00003.safetensors"), "{says}");
    std::fs::copy(folder.path().join("model-00001-of-00003.safetensors"), &shard).unwrap();
    let says = refusal(folder.path());
    assert!(says.contains("model-00002-of-00003.safetensors: tensor `model.layers.1."), "{says}");
}

#[test]
fn directories_that_are_not_as_config_json_says_are_refused() {
    let folder = draw("grouped-tied");
    let path = folder.path().join("config.json");
    let good: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let says = |change: &dyn Fn(&mut Value)| {
        let mut config = good.clone();
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
        refusal(folder.path())
    };
    for (key, value, reason) in [
        ("model_type", json!("gpt2"), "has model_type `gpt2`; the decoder computes `llama`"),
        ("hidden_act", json!("gelu"), "`hidden_act` is `gelu`, which is not computed; supported: `silu`"),
        ("attention_bias", json!(true), "`attention_bias` is true, which is not computed; supported: false"),
        ("num_attention_heads", json!(5), "2 key and value heads do not divide 5"),
        ("head_dim", json!(15), "head_dim is 15; rotary embedding needs an even one"),
        ("hidden_size", json!(0), "`hidden_size` is 0, needs a size of at least 1"),
        ("vocab_size", json!("many"), "`vocab_size` is `many`, needs a whole number"),
        ("num_hidden_layers", json!(1 << 29), "is missing (and more than 10000 more tensors)"),
        ("vocab_size", json!(1 << 30), "config.json says [1073741824, 64]"),
        ("vocab_size", json!(1u64 << 40), "needs a size that makes sense"),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 2.0}), "rope type `yarn` is not supported"),
        ("rope_scaling", json!({"rope_type": "linear"}), "lacks a positive `rope_scaling.factor`"),
        ("quantization_config", json!({"quant_method": "gptq", "bits": 4}), "is quantized by `gptq`"),
        (
            "intermediate_size",
            json!(64),
            "`model.layers.0.mlp.gate_proj.weight`: has shape [128, 64], config.json says [64, 64]",
        ),
        ("num_hidden_layers", json!(3), "`model.layers.2.self_attn.q_proj.weight`: is missing (and 8 more tensors)"),
        ("num_hidden_layers", json!(1), "is no tensor of a Llama as config.json describes it"),
        ("tie_word_embeddings", json!(false), "`lm_head.weight`: is missing"),
    ] {
        let says = says(&|config| config[key] = value.clone());
        assert!(says.contains(reason), "{key}: {says}");
    }
    std::fs::write(&path, "{").unwrap();
    assert!(refusal(folder.path()).contains("config.json: is no JSON"));
    std::fs::remove_file(&path).unwrap();
    assert!(refusal(folder.path()).contains("has no config.json"));
    std::fs::write(&path, good.to_string()).unwrap();
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    assert!(refusal(folder.path()).contains("tokenizer.json: is missing"));
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert!(refusal(folder.path()).contains("has no weights: none of model.safetensors, pytorch_model.bin"));
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let (folder, want) = (draw("multi-head"), expected("multi-head"));
    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let llama = Llama::open(folder.path(), None, None).unwrap();
    let says = |result: fissfuse::Result<()>| result.unwrap_err().to_string();
    let template = says(llama.encode_chat(&[Message::user("Who?")]).map(|_| ()));
    assert!(template.contains("has no chat template"), "{template}");
    let long = says(llama.logits(&[3; 129]).map(|_| ()));
    assert!(long.contains("129 tokens are more than the model's context of 128"), "{long}");
    let how = |temperature, top_p, max_new_tokens| Generation {
        sampling: Sampling { temperature, top_p, seed: 0 },
        max_new_tokens,
    };
    let generate = |how| llama.generate(None, &[&want.ids], how, |_, _| ControlFlow::Continue(())).map(|_| ());
    assert!(says(generate(how(0.0, 1.0, 90))).contains("129 tokens are more"));
    assert!(generate(how(0.0, 1.0, 0)).is_ok());
    assert!(says(generate(how(-1.0, 1.0, 1))).contains("temperature -1"));
    assert!(says(generate(how(f32::NAN, 1.0, 1))).contains("temperature NaN"));
    assert!(says(generate(how(1.0, 0.0, 1))).contains("top-p 0"));
    assert!(says(llama.logits(&[128]).map(|_| ())).contains("token 128 is beyond the vocabulary of 128"));
    assert!(llama.logits(&[]).is_err());
    let foreign = draw("llama3");
    let other = Llama::open(foreign.path(), None, None).unwrap();
    let prefix = other.prefill_prefix(None, &want.ids[..3]).unwrap();
    let mixed = says(llama.continue_from(Some(&prefix), &[&want.ids]).map(|_| ()));
    assert!(mixed.contains("another model"), "{mixed}");
}

#[test]
fn a_cache_that_does_not_fit_says_what_would() {
    let folder = tempdir().unwrap();
    let config = LlamaConfig { context: 1 << 40, ..Preset::Tiny.config() };
    write_random(folder.path(), &config, Precision::F32, 3, [].into_iter()).unwrap();
    let llama = Llama::open(folder.path(), None, None).unwrap();
    let how = Generation { sampling: Sampling::GREEDY, max_new_tokens: 1 << 38 };
    let refused = llama.generate(None, &[&[1, 2, 3]], how, |_, _| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(refused.contains("tokens would fit") && refused.contains("B are free"), "{refused}");
}

#[test]
fn the_command_writes_text_and_logits() {
    let (folder, out) = (draw("multi-head"), tempdir().unwrap());
    let (model, file) = (folder.path().to_str().unwrap(), out.path().join("logits.safetensors"));
    let base = ["llm", "--model", model, "--device", "cpu", "--prompt"];
    succeed(&[&base[..], &["!!", "--logits", file.to_str().unwrap()]].concat());
    let written = Reader::open(&file).unwrap();
    let ids = written.values::<i64>("ids").unwrap();
    assert_eq!(written.shape("logits").unwrap(), [ids.len(), 128]);
    let llama = Llama::open(folder.path(), None, None).unwrap();
    let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
    assert_eq!(ids, llama.tokenizer().encode("!!", true).unwrap());
    assert_eq!(written.tensor("logits").unwrap().data(), llama.logits(&ids).unwrap().data());
    let output = run(&[&base[..], &["!!", "--max-new-tokens", "3", "--temperature", "1", "--seed", "4"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.contains("prefill: 3 tokens, "), "{errors}");
    refuse(&[&base[..], &["!!", "--max-new-tokens", "1000"]].concat(), &["are more than the model's context of 128"]);
    refuse(&["llm", "random", "--out", model], &["exists already"]);
    let other = folder.path().join("other");
    let other = other.to_str().unwrap();
    let random = ["llm", "random", "--out", other];
    let printed = succeed(&[&random[..], &["--preset", "tiny"]].concat());
    let weights = Reader::open(&Path::new(other).join("model.safetensors")).unwrap();
    let count: usize = weights.names().map(|name| weights.shape(name).unwrap().iter().product::<usize>()).sum();
    assert!(printed.contains(&format!("a random Llama of {count} parameters")), "{count}: {printed}");
    std::fs::remove_dir_all(other).unwrap();
    refuse(&[&random[..], &["--precision", "int8"]].concat(), &["fissfuse llm quantize"]);
    refuse(&[&random[..], &["--preset", "8b", "--layers", "1000000000"]].concat(), &["other", "GiB are free"]);
    assert!(!Path::new(other).exists());
    refuse(&["llm", "quantize", "--model", model, "--out", model, "--precision", "bf16"], &["bf16 is no quantized"]);
    assert_eq!(run(&["llm", "--prompt", "x"]).status.code(), Some(2));
}
