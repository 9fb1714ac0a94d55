//! Llamas in GGUF files: blocks against ggml's Python, tokens against SentencePiece, whole models against the same weights in a
//! Hugging Face directory, and files that are broken.

use std::fs;
use std::path::Path;

use fissfuse::llama::{Llama, LlamaConfig, Plan, Rope, RopeScaling, Source};
use fissfuse::tensor::gguf::Gguf;
use fissfuse::tensor::safetensors::Reader;
use fissfuse::tensor::{BlockType, Shards};
use serde_json::Value as Json;
use tempfile::{TempDir, tempdir};

use crate::llama::draw;
use crate::support::gguf::{File, Value};
use crate::support::{self, refuse, succeed};

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

fn fixture() -> Json {
    serde_json::from_slice(&fs::read(support::fixture("gguf/sentencepiece.json")).unwrap()).unwrap()
}

fn texts(list: &Json) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect()
}

/// Settings of a SentencePiece vocabulary.
fn by_scores(file: &mut File, fixture: &Json) {
    let numbers = |key: &str| fixture[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    file.set("tokenizer.ggml.model", Value::Text("llama".into()));
    file.set("tokenizer.ggml.tokens", Value::Texts(texts(&fixture["pieces"])));
    file.set("tokenizer.ggml.scores", Value::Floats(numbers("scores").into_iter().map(|x| x as f32).collect()));
    file.set("tokenizer.ggml.token_type", Value::Ints(numbers("types").into_iter().map(|x| x as i32).collect()));
    for (which, id) in [("unknown", 0), ("bos", 1), ("eos", 2)] {
        file.set(&format!("tokenizer.ggml.{which}_token_id"), Value::U32(id));
    }
}

/// Settings of a byte-level vocabulary: all bytes, and these merges.
fn by_merges(file: &mut File, pre: &str, merges: &[&str]) {
    // GPT-2 writes printable bytes as themselves and the others from U+0100 on.
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|byte| {
            let code = if printable(byte) { u32::from(byte) } else { next };
            next += u32::from(!printable(byte));
            char::from_u32(code).unwrap().to_string()
        })
        .collect();
    tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
    let mut kinds = vec![1; tokens.len()];
    for special in ["<|im_start|>", "<|im_end|>"] {
        tokens.push(special.into());
        kinds.push(3);
    }
    file.set("tokenizer.ggml.model", Value::Text("gpt2".into()));
    file.set("tokenizer.ggml.pre", Value::Text(pre.into()));
    file.set("tokenizer.ggml.eos_token_id", Value::U32(tokens.len() as u32 - 1));
    file.set("tokenizer.ggml.bos_token_id", Value::U32(tokens.len() as u32 - 2));
    file.set("tokenizer.ggml.tokens", Value::Texts(tokens));
    file.set("tokenizer.ggml.token_type", Value::Ints(kinds));
    file.set("tokenizer.ggml.merges", Value::Texts(merges.iter().map(|merge| merge.to_string()).collect()));
}

/// Rows of queries or keys as llama.cpp's converter writes them: `reshape(heads, 2, width / 2, columns).swapaxes(1, 2)`.
fn turned(values: &[f32], heads: usize, columns: usize) -> Vec<f32> {
    let half = values.len() / columns / heads / 2;
    let mut out = Vec::with_capacity(values.len());
    for head in 0..heads {
        for i in 0..half {
            for j in 0..2 {
                let row = head * 2 * half + j * half + i;
                out.extend(&values[row * columns..][..columns]);
            }
        }
    }
    out
}

