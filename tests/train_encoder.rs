//! A model that is trained together with its encoder: what the tape computes, its gradients, and the command.

mod bert;
mod checkpointing;
mod command;
mod resnet;
mod siglip;
mod tape;
mod two;
mod validation;

use std::path::Path;

use fissfuse::autograd::Tape;
use fissfuse::data::{Dataset, Mention, Sample, Skipped, Split, Tolerance};
use fissfuse::encoder::trained::{Layers, States, Tuned};
use fissfuse::encoder::{Encoded, EncoderPaths, Precision, TrainableEncoder};
use fissfuse::model::Model;
use fissfuse::random::{Purpose, generator};
use fissfuse::tensor::safetensors::Reader;
use fissfuse::train::{EncoderRun, RunConfig};
use rand::Rng;

use crate::support::{World, fissfuse_on_cusim, fixture, largest, near, replace, run};

/// A dataset and a run that trains this model with its encoder.
fn opened(world: &World) -> Dataset {
    Dataset::open(&world.path("data"), Tolerance::Strict, &mut Skipped::default()).unwrap()
}

fn config(settings: &str) -> RunConfig {
    toml::from_str(settings).unwrap()
}

fn mentions(dataset: &Dataset) -> Vec<Mention> {
    dataset.mentions(Split::Train, &mut Skipped::default()).unwrap()
}

/// Of one directory.
fn one(folder: impl AsRef<Path>) -> EncoderPaths {
    EncoderPaths::from(folder.as_ref())
}

fn run_of<'a>(encoders: &EncoderPaths, dataset: &'a Dataset, settings: &str) -> (EncoderRun<'a>, Vec<Sample>) {
    let mut run = EncoderRun::open(encoders, &config(settings), dataset, Tolerance::Strict).unwrap();
    let samples = run.train(&mentions(dataset)).unwrap().0;
    (run, samples)
}

/// Calls `check` with each fixture: its name, its files, what computes with them, and the folders that they are read from and that they
/// are written to.
fn with_each(fixtures: &[&str], check: impl Fn(&str, &TrainableEncoder, Layers, [&Path; 2])) {
    let folder = tempfile::tempdir().unwrap();
    for (number, name) in fixtures.iter().enumerate() {
        let (from, to) = (fixture(name), folder.path().join(number.to_string()));
        let files = TrainableEncoder::read(&from).unwrap();
        let parameters = files.weights(&from).unwrap();
        files.write(&parameters, Precision::F32, &to).unwrap();
        let tape = Tape::inference();
        let vars = parameters.bind(&tape);
        check(name, &files, Layers { tape: &tape, vars: &vars, gpu: None, masks: None }, [&from, &to]);
    }
}

/// Holds what a tower says on a tape against what the encoder says that `encode` runs.
fn expect_states(name: &str, states: States, encoded: &[Encoded]) {
    let States { tokens, sequences, global } = states;
    let width = tokens.tensor().shape()[1];
    let lengths: Vec<usize> = sequences.ranges().map(|rows| rows.len()).collect();
    assert_eq!(lengths, encoded.iter().map(|e| e.tokens.len() / width).collect::<Vec<_>>(), "{name}");
    let all = |of: fn(&Encoded) -> &Vec<f32>| encoded.iter().flat_map(of).copied().collect::<Vec<f32>>();
    for (what, got, want) in [("states", tokens, all(|e| &e.tokens)), ("vectors", global, all(|e| &e.global))] {
        // Through a block or two in another order of sums: some dozens of roundings of 6e-8.
        near(&format!("{name}: {what}"), got.tensor().data(), &want, 1e-5 * largest(&want));
    }
}

/// Holds the losses of a run of two epochs on a device against those on the processor. `args` are of a run into a folder.
fn expect_a_device_trains_alike(world: &World, args: impl Fn(&'static str) -> Vec<&'static str>) {
    let losses = |device: &'static str| {
        let args = replace(replace(args(device), "--device", device), "--epochs", "2");
        let args = with(&args, &["--arithmetic", "f32"]);
        let output = if device == "cuda" { fissfuse_on_cusim(&args, &[]) } else { run(&args) };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let records = world.read_lines(&format!("{device}/train.jsonl"));
        records.iter().map(|record| record["loss"].as_f64().unwrap()).collect::<Vec<f64>>()
    };
    let (host, device) = (losses("cpu"), losses("cuda"));
    assert_eq!((host.len(), device.len()), (2, 2));
    for (host, device) in host.iter().zip(device) {
        // Sums in another order, six times through AdamW, which divides small gradients by their own size.
        assert!((host - device).abs() <= 1e-3 * host, "{device}, the host's is {host}");
    }
}

