//! The parsers, each with valid inputs to begin with.

use std::fs;
use std::path::{Path, PathBuf};

use fissfuse::data::{Dataset, Manifest, Run, Skipped, Split, Tolerance};
use fissfuse::encoder::bert::BertConfig;
use fissfuse::encoder::clip::ClipConfig;
use fissfuse::encoder::resnet::ResNetConfig;
use fissfuse::encoder::{ImageProcessor, ProcessorKind, image_size, read_image};
use fissfuse::experiment::ExperimentFile;
use fissfuse::kar::answer::{Choice, Reading, read};
use fissfuse::kar::{Budget, Header, Journal, LEAST_SHARE, Scoring, Strategy};
use fissfuse::llama::{ChatTemplate, GenerationConfig, LlamaConfig, Message, Source};
use fissfuse::tensor::safetensors::Reader;
use fissfuse::tokenizer::Tokenizer;
use fissfuse::train::RunConfig;
use tempfile::TempDir;

use super::{Target, four_times, fuzz};
use crate::support::{self, World, gguf};

/// A folder in memory where there is one: inputs are files.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// The files of this name among the fixtures.
fn fixtures(name: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut folders = vec![support::fixture("")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.file_name().is_some_and(|file| file == name) {
                found.push(fs::read(entry).unwrap());
            }
        }
    }
    assert!(!found.is_empty(), "no fixture {name}");
    found
}

#[test]
fn configurations_of_models() {
    let folder = folder();
    let file = folder.path().join("config.json");
    let target =
        Target { test: "configurations_of_models", seeds: fixtures("config.json"), stride: 1, memory: four_times };
    fuzz(target, |input| {
        fs::write(&file, input).unwrap();
        let _ = LlamaConfig::read(folder.path());
        let _ = ClipConfig::read(folder.path());
        let _ = BertConfig::read(folder.path());
        let _ = ResNetConfig::read(folder.path());
    });
}

#[test]
fn settings_of_image_processors() {
    let folder = folder();
    let file = folder.path().join("preprocessor_config.json");
    let seeds = fixtures("preprocessor_config.json");
    let target = Target { test: "settings_of_image_processors", seeds, stride: 1, memory: four_times };
    fuzz(target, |input| {
        fs::write(&file, input).unwrap();
        for kind in [ProcessorKind::Clip, ProcessorKind::ConvNext, ProcessorKind::Vit] {
            let _ = ImageProcessor::open(folder.path(), kind, Some(32));
            let _ = ImageProcessor::open(folder.path(), kind, None);
        }
    });
}