/// A model of tests/fixtures/llama as a GGUF file, and the directory that it is from.
fn converted(name: &str) -> (TempDir, LlamaConfig, File) {
    let folder = draw(name);
    let config = LlamaConfig::read(folder.path()).unwrap();
    let shards = Shards::open(folder.path()).unwrap();
    let mut file = File::default();
    file.set("general.architecture", Value::Text("llama".into()));
    for (key, size) in [
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("block_count", config.layers),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("context_length", config.context),
        ("rope.dimension_count", config.head_dim),
    ] {
        file.set(&format!("llama.{key}"), Value::U32(size as u32));
    }
    file.set("llama.attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps));
    file.set("llama.rope.freq_base", Value::F32(config.rope.theta));
    if let RopeScaling::Linear { factor } = config.rope.scaling {
        file.set("llama.rope.scaling.type", Value::Text("linear".into()));
        file.set("llama.rope.scaling.factor", Value::F32(factor));
    }
    by_merges(&mut file, "smollm", &[]);
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers.", "blk."),
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
    for tensor in shards.names() {
        let shape = shards.shape(tensor).unwrap().to_vec();
        let values = shards.tensor_of(tensor, &shape).unwrap().data().to_vec();
        let values = match tensor {
            _ if tensor.contains("q_proj") => turned(&values, config.heads, shape[1]),
            _ if tensor.contains("k_proj") => turned(&values, config.kv_heads, shape[1]),
            _ => values,
        };
        let theirs = names.iter().fold(tensor.to_string(), |name, (ours, theirs)| name.replace(ours, theirs));
        let dimensions: Vec<usize> = shape.into_iter().rev().collect();
        file.add_f32(&theirs, &dimensions, &values);
    }
    (folder, config, file)
}

#[test]
fn a_model_has_the_logits_that_its_directory_has() {
    for name in ["multi-head", "grouped-tied"] {
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

fn says(path: &Path) -> String {
    Llama::open(path, None, None).err().map_or("opens".into(), |e| e.to_string())
}

#[test]
fn what_is_not_supported_is_named_with_what_to_do() {
    let (_, _, good) = converted("grouped-tied");
    // Elsewhere than the directory, whose tokenizer.json would count.
    let folder = tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    type Change = fn(&mut File);
    let cases: [(Change, &str); 17] = [
        (
            |f| f.set("general.architecture", Value::Text("mamba".into())),
            "has the architecture `mamba`; the decoder computes",
        ),
        (|f| f.unset("general.architecture"), "has no architecture"),
        (|f| f.set("llama.expert_count", Value::U32(8)), "is a mixture of experts"),
        (|f| f.unset("llama.block_count"), "`llama.block_count` is missing"),
        (|f| f.set("llama.block_count", Value::U32(1 << 30)), "it has not as many tensors"),
        (|f| f.set("llama.block_count", Value::U32(1)), "is no tensor of a Llama"),
        (|f| f.set("llama.block_count", Value::U32(3)), "tensor `blk.2.attn_q.weight`: is missing"),
        (|f| f.set("llama.rope.dimension_count", Value::U32(6)), "needs 16, the width of a head"),
        (|f| f.set("llama.rope.scaling.type", Value::Text("yarn".into())), "`llama.rope.scaling.type` is \"yarn\""),
        (|f| f.set("tokenizer.ggml.model", Value::Text("bert".into())), "needs `llama` or `gpt2`; put the model's"),
        (|f| f.set("tokenizer.ggml.pre", Value::Text("tekken".into())), "needs one of gpt-2, smollm, llama-bpe, qwen2"),
        (|f| f.unset("tokenizer.ggml.tokens"), "`tokenizer.ggml.tokens` is missing"),
        (
            |f| {
                f.set("tokenizer.ggml.bos_token_id", Value::U32(9999));
                f.set("tokenizer.ggml.add_bos_token", Value::Flag(1));
            },
            "needs the number of one of 258 tokens",
        ),
        (|f| f.tensor("blk.0.attn_q.weight").2 = 10, "tensor `blk.0.attn_q.weight`: is Q2_K; F32, F16, BF16, Q8_0"),
        (|f| f.tensor("blk.0.attn_q.weight").2 = 77, "is type 77; F32"),
        (
            |f| f.tensor("blk.0.attn_q.weight").3[..4].copy_from_slice(&f32::NAN.to_le_bytes()),
            "holds NaN or infinity (value 0)",
        ),
        (|f| f.set("general.alignment", Value::U32(24)), "`general.alignment` is 24, needs a power of two"),
    ];
    for (change, wanted) in cases {
        let mut file = good.clone();
        change(&mut file);
        file.write(&path);
        let said = says(&path);
        assert!(said.contains("model.gguf") && said.contains(wanted), "{wanted:?}: {said}");
    }
    good.write(&path);
    assert_eq!(says(&path), "opens");
    refuse(&["llm", "--model", "/nonexistent.gguf", "--prompt", "x"], &["nonexistent.gguf"]);
}

#[test]
fn broken_headers_are_errors() {
    let (folder, _, good) = converted("grouped-tied");
    let path = folder.path().join("model.gguf");
    let whole = good.bytes();
    let says = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Gguf::open(&path).err().map_or("opens".into(), |e| e.to_string())
    };
    assert_eq!(says(&whole), "opens");
    for (at, bytes, wanted) in [
        (0, &b"GGML"[..], "is no GGUF file"),
        (0, b"PK\x03\x04", "is a zip archive"),
        (4, &[1, 0, 0, 0], "is of GGUF version 1, of 2023"),
        (4, &[0, 0, 0, 3], "is a big-endian GGUF file"),
        (4, &[9, 0, 0, 0], "is of GGUF version 9; versions 2 and 3 are read"),
        (8, &[255; 8], "is no text of 1 to"),
        (16, &[255; 8], "ends within its header"),
        (24, &[0; 8], "names a setting at byte 24"),
        (24, &[255; 8], "ends within its header"),
    ] {
        let mut broken = whole.clone();
        broken[at..at + bytes.len()].copy_from_slice(bytes);
        let said = says(&broken);
        assert!(said.contains(wanted) || (at == 8 && said.contains("header")), "{wanted:?}: {said}");
    }
    for length in [0, 3, 20, 100, whole.len() / 2, whole.len() - 32] {
        assert!(says(&whole[..length]).contains("model.gguf"), "{length} bytes");
    }
    type Change = fn(&mut File);
    let cases: [(Change, &str); 8] = [
        (|f| f.tensors[0].1 = vec![1 << 62, 1 << 62], "has the impossible shape"),
        (|f| f.tensors[0].1 = vec![0, 4], "has the impossible shape"),
        (|f| f.tensors[0].1 = vec![1; 5], "has 5 dimensions, 1 to 4 are possible"),
        (|f| f.tensors[0].1 = vec![], "has 0 dimensions"),
        (|f| f.tensors[0].1 = vec![1 << 40], "lies beyond the file's end"),
        (|f| (f.tensors[0].1, f.tensors[0].2) = (vec![33, 4], 8), "has rows of 33, which are no whole blocks of 32"),
        (|f| f.tensors[1].0 = f.tensors[0].0.clone(), "has the tensor `token_embd.weight` twice"),
        (|f| f.set("a.flag", Value::Flag(2)), "`a.flag` is 2, needs 0 (no) or 1 (yes)"),
    ];
    for (change, wanted) in cases {
        let mut file = good.clone();
        change(&mut file);
        let said = says(&file.bytes());
        assert!(said.contains(wanted), "{wanted:?}: {said}");
    }
    let mut twice = good.clone();
    twice.settings.push(twice.settings[0].clone());
    assert!(says(&twice.bytes()).contains("has the setting `general.architecture` twice"));
}

#[test]
fn parts_of_a_model_are_found_beside_each_other() {
    let (folder, _, whole) = converted("grouped-tied");
    let tokens = [3, 5, 7];
    let alone = folder.path().join("whole.gguf");
    whole.write(&alone);
    let want = Llama::open(&alone, None, None).unwrap().logits(&tokens).unwrap();
    let parts = tempdir().unwrap();
    let path = |number: usize| parts.path().join(format!("model-{number:05}-of-00003.gguf"));
    let (count, each) = (whole.tensors.len(), whole.tensors.len().div_ceil(3));
    for (number, tensors) in whole.tensors.chunks(each).enumerate() {
        let settings = if number == 0 { whole.settings.clone() } else { Vec::new() };
        let mut part = File { settings, tensors: tensors.to_vec() };
        part.set("split.no", Value::U32(number as u32));
        part.set("split.count", Value::U32(3));
        part.set("split.tensors.count", Value::U32(count as u32));
        part.write(&path(number + 1));
    }
    // A folder that holds one model is that model.
    for opened in [path(1), parts.path().to_path_buf()] {
        let got = Llama::open(&opened, None, None).unwrap().logits(&tokens).unwrap();
        assert_eq!(got.data(), want.data());
    }
    fs::copy(path(1), path(2).with_file_name("model-00002-of-00003.gguf")).unwrap();
    assert!(says(&path(1)).contains("is not part 2 of 3 of a model, by its `split.no`"), "{}", says(&path(1)));
    fs::remove_file(path(2)).unwrap();
    assert!(says(&path(1)).contains("model-00002-of-00003.gguf: is missing: the model has 3 parts"));
    fs::copy(&alone, parts.path().join("other.gguf")).unwrap();
    assert!(says(parts.path()).contains("holds several models"));
    fs::rename(path(1), parts.path().join("renamed.gguf")).unwrap();
    assert!(says(&parts.path().join("renamed.gguf")).contains("which end in `-00001-of-00003.gguf`"));
}

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
    refuse(&["llm", "convert", "--model", to, "--out", "elsewhere"], &["is a Hugging Face directory already"]);
}
