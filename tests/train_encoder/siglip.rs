//! SigLIPs that are trained along.

use std::fs;

use fissfuse::encoder::{ImageEncoder, Precision, TextEncoder};
use fissfuse::tensor::safetensors::Reader;
use serde_json::Value;

use super::{expect_a_device_trains_alike, expect_gradients, expect_states, moved, one, opened, train, with_each};
use crate::support::{World, fixture, refuse, replace, succeed};

/// The first SigLIP, and one of the second kind, whose texts are read otherwise.
const FIXTURES: [&str; 2] = ["siglip/siglip-f32", "siglip/siglip2-bf16"];

#[test]
fn its_states_are_those_that_the_encoder_gives_and_it_is_written_as_it_was_read() {
    with_each(&FIXTURES, |name, files, layers, [from, to]| {
        let texts = ["Hussein of Jordan", "a king", "with his wife, and Shahbanu Farah!", ""];
        let ids = files.tokens_at_most(&texts, 9).unwrap();
        let encoder = TextEncoder::open(from, Precision::F32).unwrap();
        assert_eq!(ids, encoder.tokenize(&texts, 9).unwrap());
        let size = files.processor().unwrap().size();
        let images: Vec<Vec<f32>> = (0..3)
            .map(|image| (0..3 * size * size).map(|i| ((i + 7 * image) * 37 % 101) as f32 / 50.0 - 1.0).collect())
            .collect();
        let of_images = ImageEncoder::open(from, Precision::F32).unwrap().encode_images(&images).unwrap();
        let of_texts = encoder.encode_texts(&texts, 9).unwrap();
        let states = [
            files.text_states(layers, &ids.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap(),
            files.image_states(layers, &images.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap(),
        ];
        for (states, encoded) in states.into_iter().zip([&of_texts, &of_images]) {
            expect_states(name, states, encoded);
        }
        // The same tensors come out, those of the loss and the pooling's as one among them.
        let names = |folder: &std::path::Path| {
            let reader = Reader::open(&folder.join("model.safetensors")).unwrap();
            let mut names: Vec<String> = reader.names().map(str::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(names(to), names(from));
        assert_eq!(TextEncoder::open(to, Precision::F32).unwrap().encode_texts(&texts, 9).unwrap(), of_texts, "{name}");
        assert_eq!(
            ImageEncoder::open(to, Precision::F32).unwrap().encode_images(&images).unwrap(),
            of_images,
            "{name}"
        );
    });
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let world = World::new();
    let dataset = opened(&world);
    // By a model without maxima: FissFuse's has some at a tie with these images, where no quotient is a derivative.
    for (name, settings) in [
        (FIXTURES[0], "[model]\nname = \"clip\"\n"),
        (FIXTURES[1], "[model]\nname = \"clip\"\n[encoder]\nlora_rank = 2\n"),
    ] {
        expect_gradients(&one(fixture(name)), &dataset, settings);
    }
}

/// `fissfuse train --train-encoder` with a SigLIP in the place of a CLIP.
fn train_siglip(world: &World, out: &str) -> Vec<&'static str> {
    let folder = fixture(FIXTURES[0]).to_str().unwrap().to_string().leak();
    replace(train(world, out), "--train-encoder", folder)
}

#[test]
fn it_learns_and_what_comes_out_links_as_it_was_validated() {
    let world = World::encoded();
    succeed(&train_siglip(&world, "run"));
    let records = world.read_lines("run/train.jsonl");
    let loss = |epoch: usize| records[epoch]["loss"].as_f64().unwrap();
    assert!(records.len() == 3 && loss(2) < loss(0), "{records:?}");
    let encode = ["encode", "--data", world.arg("data"), "--encoder", world.arg("run/encoder"), "--device", "cpu"];
    succeed(&[&encode[..], &["--out", world.arg("own"), "--precision", "f32"]].concat());
    let paths = ["--data", world.arg("data"), "--features", world.arg("own"), "--model", world.arg("run")];
    succeed(&[&["eval", "--split", "valid", "--device", "cpu", "--out", world.arg("eval")][..], &paths].concat());
    let metrics: Value = serde_json::from_slice(&fs::read(world.path("eval/metrics.json")).unwrap()).unwrap();
    let best = records.iter().rfind(|record| record["best"] == true).unwrap();
    assert_eq!(metrics["mean"], best["valid"], "{metrics:#}");
    let names = moved(&fixture(FIXTURES[0]), &world.path("run/encoder"));
    for name in ["token_embedding.weight", "head.probe", "head.attention.in_proj_weight", "patch_embedding.bias"] {
        assert!(names.iter().any(|moved| moved.ends_with(name)), "{name} did not move: {names:?}");
    }
    // What only the loss of pre-training reads stays.
    assert!(!names.iter().any(|moved| moved.starts_with("logit_")), "{names:?}");
}

#[test]
fn a_device_trains_it_as_the_processor_does() {
    let world = World::new();
    expect_a_device_trains_alike(&world, |out| train_siglip(&world, out));
}

#[test]
fn a_size_that_no_encoder_has_is_refused() {
    let world = World::new();
    let copied = world.path("absurd");
    fs::create_dir_all(&copied).unwrap();
    for entry in fixture(FIXTURES[0]).read_dir().unwrap().flatten() {
        fs::copy(entry.path(), copied.join(entry.file_name())).unwrap();
    }
    let config = fs::read_to_string(copied.join("config.json")).unwrap();
    let config = config.replace("\"intermediate_size\": 72", "\"intermediate_size\": 7200000");
    fs::write(copied.join("config.json"), config).unwrap();
    let args = replace(train_siglip(&world, "run"), "--train-encoder", world.arg("absurd"));
    refuse(&args, &["config.json", "`intermediate_size` is 7200000", "up to 65536"]);
}
