//! ResNets that are trained along.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fissfuse::autograd::{Parameters, Tape, Variables};
use fissfuse::encoder::trained::{Layers, States};
use fissfuse::encoder::{ImageEncoder, Precision, TrainableEncoder};
use fissfuse::model::Model;
use fissfuse::random::{Purpose, generator};
use fissfuse::tensor::Tensor;
use fissfuse::tensor::safetensors::Reader;
use rand::Rng;
use serde_json::Value;

use super::{
    direction, expect_a_device_trains_alike, expect_states, moved, one, opened, run_of, train, with, with_each,
};
use crate::support::{World, fixture, largest, near, refuse, replace, succeed};

/// Saved alone, with a classifier at odd sides of its maps, and with channels in eights.
const FIXTURES: [&str; 3] = ["resnet/three-stages-f32", "resnet/classifier-bf16", "resnet/eights-f16"];

/// Names and shapes of a directory's tensors, and the bytes of those that training leaves as they are.
fn tensors(folder: &Path) -> (BTreeMap<String, Vec<usize>>, Vec<Vec<u8>>) {
    let reader = Reader::open(&folder.join("model.safetensors")).unwrap();
    let shapes = reader.names().map(|name| (name.to_string(), reader.shape(name).unwrap().to_vec())).collect();
    let kept = reader.names().filter(|name| stays(name)).map(|name| reader.bytes(name).unwrap().to_vec()).collect();
    (shapes, kept)
}

/// Statistics, counts of batches, and the classifier.
fn stays(name: &str) -> bool {
    ["running_mean", "running_var", "num_batches_tracked", "classifier"].iter().any(|part| name.contains(part))
}

/// Copies a fixture, with another value of a key of a file.
fn changed(name: &str, to: &Path, file: &str, (key, value): (&str, Value)) {
    fs::create_dir_all(to).unwrap();
    for entry in fixture(name).read_dir().unwrap().flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let mut settings: Value = serde_json::from_slice(&fs::read(to.join(file)).unwrap()).unwrap();
    settings[key] = value;
    fs::write(to.join(file), serde_json::to_vec(&settings).unwrap()).unwrap();
}

/// Pixels from -1 to 1, as the processor would prepare images.
fn images(files: &TrainableEncoder, count: usize) -> Vec<Vec<f32>> {
    let (mut rng, size) = (generator(1, Purpose::Weights, 1), files.processor().unwrap().size());
    (0..count).map(|_| (0..3 * size * size).map(|_| rng.random_range(-1.0..1.0)).collect()).collect()
}