/// Step of the difference quotient, and the bound on its error: see tests/gradients.rs.
const STEP: f32 = 4e-3;
const TOLERANCE: f64 = 4e-3;

fn direction(rng: &mut impl Rng, n: usize) -> Vec<f32> {
    let raw: Vec<f32> = (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect();
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
    raw.iter().map(|x| x / length).collect()
}

/// Holds the gradients of a model and its encoder against difference quotients of the loss.
fn expect_gradients(encoders: &EncoderPaths, dataset: &Dataset, settings: &str) {
    let (mut run, samples) = run_of(encoders, dataset, settings);
    let model = Model::new(run.model().clone(), 3).unwrap();
    let (prepared, mut start) = (run.prepare(&samples[..2]).unwrap(), run.take_start().unwrap());
    let mut rng = generator(5, Purpose::Weights, 0);
    // LoRA's product starts as zero, where one factor has no gradient.
    for tensor in start.trained_mut().tensors_mut().iter_mut().filter(|tensor| largest(tensor.data()) == 0.0) {
        tensor.data_mut().iter_mut().for_each(|x| *x = rng.random_range(-0.1..0.1));
    }
    let gradients = run.gradients((&model, &start), &prepared, None).unwrap();
    let loss = |weights: &Tuned| -> f64 {
        let losses = run.gradients((&model, weights), &prepared, None).unwrap().losses;
        losses.data().iter().map(|&loss| loss as f64).sum()
    };
    let names: Vec<String> = start.trained().iter().map(|(name, _)| name.to_string()).collect();
    let (mut checked, mut kinks, mut steep) = (0, 0, 0);
    for (i, grad) in gradients.encoder.iter().enumerate() {
        let grad = grad.as_ref().unwrap_or_else(|| panic!("{settings}: nothing reaches {}", names[i]));
        let length = grad.data().iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt();
        // Along the gradient, where the loss changes most, and across.
        let uphill: Vec<f32> = grad.data().iter().map(|x| x / length.max(1e-9) as f32).collect();
        for along in [uphill, direction(&mut rng, grad.len())] {
            let quotient = |step: f32| {
                let end = |by: f32| {
                    let mut moved = start.clone();
                    let tensor = &mut moved.trained_mut().tensors_mut()[i];
                    tensor.data_mut().iter_mut().zip(&along).for_each(|(x, v)| *x += by * v);
                    loss(&moved)
                };
                (end(step) - end(-step)) / (2.0 * step as f64)
            };
            // The loss of twelve pairs is some 20 with roundings of 1e-6, which the quotient divides by the step.
            let bound = TOLERANCE * length.max(0.5);
            let (near, far) = (quotient(STEP / 2.0), quotient(STEP));
            // Of ReLU and maximum, which have kinks, one may lie between.
            if (near - far).abs() > bound {
                kinks += 1;
                continue;
            }
            let got: f64 = grad.data().iter().zip(&along).map(|(&x, &v)| x as f64 * v as f64).sum();
            assert!((got - near).abs() <= bound, "{settings}{}: {got}, the quotient is {near} ± {bound}", names[i]);
            checked += 1;
            steep += (got > 10.0 * bound) as usize;
        }
    }
    // Where the loss hardly changes, any gradient that is small would do.
    assert!(steep >= 3 && kinks <= checked / 2, "{settings}: {checked} checked, {steep} steep, {kinks} kinks");
}

/// `fissfuse train --train-encoder` with its arguments.
fn train(world: &World, out: &str) -> Vec<&'static str> {
    let paths = ["--data", world.arg("data"), "--train-encoder", world.arg("encoder"), "--out", world.arg(out)];
    let sizes = ["--d", "16", "--batch-size", "16", "--learning-rate", "1e-3", "--encoder-learning-rate", "1e-3"];
    [&["train"][..], &paths, &sizes, &["--epochs", "3", "--device", "cpu"]].concat()
}

fn with(args: &[&'static str], more: &[&'static str]) -> Vec<&'static str> {
    [args, more].concat()
}

/// Names of the weights in which two directories of encoders differ.
fn moved(before: &Path, after: &Path) -> Vec<String> {
    let [before, after] = [before, after].map(|folder| Reader::open(&folder.join("model.safetensors")).unwrap());
    let names = before.names().filter(|name| before.bytes(name).unwrap() != after.bytes(name).unwrap());
    names.map(str::to_string).collect()
}
