//! `fissfuse-bench`: settings do what they say, and what cannot be measured is refused.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{World, refused};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fissfuse-bench")).args(args).output().unwrap()
}

fn json(args: &[&str]) -> Value {
    let output = bench(&[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn latency_measures_what_it_is_asked_for() {
    let small = ["latency", "--entities", "20", "--d", "8", "--device", "cpu", "--runs", "2"];
    let rows = |more: &[&str]| json(&[&small[..], more].concat())["latency"].as_array().unwrap().clone();
    let row = |rows: &[Value]| {
        let number = |value: &Value| value.as_u64().unwrap();
        rows.iter().map(|r| [&r["mentions"], &r["candidates"], &r["seconds"]["runs"]].map(number)).collect::<Vec<_>>()
    };
    assert_eq!(row(&rows(&["--mentions", "3"])), [[3, 10, 2]]);
    assert_eq!(row(&rows(&["--batch", "2,4", "--preset", "wikimel"])), [[2, 100, 2], [4, 100, 2]]);
    for wrong in [&["--batch", "0"][..], &["--batch", "2", "--mentions", "3"], &["--runs", "0"]] {
        assert_eq!(bench(&[&small[..], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn flops_are_those_of_the_encoder_that_is_named() {
    let world = World::new();
    let of = |args: &[&str]| json(&[&["flops", "--mentions", "2", "--d", "8"], args].concat());
    let texts = |args: &[&str]| of(args)["encoders_per_sample"]["textbook_text"].as_u64().unwrap();
    assert!(texts(&["--encoder", world.arg("encoder")]) < texts(&[]));
    // A textbook pads to the longest text that is read, and no further than the encoder goes.
    assert!(texts(&["--max-tokens", "64"]) < texts(&["--max-tokens", "77"]));
    assert_eq!(texts(&["--max-tokens", "77"]), texts(&["--max-tokens", "300"]));
    let config = world.path("encoder/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen("\"clip\"", "\"bert\"", 1)).unwrap();
    refused(&bench(&["flops", "--encoder", world.arg("encoder")]), &["config.json", "model_type `bert`"]);
}

#[test]
fn nothing_to_measure_is_an_error() {
    let world = World::new();
    assert_eq!(bench(&["encode"]).status.code(), Some(2));
    std::fs::write(world.path("texts"), "\n \n").unwrap();
    let texts = ["encode", "--texts", world.arg("texts")];
    assert_eq!(bench(&texts).status.code(), Some(2));
    let encode = [&texts[..], &["--text-encoder", world.arg("encoder")]].concat();
    refused(&bench(&encode), &["texts: holds no text"]);
    std::fs::write(world.path("counts.json"), r#"{"kernels": []}"#).unwrap();
    refused(&bench(&["kernels", "--counts", world.arg("counts.json")]), &["counts no launch"]);
}
