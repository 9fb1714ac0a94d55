//! What each entry of a model directory's files does: for every key that transformers 4 and 5 write for the models
//! that are read, a value and what must come of it.

mod clip;
mod llama;
mod others;

use std::fs;
use std::path::Path;

use fissfuse::Result;
use fissfuse::encoder::{ImageEncoder, Precision, TextEncoder};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::support::{World, fixture, refuse, replace, run};

/// What must come of an entry.
#[derive(Clone, Copy)]
enum Must {
    /// It changes nothing.
    Same,
    /// It is computed: the result is another one.
    Differ,
    /// It is refused with these words.
    Refuse(&'static str),
}

use Must::{Differ, Refuse, Same};

type Row = (&'static str, &'static str, Value, Must);

fn copy(name: &str) -> TempDir {
    let folder = tempdir().unwrap();
    for file in std::fs::read_dir(fixture(name)).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

/// Puts each row's value into its file in turn, and compares what the model computes then.
fn check(folder: &Path, rows: Vec<Row>, compute: impl Fn(&Path) -> Result<Vec<f32>>) {
    let plain = compute(folder).unwrap();
    for (file, key, value, must) in rows {
        let path = folder.join(file);
        let before = std::fs::read_to_string(&path).ok();
        let mut content: Value = before.as_deref().map_or(json!({}), |text| serde_json::from_str(text).unwrap());
        let mut at = &mut content;
        for part in key.split('.') {
            at = &mut at[part];
        }
        *at = value.clone();
        std::fs::write(&path, content.to_string()).unwrap();
        let (got, what) = (compute(folder), format!("{file}: {key} = {value}"));
        match (must, got) {
            (Same, Ok(got)) => assert!(got == plain, "{what}: another result"),
            (Differ, Ok(got)) => assert!(got != plain, "{what}: the same result"),
            (Refuse(says), Err(error)) => {
                let error = error.to_string();
                assert!(error.contains(file) && error.contains(says), "{what}: {error}");
                assert!(!error.contains("untagged") && !error.contains("invalid type"), "{what}: {error}");
            }
            (Refuse(_), Ok(_)) => panic!("{what}: not refused"),
            (_, Err(error)) => panic!("{what}: {error}"),
        }
        match before {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
    }
}

#[test]
fn a_tokenizer_that_is_something_else_is_named() {
    let folder = copy("bert/sharded-f32");
    let (model, file) = (folder.path().to_str().unwrap().to_string(), folder.path().join("tokenizer.json"));
    let good = std::fs::read(&file).unwrap();
    let out = folder.path().join("x").to_str().unwrap().to_string();
    let embed = ["embed", "--encoder", &model, "--text", "king", "--out", &out];
    for (bytes, says) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"[..], "git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"{\"version\": \"1.0\"", "ends in line 1 before it is complete"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        refuse(&embed, &["tokenizer.json", says]);
    }
    std::fs::write(&file, [b"\xef\xbb\xbf", &good[..]].concat()).unwrap();
    crate::support::succeed(&embed);
}

#[test]
fn blocks_that_a_configuration_leaves_out_are_named() {
    let world = World::new();
    for name in ["clip/quick-gelu-f32", "siglip/siglip-f32"] {
        let folder = copy(name);
        let path = folder.path().join("config.json");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(&path, config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1")).unwrap();
        let encode = replace(world.encode(), "--encoder", folder.path().to_str().unwrap().to_string().leak());
        let output = run(&replace(encode, "--out", world.arg(name.split_once('/').unwrap().0)));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        // Of texts and of images.
        assert_eq!(
            said.matches("has more blocks than the 1 that its configuration names").count(),
            2,
            "{name}: {said}"
        );
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name() {
    let folder = copy("clip/quick-gelu-f32");
    let file = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, &bytes).unwrap();
    let says = TextEncoder::open(folder.path(), Precision::F32)
        .map(drop)
        .and(ImageEncoder::open(folder.path(), Precision::F32).map(drop))
        .unwrap_err()
        .to_string();
    assert!(says.contains("model.safetensors: tensor `") && says.contains("holds NaN or infinity"), "{says}");
}
