//! A model that is trained together with its encoder: what the tape computes, its gradients, and the command.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fissfuse::autograd::{Tape, Var};
use fissfuse::data::{Batcher, Dataset, FeatureStore, GoldMissing, Inputs, Mention, Sample, Skipped, Split, Tolerance};
use fissfuse::encoder::clip::{ClipFiles, States, Towers, Tuned, weights};
use fissfuse::encoder::{Encoded, ExifOrientation, ImageEncoder, Precision, TextEncoder};
use fissfuse::model::{Batch, Modality, Model, NETWORKS, Noise, Side};
use fissfuse::ops::Pairing;
use fissfuse::random::{Purpose, generator};
use fissfuse::tensor::safetensors::Reader;
use fissfuse::tensor::{FeatureRows, Ragged, RowTable, Shards, Textbook};
use fissfuse::train::{EncoderRun, Gradients, RunConfig};
use rand::Rng;
use serde_json::Value;

use crate::support::{
    World, fissfuse, fissfuse_on_cusim, fixture, half_written, largest, near, refuse, refused, replace, run, succeed,
};

/// What the towers say on a tape is what the encoders say that `encode` runs.
#[test]
fn the_towers_states_are_those_that_encoders_give() {
    let world = World::new();
    for folder in [fixture("clip/quick-gelu-f32"), fixture("clip/gelu-bf16-legacy-eos"), world.path("encoder")] {
        let files = ClipFiles::read(&folder).unwrap();
        let parameters = weights::read(&Shards::open(&folder).unwrap(), &files.config).unwrap();
        let tape = Tape::inference();
        let vars = parameters.bind(&tape);
        let towers = Towers { config: &files.config, tape: &tape, vars: &vars, gpu: None };
        let texts = ["hussein of jordan", "a king", "with his wife, and shahbanu farah!", ""];
        let size = files.processor.size();
        let images: Vec<Vec<f32>> = (0..3)
            .map(|image| (0..3 * size * size).map(|i| ((i + 7 * image) * 37 % 101) as f32 / 50.0 - 1.0).collect())
            .collect();
        let ids = files.tokens_at_most(&texts, 6).unwrap();
        let encoder = TextEncoder::open(&folder, Precision::F32).unwrap();
        assert_eq!(ids, encoder.tokenize(&texts, 6).unwrap());
        let of_texts = towers.text_states(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        let of_images = towers.image_states(&images.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        let encoded = ImageEncoder::open(&folder, Precision::F32).unwrap().encode_images(&images).unwrap();
        for (states, encoded) in [(of_texts, encoder.encode_texts(&texts, 6).unwrap()), (of_images, encoded)] {
            let States { tokens, sequences, global } = states;
            assert_eq!(sequences.len(), encoded.len());
            let all = |of: fn(&Encoded) -> &Vec<f32>| encoded.iter().flat_map(of).copied().collect::<Vec<f32>>();
            for (what, got, want) in [("states", tokens, all(|e| &e.tokens)), ("vectors", global, all(|e| &e.global))] {
                // Through a block or two in another order of sums: some dozens of roundings of 6e-8.
                near(what, got.tensor().data(), &want, 1e-5 * largest(&want));
            }
        }
    }
}

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

fn run_of<'a>(world: &World, dataset: &'a Dataset, settings: &str) -> (EncoderRun<'a>, Vec<Sample>) {
    let mut run = EncoderRun::open(&world.path("encoder"), &config(settings), dataset, Tolerance::Strict).unwrap();
    let samples = run.train(&mentions(dataset)).unwrap().0;
    (run, samples)
}

/// Features at these places among states, as if they were stored in f32.
fn stored(states: &States, places: &[usize]) -> Modality {
    let rows = |x: &Var, rows: Vec<u32>| {
        let (x, width) = (x.tensor(), x.tensor().shape()[1]);
        FeatureRows::new(Arc::new(RowTable::from_f32(width, x.data().to_vec()).unwrap()), rows).into()
    };
    let ranges = || places.iter().map(|&place| states.sequences.range(place));
    let textbook = Textbook { sequences: places.len(), length: 64 };
    Modality {
        tokens: rows(&states.tokens, ranges().flat_map(|range| range.start as u32..range.end as u32).collect()),
        sequences: Ragged::new(ranges().map(|range| range.len()), textbook).unwrap(),
        global: rows(&states.global, places.iter().map(|&place| place as u32).collect()),
    }
}

/// A mention and its candidates, with the features that the encoder gives them.
fn batch_of(world: &World, dataset: &Dataset, sample: &Sample) -> Batch {
    let mention = mentions(dataset).into_iter().find(|mention| mention.id == sample.id).unwrap();
    let entities: Vec<_> = sample.candidates.iter().map(|&entity| &dataset.entities()[entity as usize]).collect();
    let of_entities = entities.iter().map(|entity| format!("{}. {}", entity.name, entity.description));
    let own = format!("{}. {}", mention.mention, mention.sentence);
    let texts: Vec<String> = [own].into_iter().chain(of_entities).collect();
    // The mention's image is that of its entity, and is encoded once.
    let mut images = vec![mention.image.unwrap()];
    let mut place = |name: &String| {
        let found = images.iter().position(|image| image == name);
        found.unwrap_or_else(|| {
            images.push(name.clone());
            images.len() - 1
        })
    };
    let places: Vec<usize> = entities.iter().map(|entity| place(entity.image.as_ref().unwrap())).collect();
    let files = ClipFiles::read(&world.path("encoder")).unwrap();
    let parameters = weights::read(&Shards::open(&world.path("encoder")).unwrap(), &files.config).unwrap();
    let tape = Tape::inference();
    let vars = parameters.bind(&tape);
    let towers = Towers { config: &files.config, tape: &tape, vars: &vars, gpu: None };
    let ids = files.tokens_at_most(&texts.iter().map(String::as_str).collect::<Vec<_>>(), 64).unwrap();
    let texts = towers.text_states(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    let prepare = |name: &String| files.processor.prepare(&world.path("data").join(name), ExifOrientation::Ignore);
    let pixels: Vec<Vec<f32>> = images.iter().map(|name| prepare(name).unwrap()).collect();
    let images = towers.image_states(&pixels.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    let entity = Side { text: stored(&texts, &(1..=6).collect::<Vec<_>>()), image: stored(&images, &places) };
    let mention = Side { text: stored(&texts, &[0]), image: stored(&images, &[0]) };
    let pairs = Pairing::new(vec![0; 6], 1, (0..6).collect(), 6).unwrap();
    Batch::new(mention, entity, pairs, vec![sample.gold.unwrap()]).unwrap()
}

#[test]
fn every_model_reads_what_is_computed_as_it_reads_what_is_stored() {
    let world = World::new();
    let dataset = opened(&world);
    for network in NETWORKS {
        let settings = format!(
            "[model]\nname = \"{}\"\n{}",
            network.name(),
            match network.settings().contains(&"d") {
                true => "d = 16\n",
                false => "",
            }
        );
        let (mut run, samples) = run_of(&world, &dataset, &settings);
        let (model, sample) = (Model::new(run.model().clone(), 3).unwrap(), &samples[0]);
        let want = model.gradients(&batch_of(&world, &dataset, sample), None).unwrap();
        let (prepared, start) = (run.prepare(&samples[..1]).unwrap(), run.take_start().unwrap());
        let got = run.gradients((&model, &start), &prepared, None).unwrap();
        // Of the same features all compute the same, but for FissFuse, whose projection of stored ones is an operation of its
        // own, with sums in another order: some hundreds of roundings of 6e-8.
        let bound = if network.name() == "fissfuse" { 2e-5 } else { 0.0 };
        near(network.name(), got.losses.data(), want.losses.data(), bound);
        for ((name, _), (got, want)) in model.parameters().iter().zip(got.model.iter().zip(&want.gradients)) {
            near(
                &format!("{}, {name}", network.name()),
                got.data(),
                want.data(),
                bound * largest(want.data()).max(1.0),
            );
        }
        assert!(got.encoder.iter().any(Option::is_some), "{}: nothing reaches the encoder", network.name());
    }
}

#[test]
fn an_entity_that_many_lists_have_is_encoded_once() {
    let world = World::encoded();
    let dataset = opened(&world);
    let manifest = FeatureStore::open(&world.path("features")).unwrap().manifest().clone();
    let mut inputs = Inputs::new(&dataset, manifest);
    let (samples, _) = inputs.samples(&mentions(&dataset), 0, GoldMissing::Drop).unwrap();
    let batch = inputs.batch(&samples).unwrap();
    assert_eq!((batch.pairs.len(), batch.entities[0].len()), (240, 12));
    // Forty sentences and twelve entities; images of mentions are those of entities.
    assert_eq!(batch.distinct.each_ref().map(Vec::len), [52, 12]);
    let mut texts = batch.distinct[0].clone();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 52);
    assert_eq!(inputs.text(batch.distinct[0][batch.mentions[0][1] as usize]), "box. A box number 1 that looks red.");
}

/// Images that are missing have the features that the store gives them.
#[test]
fn missing_images_have_the_features_that_a_store_gives_them() {
    for missing in ["white", "zeros"] {
        let world = World::new();
        for line in [1, 2] {
            world.change_line("data/train.jsonl", line, |mention| {
                drop(mention.as_object_mut().unwrap().remove("image"))
            });
            world.change_line("data/entities.jsonl", line, |entity| {
                drop(entity.as_object_mut().unwrap().remove("image"))
            });
        }
        let settings = format!("[model]\nd = 16\n[encode]\nmissing_image = \"{missing}\"\n");
        fs::write(world.path("settings.toml"), &settings).unwrap();
        succeed(&[&world.encode()[..], &["--config", world.arg("settings.toml"), "--precision", "f32"]].concat());
        let dataset = opened(&world);
        let (mut run, samples) = run_of(&world, &dataset, &settings);
        let store = Arc::new(FeatureStore::open(&world.path("features")).unwrap());
        assert_eq!(store.manifest(), run.manifest());
        let batcher = Batcher::new(&dataset, store);
        let (stored, _) = batcher.samples(&mentions(&dataset), 0, GoldMissing::Drop).unwrap();
        let model = Model::new(run.model().clone(), 3).unwrap();
        let want = model.gradients(&batcher.batch(&stored[..4]).unwrap(), None).unwrap();
        let (prepared, start) = (run.prepare(&samples[..4]).unwrap(), run.take_start().unwrap());
        let got = run.gradients((&model, &start), &prepared, None).unwrap();
        // The store rounds features to f16, by 5e-4 of each.
        near(missing, got.losses.data(), want.losses.data(), 5e-3);
    }
}

#[test]
fn a_batch_in_chunks_has_the_gradients_of_the_whole() {
    let world = World::new();
    world.change_line("data/train.jsonl", 1, |mention| drop(mention.as_object_mut().unwrap().remove("image")));
    let dataset = opened(&world);
    for settings in [
        "[model]\nd = 16\ndropout = 0.2\n[encode]\nmissing_image = \"zeros\"\n[encoder]\n",
        "[model]\nname = \"ghmfc\"\nd = 16\n[encoder]\nlora_rank = 2\n",
        "[model]\nname = \"clip\"\n[encoder]\nfreeze_layers = 1\n",
        "[model]\nd = 16\n[encoder]\nfreeze_layers = 1\n",
        "[model]\nname = \"ghmfc\"\nd = 16\n[encoder]\nfreeze_layers = 1\n",
    ] {
        let gradients = |chunk: usize| {
            let (mut run, samples) = run_of(&world, &dataset, &format!("{settings}chunk = {chunk}\n"));
            let model = Model::new(run.model().clone(), 3).unwrap();
            let (prepared, start) = (run.prepare(&samples[..8]).unwrap(), run.take_start().unwrap());
            let noise = Some(Noise { seed: 1, step: 1 });
            run.gradients((&model, &start), &prepared, noise).unwrap()
        };
        let all = |of: &Gradients| {
            let of_encoder = of.encoder.iter().map(|grad| grad.as_ref().map(|grad| grad.data().to_vec()));
            of_encoder.chain(of.model.iter().map(|grad| Some(grad.data().to_vec()))).collect::<Vec<_>>()
        };
        let want = gradients(0);
        let of_all = all(&want).iter().flatten().map(|grad| largest(grad)).fold(0.0, f32::max);
        for chunk in [1, 5, 1000] {
            let got = gradients(chunk);
            // Sums over other parts, of some hundreds of roundings of 6e-8.
            near(settings, got.losses.data(), want.losses.data(), 2e-5 * largest(want.losses.data()).max(1.0));
            for (i, (got, want)) in all(&got).iter().zip(&all(&want)).enumerate() {
                assert_eq!(got.is_some(), want.is_some(), "{settings}, chunk {chunk}, {i}");
                let (Some(got), Some(want)) = (got, want) else { continue };
                near(&format!("{settings}, chunk {chunk}, {i}"), got, want, 1e-4 * largest(want).max(1e-2 * of_all));
            }
        }
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

#[test]
fn gradients_of_the_whole_chain_are_those_of_finite_differences() {
    let world = World::new();
    let dataset = opened(&world);
    for settings in [
        "[model]\nd = 16\n",
        "[model]\nd = 16\nmodalities = \"text\"\n",
        "[model]\nname = \"clip\"\n",
        "[model]\nname = \"clip\"\n[encoder]\nlora_rank = 2\n",
        "[model]\nname = \"clip-projected\"\nd = 16\n[encoder]\nfreeze_layers = 1\n",
    ] {
        let (mut run, samples) = run_of(&world, &dataset, settings);
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
    let bits = |reader: &Reader, name: &str| -> Vec<u32> {
        reader.tensor(name).unwrap().data().iter().map(|x| x.to_bits()).collect()
    };
    let names = before.names().filter(|name| bits(&before, name) != bits(&after, name));
    names.map(str::to_string).collect()
}

#[test]
fn both_learn_and_what_comes_out_links_as_it_was_validated() {
    let world = World::encoded();
    // With its own image among the candidates', each mention would be linked right at once.
    for line in 1..=10 {
        world.change_line("data/valid.jsonl", line, |mention| drop(mention.as_object_mut().unwrap().remove("image")));
    }
    let printed = succeed(&with(&train(&world, "run"), &["--schedule", "cosine"]));
    assert!(
        printed.contains("the encoder is trained along") && printed.contains("fissfuse encode --data"),
        "{printed}"
    );
    let records = world.read_lines("run/train.jsonl");
    let loss = |epoch: usize| records[epoch]["loss"].as_f64().unwrap();
    assert!(records.len() == 3 && loss(2) < loss(0), "{records:?}");
    let names = moved(&world.path("encoder"), &world.path("run/encoder"));
    for name in ["token_embedding.weight", "layers.0.mlp.fc1.weight", "text_projection.weight", "class_embedding"] {
        assert!(names.iter().any(|moved| moved.ends_with(name)), "{name} did not move: {names:?}");
    }
    assert!(half_written(world.path("run").as_path()).is_empty());

    // The features of the encoder that it began with are another's.
    let eval = |features: &str, out: &str| {
        let paths = ["--data", world.arg("data"), "--features", world.arg(features), "--model", world.arg("run")];
        [&["eval", "--split", "valid", "--out", world.arg(out), "--device", "cpu"][..], &paths].concat()
    };
    refuse(&eval("features", "eval"), &["features of another encoder"]);
    let encode = replace(replace(world.encode(), "--encoder", world.arg("run/encoder")), "--out", world.arg("own"));
    succeed(&with(&encode, &["--precision", "f32", "--device", "cpu"]));
    succeed(&eval("own", "eval"));
    let metrics: Value = serde_json::from_slice(&fs::read(world.path("eval/metrics.json")).unwrap()).unwrap();
    let best = records.iter().rfind(|record| record["best"] == true).unwrap();
    assert!((0.2..1.0).contains(&best["valid"]["MRR"].as_f64().unwrap()), "{best}");
    assert_eq!(metrics["mean"], best["valid"], "{metrics:#}");
    assert_eq!(metrics["training"]["encoder"]["freeze_layers"], 0);
    let paths = ["--data", world.arg("data"), "--features", world.arg("own"), "--model", world.arg("run")];
    let link = [&["link", "--encoder", world.arg("run/encoder")][..], &paths].concat();
    let lines = fs::read(world.path("data/valid.jsonl")).unwrap();
    let mut child =
        fissfuse(&link).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &lines).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let first: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let link: Value = serde_json::from_str(line).unwrap();
            link["links"][0]["qid"].as_str().unwrap_or_else(|| panic!("{link}")).to_string()
        })
        .collect();
    let gold = world.read_lines("data/valid.jsonl");
    let right = first.iter().zip(&gold).filter(|(first, mention)| mention["gold"] == **first).count();
    let hits = best["valid"]["H@1"].as_f64().unwrap();
    assert!(
        (right as f64 / gold.len() as f64 - hits).abs() < 1e-9,
        "{right} of {}, validation says {hits}",
        gold.len()
    );
}

#[test]
fn frozen_layers_and_what_lora_does_not_change_keep_their_bits() {
    let world = World::new();
    succeed(&with(&replace(train(&world, "frozen"), "--epochs", "1"), &["--freeze-layers", "1"]));
    let frozen = moved(&world.path("encoder"), &world.path("frozen/encoder"));
    assert!(!frozen.is_empty());
    let above = ["final_layer_norm", "post_layernorm", "text_projection", "visual_projection"];
    assert!(frozen.iter().all(|name| above.iter().any(|part| name.contains(part))), "{frozen:?}");
    for part in above {
        assert!(frozen.iter().any(|name| name.contains(part)), "{part} did not move");
    }
    succeed(&with(&train(&world, "lora"), &["--lora-rank", "4", "--model", "clip-projected"]));
    let adapted = moved(&world.path("encoder"), &world.path("lora/encoder"));
    assert_eq!(adapted.len(), 4, "{adapted:?}");
    let layers = [".q_proj.weight", ".v_proj.weight"];
    assert!(adapted.iter().all(|name| layers.iter().any(|end| name.ends_with(end))), "{adapted:?}");
    let checkpoint = Reader::open(&world.path("lora/last.safetensors")).unwrap();
    let of_encoder = checkpoint.names().filter(|name| name.starts_with("encoder.parameter."));
    assert_eq!(of_encoder.count(), 8);
    let records = world.read_lines("lora/train.jsonl");
    assert!(records[2]["loss"].as_f64() < records[0]["loss"].as_f64(), "{records:?}");
    // The tower of a modality that no model reads stays as it is.
    succeed(&with(&replace(train(&world, "text"), "--epochs", "1"), &["--modalities", "text"]));
    let read = moved(&world.path("encoder"), &world.path("text/encoder"));
    assert!(!read.is_empty() && read.iter().all(|name| name.starts_with("text_")), "{read:?}");
}

#[test]
fn a_run_that_was_killed_goes_on_bit_for_bit() {
    let world = World::new();
    let settings = ["--dropout", "0.1", "--negatives", "3", "--checkpoint-steps", "1", "--schedule", "cosine"];
    let args = |out: &str| with(&replace(train(&world, out), "--epochs", "6"), &settings);
    succeed(&with(&args("straight"), &["--threads", "1"]));
    let broken = args("broken");
    let mut child = fissfuse(&broken).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (start, checkpoint) = (Instant::now(), world.path("broken/last.safetensors"));
    while !checkpoint.exists() {
        assert!(child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60), "it wrote nothing");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let resume = with(&broken, &["--resume"]);
    refuse(
        &replace(resume.clone(), "--encoder-learning-rate", "1e-4"),
        &["last.safetensors", "learning_rate was 0.001"],
    );
    let stored =
        ["train", "--data", world.arg("data"), "--features", world.arg("features"), "--out", world.arg("broken")];
    succeed(&world.encode());
    // Without the flags that are the encoder's alone.
    let at = resume.iter().position(|arg| *arg == "--encoder-learning-rate").unwrap();
    let of_the_model = [&resume[7..at], &resume[at + 2..]].concat();
    refuse(&with(&stored, &of_the_model), &["last.safetensors"]);
    succeed(&resume);
    let read = |out: &str, name: &str| fs::read(world.path(out).join(name)).unwrap();
    for name in ["last.safetensors", "best.safetensors", "encoder/model.safetensors", "encoder/config.json"] {
        assert!(read("straight", name) == read("broken", name), "{name} differs");
    }
    assert!(half_written(&world.path("broken")).is_empty());
    // Its end once more, from the checkpoint of the last epoch.
    assert!(succeed(&resume).contains("6 epochs, 6 done"));
}

#[test]
fn a_signal_ends_it_with_nothing_half_written() {
    let world = World::new();
    let args = replace(train(&world, "run"), "--epochs", "100000");
    let mut child = fissfuse(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (start, checkpoint) = (Instant::now(), world.path("run/last.safetensors"));
    while !checkpoint.exists() {
        assert!(child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60), "it wrote nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(143), "{errors}");
    assert!(errors.contains("stopped by SIGTERM") && errors.contains("--resume goes on"), "{errors}");
    assert!(half_written(&world.path("run")).is_empty());
    // The encoder in the folder is the one of the model beside it.
    let encode = replace(replace(world.encode(), "--encoder", world.arg("run/encoder")), "--out", world.arg("own"));
    succeed(&with(&encode, &["--precision", "f32"]));
    let paths = ["--data", world.arg("data"), "--features", world.arg("own"), "--model", world.arg("run")];
    succeed(&[&["eval", "--out", world.arg("eval")][..], &paths].concat());
}

#[test]
fn a_device_trains_as_the_processor_does() {
    let world = World::new();
    fs::write(world.path("chunks.toml"), "[encoder]\nchunk = 7\n").unwrap();
    let chunks = ["--freeze-layers", "1", "--config", world.arg("chunks.toml")];
    for (model, more) in [("fissfuse", &[][..]), ("bert", &["--lora-rank", "2"]), ("clip-projected", &chunks)] {
        let args = |out: String, device: &'static str| {
            let args = replace(replace(train(&world, &out), "--device", device), "--epochs", "2");
            [&args[..], &["--arithmetic", "f32", "--model", model], more].concat()
        };
        succeed(&args(format!("{model}-host"), "cpu"));
        let output = fissfuse_on_cusim(&args(format!("{model}-device"), "cuda"), &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let records = |place: &str| world.read_lines(&format!("{model}-{place}/train.jsonl"));
        for (host, device) in records("host").iter().zip(records("device")) {
            let [host, device] = [host, &device].map(|record| record["loss"].as_f64().unwrap());
            // Sums in another order, six times through AdamW, which divides small gradients by their own size.
            assert!((host - device).abs() <= 1e-3 * host, "{model}: {device}, the host's is {host}");
        }
        assert_eq!(records("device").len(), 2);
        assert!(world.path(&format!("{model}-device/encoder/model.safetensors")).exists());
    }
}

#[test]
fn what_cannot_be_trained_along_is_refused_and_said() {
    let world = World::encoded();
    let args = train(&world, "run");
    let from = |folder: &'static str| replace(args.clone(), "--train-encoder", folder);
    refuse(&from(world.arg("features")), &["is a feature store", "--features trains on it"]);
    refuse(&from(world.arg("data")), &["no config.json", "Hugging Face directory of a CLIP"]);
    let bert =
        fixture("bert").read_dir().unwrap().flatten().map(|entry| entry.path()).find(|path| path.is_dir()).unwrap();
    refuse(&from(bert.to_str().unwrap().to_string().leak()), &["model_type `bert`", "CLIP kind", "--features"]);
    refuse(&replace(args.clone(), "--data", world.arg("features")), &["is no dataset"]);
    refuse(&with(&args, &["--freeze-layers", "2"]), &["freeze_layers = 2", "1 and 1 layers"]);
    refuse(&with(&args, &["--lora-rank", "1", "--freeze-layers", "1"]), &["leaves nothing", "LoRA"]);
    refuse(&with(&args, &["--lora-rank", "99999999999"]), &["lora_rank = 99999999999"]);
    refuse(&with(&args, &["--lora-rank", "33"]), &["lora_rank = 33", "32 wide at most"]);
    // Settings of an encoder that is not trained, and neither features nor an encoder.
    for setting in [["--lora-rank", "1"], ["--freeze-layers", "1"], ["--encoder-learning-rate", "1e-4"]] {
        let output = run(&[&world.train()[..], &setting].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(2) && errors.contains(setting[0]) && errors.contains("--features"),
            "{errors}"
        );
    }
    let neither = run(&["train", "--data", world.arg("data"), "--out", world.arg("run")]);
    let errors = String::from_utf8_lossy(&neither.stderr).into_owned();
    assert!(errors.contains("--features") && errors.contains("--train-encoder"), "{errors}");
    refuse(&replace(args.clone(), "--encoder-learning-rate", "0"), &["encoder: learning_rate = 0"]);
    let at = args.iter().position(|arg| *arg == "--device").unwrap();
    let together = [&args[..at], &args[at + 2..], &["--devices", "cpu,cpu"]].concat();
    refuse(&together, &["--train-encoder", "one device"]);
    refuse(&with(&args, &["--graph"]), &["--graph"]);
    assert!(!world.path("run").exists());
    refuse(&replace(args.clone(), "--out", world.arg("")), &["encoder", "exists already"]);
    assert!(!world.path("last.safetensors").exists());

    // Weights of another shape, and a token that the model does not know.
    let config = fs::read_to_string(world.path("encoder/config.json")).unwrap();
    let change = |from: &str, to: &str| {
        assert!(config.contains(from), "{config}");
        fs::write(world.path("encoder/config.json"), config.replace(from, to)).unwrap();
    };
    change("\"intermediate_size\": 64", "\"intermediate_size\": 96");
    refuse(&args, &["model.safetensors", "mlp.fc1", "has shape [64, 32], needs [96, 32]"]);
    change("\"intermediate_size\": 64", "\"intermediate_size\": 4000000");
    refuse(&args, &["4000000", "up to 65536"]);
    change("\"hidden_size\": 32", "\"hidden_size\": 60000");
    refuse(&args, &["training the encoder needs", "encoder.freeze_layers", "encoder.lora_rank"]);
    fs::write(world.path("encoder/config.json"), &config).unwrap();

    let output = run(&replace(replace(args.clone(), "--encoder-learning-rate", "1e30"), "--learning-rate", "1e30"));
    refused(&output, &["epoch 1, step 2", "lower"]);
    assert!(!world.path("run/encoder").exists() && !world.path("run/best.safetensors").exists());

    fs::write(world.path("data/images/red-ball.png"), "no picture").unwrap();
    refuse(&replace(args.clone(), "--out", world.arg("bad")), &["red-ball.png"]);
    assert!(!world.path("bad").exists(), "it began to train before it looked at the images");
    let output = run(&with(&replace(args, "--out", world.arg("skipped")), &["--skip-bad"]));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.contains("what stands in for missing images"), "{errors}");
}

#[test]
fn a_run_without_mentions_to_validate_with_keeps_its_last_encoder() {
    let world = World::new();
    fs::remove_file(world.path("data/valid.jsonl")).unwrap();
    let printed = succeed(&train(&world, "run"));
    assert!(printed.contains("no mention to validate with: epoch 3"), "{printed}");
    let encode = replace(replace(world.encode(), "--encoder", world.arg("run/encoder")), "--out", world.arg("own"));
    succeed(&with(&encode, &["--precision", "f32"]));
    let paths = ["--data", world.arg("data"), "--features", world.arg("own"), "--model", world.arg("run")];
    succeed(&[&["eval", "--out", world.arg("eval")][..], &paths].concat());
}