#[test]
fn settings_of_generation() {
    let folder = folder();
    let file = folder.path().join("generation_config.json");
    let seeds = [r#"{"eos_token_id": [2, 3], "temperature": 0.6, "top_p": 0.9, "top_k": 50, "do_sample": true}"#];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec()).to_vec();
    let target = Target { test: "settings_of_generation", seeds, stride: 1, memory: four_times };
    fuzz(target, |input| {
        fs::write(&file, input).unwrap();
        let _ = GenerationConfig::read(folder.path());
    });
}

#[test]
fn chat_templates() {
    let folder = folder();
    let file = folder.path().join("chat_template.jinja");
    let texts = [
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{% endfor %}{% if add_generation_prompt %}A{% endif %}",
        "{{ bos_token }}{% set n = namespace(x=0) %}{% for i in range(9) %}{% set n.x = n.x + i %}{% endfor %}{{ n.x }}",
        "{% macro f(x) %}{{ x }}{{ messages[0].content }}{% endmacro %}{{ f(1) }}{{ 'ab' * 3 }}{{ messages | tojson }}",
    ];
    let seeds = texts.map(|text| text.as_bytes().to_vec()).to_vec();
    // A template may say a text of some length itself, within the limit of what is rendered.
    let target = Target { test: "chat_templates", seeds, stride: 4, memory: |input| 4 * input + (64 << 20) };
    let messages = [Message::system("be brief"), Message::user("hi")];
    fuzz(target, |input| {
        fs::write(&file, input).unwrap();
        if let Ok(Some(template)) = ChatTemplate::open(folder.path()) {
            let _ = template.render(&messages, true);
        }
    });
}

#[test]
fn tokenizers() {
    let folder = folder();
    let file = folder.path().join("tokenizer.json");
    let small = |bytes: &Vec<u8>| bytes.len() < 40_000;
    let seeds: Vec<Vec<u8>> = fixtures("tokenizer.json").into_iter().filter(small).collect();
    // Its library keeps each token some times over.
    let target = Target { test: "tokenizers", seeds, stride: 20, memory: |input| 60 * input + (16 << 20) };
    fuzz(target, |input| {
        fs::write(&file, input).unwrap();
        if let Ok(tokenizer) = Tokenizer::open(folder.path()) {
            let _ = tokenizer.encode("A ball\u{0} nobody has séen 答案", true).map(|ids| tokenizer.decode(&ids));
        }
    });
}

#[test]
fn headers_of_safetensors() {
    let folder = folder();
    let file = folder.path().join("model.safetensors");
    let header = r#"{"__metadata__":{"a":"b"},"x":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"y":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}"#;
    let seed = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[1; 32]].concat();
    let target = Target { test: "headers_of_safetensors", seeds: vec![seed], stride: 1, memory: four_times };
    fuzz(target, |input| {
        fs::write(&file, input).unwrap();
        if let Ok(reader) = Reader::open(&file) {
            for name in reader.names() {
                let _ = (reader.shape(name), reader.dtype(name), reader.bytes(name), reader.tensor(name));
            }
        }
    });
}

#[test]
fn entities_and_mentions() {
    let world = World::new();
    let folder = folder();
    let seeds: Vec<Vec<u8>> =
        ["data/entities.jsonl", "data/test.jsonl"].map(|f| fs::read(world.path(f)).unwrap()).to_vec();
    fs::write(folder.path().join("entities.jsonl"), &seeds[0]).unwrap();
    let target = Target { test: "entities_and_mentions", seeds: seeds.clone(), stride: 4, memory: four_times };
    fuzz(target, |input| {
        for (file, other) in [("entities.jsonl", "test.jsonl"), ("test.jsonl", "entities.jsonl")] {
            fs::write(folder.path().join(file), input).unwrap();
            fs::write(folder.path().join(other), &seeds[usize::from(other == "test.jsonl")]).unwrap();
            for tolerance in [Tolerance::Strict, Tolerance::Skip] {
                let mut skipped = Skipped::default();
                if let Ok(dataset) = Dataset::open(folder.path(), tolerance, &mut skipped) {
                    let _ = dataset.mentions(Split::Test, &mut skipped);
                }
            }
        }
    });
}

#[test]
fn run_files() {
    let world = World::new();
    let dataset = Dataset::open(&world.path("data"), Tolerance::Strict, &mut Skipped::default()).unwrap();
    let mentions = dataset.mentions(Split::Test, &mut Skipped::default()).unwrap();
    let line = |m: &serde_json::Value| {
        let scores: Vec<f64> = (0..6).map(|i| 1.0 - 0.1 * f64::from(i)).collect();
        let line = serde_json::json!({"mention_id": m["mention_id"], "candidates": m["candidates"], "scores": scores});
        format!("{line}\n")
    };
    let lines: Vec<String> = world.read_lines("data/test.jsonl").iter().map(line).collect();
    let (folder, seeds) = (folder(), vec![lines.concat().into_bytes(), lines[0].clone().into_bytes()]);
    let file = folder.path().join("run.jsonl");
    let target = Target { test: "run_files", seeds, stride: 1, memory: four_times };
    fuzz(target, |input| {
        fs::write(&file, input).unwrap();
        for tolerance in [Tolerance::Strict, Tolerance::Skip] {
            let _ = Run::read(&file, &dataset, &mentions, tolerance, &mut Skipped::default());
        }
    });
}

