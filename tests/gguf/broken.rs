//! Files that are broken, incomplete, or of kinds that are not supported.

use std::fs;
use std::path::Path;

use fissfuse::llama::Llama;
use fissfuse::tensor::gguf::Gguf;
use tempfile::tempdir;

use super::models::converted;
use crate::support::gguf::{File, Value};
use crate::support::refuse;

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
        (|f| f.set("llama.block_count", Value::U32(1 << 30)), "but not as many tensors"),
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
