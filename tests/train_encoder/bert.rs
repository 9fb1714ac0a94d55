//! BERT and DistilBERT that are trained along.

use std::fs;
use std::path::Path;

use fissfuse::encoder::{Precision, TextEncoder, TrainableEncoder};
use serde_json::Value;

use super::{
    expect_a_device_trains_alike, expect_gradients, expect_states, moved, one, opened, train, with, with_each,
};
use crate::support::{World, fixture, refuse, replace, succeed};

/// Saved in shards with a pooler, with a head for masked words, and distilled.
const FIXTURES: [&str; 3] = ["bert/sharded-f32", "bert/masked-lm-bf16", "bert/distilled-f32"];

#[test]
fn its_states_are_those_that_the_encoder_gives_and_it_is_written_as_it_was_read() {
    with_each(&FIXTURES, |name, files, layers, [from, to]| {
        let texts = ["hussein of jordan", "a king", "with his wife, and shahbanu farah!", ""];
        let ids = files.tokens_at_most(&texts, 9).unwrap();
        let encoder = TextEncoder::open(from, Precision::F32).unwrap();
        assert_eq!(ids, encoder.tokenize(&texts, 9).unwrap());
        let states = files.text_states(layers, &ids.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        let encoded = encoder.encode_texts(&texts, 9).unwrap();
        expect_states(name, states, &encoded);
        assert_eq!(TextEncoder::open(to, Precision::F32).unwrap().encode_texts(&texts, 9).unwrap(), encoded, "{name}");
    });
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let world = World::new();
    let dataset = opened(&world);
    for (name, settings) in [
        (FIXTURES[0], "[model]\nname = \"bert\"\n"),
        (FIXTURES[2], "[model]\nd = 16\nmodalities = \"text\"\n"),
        (FIXTURES[1], "[model]\nname = \"blink\"\n[encoder]\nlora_rank = 2\n"),
    ] {
        expect_gradients(&one(fixture(name)), &dataset, settings);
    }
}

/// `fissfuse train --train-encoder` with a BERT in the place of a CLIP.
fn train_bert(world: &World, out: &str, name: &str) -> Vec<&'static str> {
    let folder = fixture(name).to_str().unwrap().to_string().leak();
    replace(train(world, out), "--train-encoder", folder)
}

#[test]
fn it_learns_and_what_comes_out_links_as_it_was_validated() {
    let world = World::encoded();
    for name in [FIXTURES[0], FIXTURES[2]] {
        let out: &'static str = name.rsplit('/').next().unwrap();
        let args = with(&train_bert(&world, out, name), &["--model", "bert"]);
        succeed(&args);
        let records = world.read_lines(&format!("{out}/train.jsonl"));
        let loss = |epoch: usize| records[epoch]["loss"].as_f64().unwrap();
        assert!(records.len() == 3 && loss(2) < loss(0), "{records:?}");
        let encoder: &'static str = format!("{out}/encoder").leak();
        let (own, metrics): (&'static str, &'static str) = (format!("{out}/own").leak(), format!("{out}/eval").leak());
        let encode = ["encode", "--data", world.arg("data"), "--encoder", world.arg(encoder), "--modalities", "text"];
        succeed(&[&encode[..], &["--out", world.arg(own), "--precision", "f32", "--device", "cpu"]].concat());
        let paths = ["--data", world.arg("data"), "--features", world.arg(own), "--model", world.arg(out)];
        succeed(&[&["eval", "--split", "valid", "--device", "cpu", "--out", world.arg(metrics)][..], &paths].concat());
        let metrics = fs::read(world.path(metrics).join("metrics.json")).unwrap();
        let metrics: Value = serde_json::from_slice(&metrics).unwrap();
        let best = records.iter().rfind(|record| record["best"] == true).unwrap();
        assert_eq!(metrics["mean"], best["valid"], "{metrics:#}");
    }
    let names = moved_from(&world, FIXTURES[2], "distilled-f32/encoder");
    for name in ["word_embeddings.weight", "embeddings.LayerNorm.bias", "layer.0.attention.q_lin.weight"] {
        assert!(names.iter().any(|moved| moved.ends_with(name)), "{name} did not move: {names:?}");
    }
}

/// Names of the weights that a run changed, as the fixture's file without its head has them.
fn moved_from(world: &World, fixture_name: &str, trained: &str) -> Vec<String> {
    let from = fixture(fixture_name);
    let files = TrainableEncoder::read(&from).unwrap();
    let bare = world.path("bare");
    files.write(&files.weights(&from).unwrap(), Precision::F32, &bare).unwrap();
    moved(&bare, &world.path(trained))
}

#[test]
fn a_model_that_reads_images_is_refused_with_what_to_do() {
    let world = World::new();
    let args = train_bert(&world, "run", FIXTURES[0]);
    refuse(&args, &["holds a BERT, which encodes texts", "--modalities text", "bert, blink"]);
    succeed(&with(&args, &["--modalities", "text"]));
    let copied = world.path("absurd");
    copy(&fixture(FIXTURES[2]), &copied);
    let config = fs::read_to_string(copied.join("config.json")).unwrap();
    fs::write(copied.join("config.json"), config.replace("\"hidden_dim\": 40", "\"hidden_dim\": 4000000")).unwrap();
    refuse(
        &replace(args, "--train-encoder", world.arg("absurd")),
        &["config.json", "`intermediate_size` is 4000000", "up to 65536"],
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap().flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_device_trains_it_as_the_processor_does() {
    let world = World::new();
    expect_a_device_trains_alike(&world, |out| with(&train_bert(&world, out, FIXTURES[0]), &["--model", "blink"]));
}