#[test]
fn journals() {
    let header = Header {
        model: "m".into(),
        strategy: Strategy::SelectOne,
        k: 5,
        scoring: Scoring::Generate,
        least_share: LEAST_SHARE,
        max_new_tokens: 8,
        template: "t".into(),
        budget: Budget::default(),
        dataset: "d".into(),
        ranking: "r".into(),
    };
    let folder = folder();
    let file = folder.path().join("run.journal");
    drop(Journal::open(&file, &header).unwrap());
    let first = fs::read_to_string(&file).unwrap();
    let entry = r#"{"mention_id":"test-0","question":"0123","text":"B","prompt_tokens":5,"new_tokens":1}"#;
    let seeds = vec![first.clone().into_bytes(), format!("{first}{entry}\n{entry}\n").into_bytes()];
    let target = Target { test: "journals", seeds, stride: 1, memory: four_times };
    fuzz(target, |input| {
        fs::write(&file, input).unwrap();
        let _ = Journal::open(&file, &header);
    });
}

#[test]
fn manifests_of_stores() {
    let world = World::encoded();
    let folder = folder();
    let seeds = vec![fs::read(world.path("features/manifest.json")).unwrap()];
    let file = folder.path().join("manifest.json");
    let target = Target { test: "manifests_of_stores", seeds, stride: 1, memory: four_times };
    fuzz(target, |input| {
        fs::write(&file, input).unwrap();
        let _ = Manifest::read(folder.path());
    });
}

/// Contents of a folder's files.
fn files_of(folder: &Path) -> Vec<Vec<u8>> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_file()).map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn experiments() {
    let seeds = files_of(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("configs/experiments"));
    let target = Target { test: "experiments", seeds, stride: 4, memory: |input| 64 * input + (1 << 20) };
    fuzz(target, |input| {
        if let Ok(text) = std::str::from_utf8(input) {
            let _ = ExperimentFile::parse(Path::new("x.toml"), text);
        }
    });
}

#[test]
fn settings_of_runs() {
    let folder = folder();
    let file = folder.path().join("run.toml");
    let configs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("configs");
    let target = Target {
        test: "settings_of_runs",
        seeds: files_of(&configs),
        stride: 1,
        memory: |input| 32 * input + (1 << 20),
    };
    fuzz(target, |input| {
        fs::write(&file, input).unwrap();
        if let Ok(config) = RunConfig::read(&file) {
            let _ = config.train.check();
        }
    });
}

#[test]
fn images() {
    let folder = folder();
    let file = folder.path().join("image");
    let images = support::fixture("images");
    let files = fs::read_dir(images).unwrap().map(|entry| entry.unwrap().path());
    let pictures = files.filter(|path| path.extension().is_some_and(|e| e != "rgb" && e != "py"));
    let seeds: Vec<Vec<u8>> = pictures.map(|path| fs::read(path).unwrap()).collect();
    // Pixels are what a picture says they are, up to the limit of all.
    let target = Target { test: "images", seeds, stride: 10, memory: |_| 1 << 30 };
    fuzz(target, |input| {
        fs::write(&file, input).unwrap();
        let _ = (read_image(&file), image_size(&file));
    });
}

#[test]
fn answers() {
    let options = [("king", "Q1"), ("president", "Q2"), ("player", "Q3"), ("country", "Q4"), ("novelist", "Q5")];
    let options = options.map(|(name, qid)| Choice { name, qid });
    let seeds = [
        "<think>Option A is a king.</think>B",
        "B (0.9) > A (0.05) > C (0.03) > D (0.01) > E (0.01)",
        "1. **B** (most likely)\n2. A\n3. C\n4. D\n5. E",
        "答案是B。",
        "{\"answer\": \"B\", \"order\": [\"B\", \"A\"]}",
        "| Rank | Option |\n|---|---|\n| 1 | B |\n| 2 | A |",
        "The answer is B, the president (Q2), not A.",
        "<|channel|>analysis<|message|>Option A<|end|><|start|>assistant<|channel|>final<|message|>B",
    ];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec()).to_vec();
    // The reader's patterns keep tables that grow with the texts that they meet, up to a limit of their library.
    let target = Target { test: "answers", seeds, stride: 2, memory: |input| 4 * input + (16 << 20) };
    fuzz(target, |input| {
        let text = String::from_utf8_lossy(input);
        for strategy in [Strategy::SelectOne, Strategy::RankTopK] {
            if let Reading::Named(found) = read(&text, &options, strategy) {
                assert!(!found.is_empty() && found.iter().all(|at| *at < options.len()));
            }
        }
    });
}

