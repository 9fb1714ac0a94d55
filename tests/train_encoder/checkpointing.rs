//! Layers whose input alone is kept, and that are computed again for their gradients.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use fissfuse::encoder::EncoderPaths;
use fissfuse::model::{Model, Noise};
use fissfuse::tensor::Tensor;

use super::{one, opened, run_of, train, with};
use crate::support::{World, fixture, launches_on_cusim, replace, succeed};

#[test]
fn gradients_have_the_bits_that_they_have_with_everything_kept() {
    let world = World::new();
    let dataset = opened(&world);
    let clip = one(world.path("encoder"));
    let bert_and = |image: PathBuf| EncoderPaths { text: Some(fixture("bert/sharded-f32")), image: Some(image) };
    let cases: [(EncoderPaths, &str); 14] = [
        (clip.clone(), "[model]\nd = 16\ndropout = 0.2\n[encoder]\n"),
        (clip.clone(), "[model]\nd = 16\n[encoder]\nchunk = 5\n"),
        (clip.clone(), "[model]\nname = \"clip\"\n[encoder]\nfreeze_layers = 1\n"),
        (clip.clone(), "[model]\nname = \"ghmfc\"\nd = 16\n[encoder]\nlora_rank = 2\n"),
        (bert_and(fixture("resnet/three-stages-f32")), "[model]\nname = \"ghmfc\"\nd = 16\n[encoder]\nchunk = 3\n"),
        (clip.clone(), "[model]\nname = \"clip\"\n[encoder]\nchunk = 3\ndropout = 0.3\n"),
        (one(fixture("bert/sharded-f32")), "[model]\nname = \"bert\"\n[encoder]\ndropout = 0.3\n"),
        (bert_and(world.path("encoder")), "[model]\nd = 16\n[encoder]\nlora_rank = 2\n"),
        (one(fixture("siglip/siglip-f32")), "[model]\nname = \"clip\"\n[encoder]\n"),
        (one(fixture("bert/sharded-f32")), "[model]\nname = \"bert\"\n[encoder]\n"),
        (one(fixture("bert/masked-lm-bf16")), "[model]\nname = \"blink\"\n[encoder]\nlora_rank = 2\n"),
        (one(fixture("bert/distilled-f32")), "[model]\nd = 16\nmodalities = \"text\"\n[encoder]\n"),
        (one(fixture("resnet/three-stages-f32")), "[model]\nd = 16\nmodalities = \"image\"\n[encoder]\n"),
        (
            one(fixture("resnet/classifier-bf16")),
            "[model]\nd = 16\nmodalities = \"image\"\n[encoder]\nfreeze_layers = 2\n",
        ),
    ];
    for (encoders, settings) in cases {
        let bits = |checkpointing: bool| {
            let settings = format!("{settings}gradient_checkpointing = {checkpointing}\n");
            let (mut run, samples) = run_of(&encoders, &dataset, &settings);
            let model = Model::new(run.model().clone(), 3).unwrap();
            let (prepared, start) = (run.prepare(&samples[..4]).unwrap(), run.take_start().unwrap());
            let found = run.gradients((&model, &start), &prepared, Some(Noise { seed: 1, step: 1 })).unwrap();
            let of_encoder = found.encoder.iter().map(Option::as_ref);
            let all = [&found.losses].into_iter().chain(&found.model).map(Some).chain(of_encoder);
            let bits = |tensor: &Tensor| tensor.data().iter().map(|x| x.to_bits()).collect();
            all.map(|tensor| tensor.map(bits)).collect::<Vec<Option<Vec<u32>>>>()
        };
        let (want, got) = (bits(false), bits(true));
        assert!(want.iter().flatten().flatten().any(|&x| x != 0), "{settings}");
        assert!(got == want, "{encoders:?}, {settings}: other gradients");
    }
}

/// The weights and the losses of a run.
fn outcome(world: &World, out: &str) -> (Vec<u8>, Vec<f64>) {
    let weights = fs::read(world.path(out).join("encoder/model.safetensors")).unwrap();
    let records = world.read_lines(&format!("{out}/train.jsonl"));
    (weights, records.iter().map(|record| record["loss"].as_f64().unwrap()).collect())
}

#[test]
fn a_device_trains_to_the_same_bits_too() {
    let world = World::new();
    let folder = |name: &str| -> &'static str { fixture(name).to_str().unwrap().to_string().leak() };
    fs::write(world.path("chunks.toml"), "[encoder]\nchunk = 5\n").unwrap();
    for (encoder, more) in [
        (world.arg("encoder"), &["--model", "fissfuse"][..]),
        (world.arg("encoder"), &["--config", world.arg("chunks.toml"), "--modalities", "image"]),
        (folder("bert/sharded-f32"), &["--model", "bert"]),
        (folder("resnet/three-stages-f32"), &["--modalities", "image"]),
    ] {
        let run = |name: &str, more: &[&'static str]| {
            let out: &'static str = format!("{name}-{}", more.len()).leak();
            let args = replace(replace(train(&world, out), "--train-encoder", encoder), "--device", "cuda");
            let launches = launches_on_cusim(&with(&replace(args, "--epochs", "1"), more));
            (outcome(&world, out), launches)
        };
        let name = Path::new(more[1]).file_stem().and_then(OsStr::to_str).unwrap();
        let (plain, launches) = run(name, more);
        let (again, more_launches) = run(name, &with(more, &["--gradient-checkpointing"]));
        assert!(plain == again, "{name}: losses {:?} and {:?}", plain.1, again.1);
        assert!(more_launches > launches, "{name}: {more_launches} launches, {launches} without");
    }
}

#[test]
fn a_run_may_go_on_with_it_or_without() {
    let world = World::new();
    let checkpointed = with(&train(&world, "straight"), &["--gradient-checkpointing"]);
    succeed(&checkpointed);
    succeed(&replace(train(&world, "broken"), "--epochs", "1"));
    succeed(&with(&train(&world, "broken"), &["--resume", "--gradient-checkpointing"]));
    assert!(outcome(&world, "straight") == outcome(&world, "broken"));
}