#[test]
fn its_states_are_those_that_the_encoder_gives_and_it_is_written_as_it_was_read() {
    with_each(&FIXTURES, |name, files, layers, [from, to]| {
        let images = images(files, 3);
        let encoded = ImageEncoder::open(from, Precision::F32).unwrap().encode_images(&images).unwrap();
        let states = files.image_states(layers, &images.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        expect_states(name, states, &encoded);
        assert_eq!(tensors(to), tensors(from), "{name}");
        assert_eq!(ImageEncoder::open(to, Precision::F32).unwrap().encode_images(&images).unwrap(), encoded, "{name}");
        assert!(files.tokens_at_most(&["a king"], 9).unwrap_err().to_string().contains("encodes images alone"));
    });
}

/// Side of the images that gradients are compared on.
const SIDE: usize = 16;

/// Step of the difference quotient, where a gradient is no longer than 1.
const STEP: f32 = 1e-3;

/// Not through a model: FissFuse, the one that reads images alone, has maxima at a tie with images of few colours, where no quotient
/// is a derivative.
#[test]
fn gradients_are_those_of_finite_differences() {
    for name in [FIXTURES[0], FIXTURES[1]] {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("small");
        // Of few pixels: each has its own kinks.
        changed(name, &from, "preprocessor_config.json", ("size", Value::from(SIDE)));
        let files = TrainableEncoder::read(&from).unwrap();
        let start = files.weights(&from).unwrap();
        let mut rng = generator(5, Purpose::Weights, 0);
        let images = images(&files, 2);
        let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        let states = |tape: &Tape, vars: &Variables| {
            let States { tokens, global, .. } =
                files.image_states(Layers { tape, vars, gpu: None, masks: None }, &images).unwrap();
            [tokens, global]
        };
        let tape = Tape::recording();
        let vars = start.bind(&tape);
        let outputs = states(&tape, &vars);
        let seeds = outputs
            .each_ref()
            .map(|output| Tensor::new(output.tensor().shape(), direction(&mut rng, output.tensor().len())).unwrap());
        let mut grads = tape.backward_of(outputs.iter().zip(seeds.clone()).collect()).unwrap();
        let loss = |weights: &Parameters| -> f64 {
            let tape = Tape::inference();
            let outputs = states(&tape, &weights.bind(&tape));
            let products = outputs.iter().zip(&seeds).flat_map(|(x, seed)| x.tensor().data().iter().zip(seed.data()));
            products.map(|(&x, &seed)| x as f64 * seed as f64).sum()
        };
        let (mut checked, mut kinks) = (0, 0);
        for (i, (parameter, _)) in start.iter().enumerate() {
            let grad = grads.take(vars.get(parameter).unwrap()).unwrap();
            let length = grad.data().iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt();
            // Along the gradient, where the sum changes most, and across.
            let uphill: Vec<f32> = grad.data().iter().map(|x| x / length as f32).collect();
            for along in [uphill, direction(&mut rng, grad.len())] {
                let quotient = |step: f32| {
                    let end = |by: f32| {
                        let mut moved = start.clone();
                        let values = moved.tensors_mut()[i].data_mut();
                        values.iter_mut().zip(&along).for_each(|(x, v)| *x += by * v);
                        loss(&moved)
                    };
                    (end(step) - end(-step)) / (2.0 * step as f64)
                };
                // A step moves many inputs of ReLUs over their kink, which bends the quotient, the less the smaller it is: it is
                // such that the sum changes by a thousandth. Its roundings of 1e-6 are a thousandth of that.
                let (bound, step) = (1e-2 * length.max(0.1), STEP / length.max(1.0) as f32);
                let (near, far) = (quotient(step / 2.0), quotient(step));
                if (near - far).abs() > bound {
                    kinks += 1;
                    continue;
                }
                let got: f64 = grad.data().iter().zip(&along).map(|(&x, &v)| x as f64 * v as f64).sum();
                assert!((got - near).abs() <= bound, "{name}, {parameter}: {got}, the quotient is {near} ± {bound}");
                checked += 1;
            }
        }
        assert!(kinks <= checked / 10, "{name}: {checked} checked, {kinks} kinks");
    }
}

#[test]
fn a_batch_in_chunks_has_the_gradients_of_the_whole() {
    let world = World::new();
    let dataset = opened(&world);
    let gradients = |chunk: usize| {
        let settings =
            format!("[model]\nd = 16\nmodalities = \"image\"\n[encoder]\nfreeze_layers = 1\nchunk = {chunk}\n");
        let (mut run, samples) = run_of(&one(fixture(FIXTURES[1])), &dataset, &settings);
        let model = Model::new(run.model().clone(), 3).unwrap();
        let (prepared, start) = (run.prepare(&samples[..8]).unwrap(), run.take_start().unwrap());
        run.gradients((&model, &start), &prepared, None).unwrap()
    };
    let want = gradients(0);
    for chunk in [1, 5] {
        let got = gradients(chunk);
        assert_eq!(got.losses.data(), want.losses.data(), "an image's features depend on those beside it");
        for (i, (got, want)) in got.encoder.iter().zip(&want.encoder).enumerate() {
            let (got, want) = (got.as_ref().unwrap().data(), want.as_ref().unwrap().data());
            // Sums over other parts, of some thousands of roundings of 6e-8.
            near(&format!("chunk {chunk}, {i}"), got, want, 1e-4 * largest(want));
        }
    }
}

/// `fissfuse train --train-encoder` with a ResNet in the place of a CLIP.
fn train_resnet(world: &World, out: &str, name: &str) -> Vec<&'static str> {
    let folder = fixture(name).to_str().unwrap().to_string().leak();
    with(&replace(train(world, out), "--train-encoder", folder), &["--modalities", "image"])
}