#[test]
fn pickles() {
    let folder = folder();
    let path = folder.path().join("pytorch_model.bin");
    let seeds =
        ["parts.bin", "turned.bin", "command.bin"].map(|name| fs::read(support::fixture("pickle").join(name)).unwrap());
    // Of an opcode, which is a byte, a value is made.
    let target = Target { test: "pickles", seeds: seeds.to_vec(), stride: 1, memory: |input| 256 * input + (1 << 20) };
    fuzz(target, |input| {
        fs::write(&path, input).unwrap();
        let Ok(reader) = Reader::open_pickled(&path) else { return };
        for name in reader.names() {
            let _ = reader.tensor(name);
        }
    });
}

#[test]
fn gguf_headers() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    let mut file = gguf::File::default();
    file.set("general.architecture", gguf::Value::Text("llama".into()));
    for key in ["embedding_length", "feed_forward_length", "block_count", "attention.head_count", "context_length"] {
        file.set(&format!("llama.{key}"), gguf::Value::U32(4));
    }
    file.set("llama.attention.layer_norm_rms_epsilon", gguf::Value::F32(1e-5));
    let tokens = ["<unk>", "<s>", "</s>", "a", "b", "ab", "▁"].map(String::from).to_vec();
    file.set("tokenizer.ggml.model", gguf::Value::Text("llama".into()));
    file.set("tokenizer.ggml.scores", gguf::Value::Floats((0..tokens.len()).map(|i| -(i as f32)).collect()));
    file.set("tokenizer.ggml.token_type", gguf::Value::Ints(vec![2, 3, 3, 1, 1, 1, 1]));
    file.set("tokenizer.ggml.tokens", gguf::Value::Texts(tokens));
    file.set("tokenizer.ggml.bos_token_id", gguf::Value::U32(1));
    file.set("tokenizer.chat_template", gguf::Value::Text("{{ messages }}".into()));
    file.add_f32("token_embd.weight", &[4, 7], &[0.5; 28]);
    file.tensors.push(("blk.0.attn_q.weight".into(), vec![32, 2], 8, vec![1; 68]));
    file.tensors.push(("blk.0.attn_v.weight".into(), vec![256, 1], 12, vec![1; 144]));
    let mut by_merges = file.clone();
    by_merges.set("tokenizer.ggml.model", gguf::Value::Text("gpt2".into()));
    by_merges.set("tokenizer.ggml.pre", gguf::Value::Text("llama-bpe".into()));
    by_merges.set("tokenizer.ggml.merges", gguf::Value::Texts(vec!["a b".into()]));
    let seeds = vec![file.bytes(), by_merges.bytes()];
    // Of a vocabulary the library makes tables, whose entries are some hundred bytes.
    let target = Target { test: "gguf_headers", seeds, stride: 4, memory: |input| 256 * input + (4 << 20) };
    fuzz(target, |input| {
        fs::write(&path, input).unwrap();
        let Ok(source) = Source::open(&path) else { return };
        let _ = (
            source.config().is_ok(),
            source.generation().is_ok(),
            source.template().is_ok(),
            source.tokenizer().is_ok(),
        );
        let Source::Gguf(file) = source else { return };
        for name in file.names() {
            let _ = file.matrix(name).map(|weight| weight.row(0, &mut vec![0.0; weight.columns()]));
        }
    });
}