#[test]
fn it_learns_and_what_comes_out_links_as_it_was_validated() {
    let world = World::encoded();
    for name in [FIXTURES[0], FIXTURES[1]] {
        let out: &'static str = name.rsplit('/').next().unwrap();
        succeed(&train_resnet(&world, out, name));
        let records = world.read_lines(&format!("{out}/train.jsonl"));
        let loss = |epoch: usize| records[epoch]["loss"].as_f64().unwrap();
        assert!(records.len() == 3 && loss(2) < loss(0), "{records:?}");
        let [encoder, own, metrics] =
            ["encoder", "own", "eval"].map(|part| -> &'static str { format!("{out}/{part}").leak() });
        let encode = ["encode", "--data", world.arg("data"), "--encoder", world.arg(encoder), "--modalities", "image"];
        succeed(&[&encode[..], &["--out", world.arg(own), "--precision", "f32", "--device", "cpu"]].concat());
        let paths = ["--data", world.arg("data"), "--features", world.arg(own), "--model", world.arg(out)];
        succeed(&[&["eval", "--split", "valid", "--device", "cpu", "--out", world.arg(metrics)][..], &paths].concat());
        let metrics = fs::read(world.path(metrics).join("metrics.json")).unwrap();
        let metrics: Value = serde_json::from_slice(&metrics).unwrap();
        let best = records.iter().rfind(|record| record["best"] == true).unwrap();
        assert_eq!(metrics["mean"], best["valid"], "{metrics:#}");
        assert_eq!(tensors(&world.path(encoder)), tensors(&fixture(name)), "{name}");
    }
    let names = moved(&fixture(FIXTURES[0]), &world.path("three-stages-f32/encoder"));
    for name in [
        "embedder.embedder.convolution.weight",
        "stages.0.layers.0.shortcut.normalization.bias",
        "stages.1.layers.0.layer.1.convolution.weight",
        "stages.2.layers.1.layer.2.normalization.weight",
    ] {
        assert!(names.iter().any(|moved| moved.ends_with(name)), "{name} did not move: {names:?}");
    }
}

#[test]
fn frozen_layers_keep_their_bits() {
    let world = World::new();
    // Of five bottlenecks, 2, 1 and 2 in three stages.
    let args = with(&replace(train_resnet(&world, "run", FIXTURES[0]), "--epochs", "1"), &["--freeze-layers", "3"]);
    succeed(&args);
    let names = moved(&fixture(FIXTURES[0]), &world.path("run/encoder"));
    assert!(!names.is_empty() && names.iter().all(|name| name.contains("stages.2.")), "{names:?}");
}

#[test]
fn a_device_trains_it_as_the_processor_does() {
    let world = World::new();
    expect_a_device_trains_alike(&world, |out| train_resnet(&world, out, FIXTURES[1]));
}

#[test]
fn what_it_cannot_do_is_refused_with_what_to_do() {
    let world = World::new();
    let args = train_resnet(&world, "run", FIXTURES[0]);
    let both = replace(args.clone(), "--modalities", "both");
    refuse(&both, &["holds a ResNet, which encodes images", "--modalities image", "cannot come from a store"]);
    let bert = with(&replace(args.clone(), "--modalities", "both"), &["--model", "bert"]);
    refuse(&bert, &["holds a ResNet, which encodes images"]);
    fs::write(world.path("dropout.toml"), "[encoder]\ndropout = 0.1\n").unwrap();
    refuse(&with(&args, &["--config", world.arg("dropout.toml")]), &["dropout = 0.1", "three-stages-f32 has none"]);
    refuse(&with(&args, &["--lora-rank", "2"]), &["lora_rank = 2", "queries and values", "has none"]);
    refuse(
        &with(&args, &["--freeze-layers", "6"]),
        &["freeze_layers = 6: there are 5 layers", "no more than 5 can be frozen"],
    );
    refuse(&with(&args, &["--freeze-layers", "5"]), &["freeze_layers = 5 leaves nothing"]);
    for (key, value, says) in [
        ("embedding_size", Value::from(4_000_000), "`embedding_size` is 4000000"),
        ("depths", Value::from(vec![2, 1, 4_000_000]), "`depths` is 4000003"),
        ("embedding_size", Value::from(13), "embedder.embedder"),
    ] {
        changed(FIXTURES[0], &world.path("absurd"), "config.json", (key, value));
        refuse(&replace(args.clone(), "--train-encoder", world.arg("absurd")), &[says]);
    }
    assert!(!world.path("run").exists());
}
