//! An encoder of texts and one of images that are trained together.

use std::fs;
use std::path::{Path, PathBuf};

use fissfuse::encoder::trained::{Layers, States};
use fissfuse::encoder::{EncoderPaths, ImageEncoder, Precision, TextEncoder, TrainableEncoders};
use fissfuse::model::Model;
use fissfuse::tensor::safetensors::Reader;
use serde_json::Value;

use super::{expect_a_device_trains_alike, expect_gradients, expect_states, moved, opened, run_of, train, with};
use crate::support::child::at_work;
use crate::support::{World, fixture, half_written, largest, near, refuse, replace, run, succeed};

const BERT: &str = "bert/sharded-f32";
const RESNET: &str = "resnet/three-stages-f32";

fn folder(name: &str) -> &'static str {
    fixture(name).to_str().unwrap().to_string().leak()
}

/// A BERT and this encoder of images.
fn bert_and(image: PathBuf) -> EncoderPaths {
    EncoderPaths { text: Some(fixture(BERT)), image: Some(image) }
}

/// `fissfuse train` with an encoder of texts and one of images.
fn train_two(world: &World, out: &str, text: &'static str, image: &'static str) -> Vec<&'static str> {
    let args = train(world, out);
    let at = args.iter().position(|arg| *arg == "--train-encoder").unwrap();
    let both = ["--train-text-encoder", text, "--train-image-encoder", image];
    [&args[..at], &both, &args[at + 2..]].concat()
}

#[test]
fn states_are_those_that_each_encoder_gives_and_both_are_written_as_they_were_read() {
    let world = World::new();
    let clip = world.path("encoder");
    world.write_encoder("other", 9);
    for paths in [
        bert_and(fixture(RESNET)),
        bert_and(clip.clone()),
        // Whose names are the same in both.
        EncoderPaths { text: Some(world.path("other")), image: Some(clip) },
    ] {
        let encoders = TrainableEncoders::read(&paths).unwrap();
        let parameters = encoders.weights().unwrap();
        let (tape, to) = (fissfuse::autograd::Tape::inference(), tempfile::tempdir().unwrap());
        let vars = parameters.bind(&tape);
        let layers = Layers { tape: &tape, vars: &vars, gpu: None, masks: None };
        let ids = encoders.tokens_at_most(&["a red ball", "a box", ""], 9).unwrap();
        let of_texts = encoders.text_states(layers, &ids.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        let size = encoders.processor().unwrap().size();
        let image = |i: usize| (0..3 * size * size).map(|at| ((at * 37 + i) % 101) as f32 / 50.0 - 1.0).collect();
        let images: Vec<Vec<f32>> = (0..3).map(image).collect();
        let of_images = encoders.image_states(layers, &images.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        let written = to.path().join("encoder");
        encoders.write(&parameters, Precision::F32, &written).unwrap();
        let [mut texts, mut pictures] = [None, None];
        for EncoderPaths { text, image } in [paths.clone(), encoders.written(&written)] {
            let said = TextEncoder::open(&text.unwrap(), Precision::F32).unwrap();
            let said = said.encode_texts(&["a red ball", "a box", ""], 9).unwrap();
            let seen = ImageEncoder::open(&image.unwrap(), Precision::F32).unwrap().encode_images(&images).unwrap();
            assert_eq!(texts.get_or_insert_with(|| said.clone()), &said, "{paths:?}");
            assert_eq!(pictures.get_or_insert_with(|| seen.clone()), &seen, "{paths:?}");
        }
        let expect = |states: States, of: Option<Vec<_>>| expect_states(&format!("{paths:?}"), states, &of.unwrap());
        expect(of_texts, texts);
        expect(of_images, pictures);
    }
}

#[test]
fn gradients_of_both_are_those_of_finite_differences() {
    let world = World::new();
    let dataset = opened(&world);
    expect_gradients(&bert_and(world.path("encoder")), &dataset, "[model]\nname = \"clip-projected\"\nd = 16\n");
    let lora = "[model]\nname = \"jmel\"\nd = 16\n[encoder]\nlora_rank = 2\n";
    expect_gradients(&bert_and(world.path("encoder")), &dataset, lora);
}

#[test]
fn a_batch_in_chunks_has_the_gradients_of_the_whole() {
    let world = World::new();
    let dataset = opened(&world);
    let gradients = |chunk: usize| {
        let settings = format!("[model]\nname = \"ghmfc\"\nd = 16\n[encoder]\nfreeze_layers = 1\nchunk = {chunk}\n");
        let (mut run, samples) = run_of(&bert_and(fixture(RESNET)), &dataset, &settings);
        let model = Model::new(run.model().clone(), 3).unwrap();
        let (prepared, start) = (run.prepare(&samples[..8]).unwrap(), run.take_start().unwrap());
        let names: Vec<String> = start.trained().iter().map(|(name, _)| name.to_string()).collect();
        (names, run.gradients((&model, &start), &prepared, None).unwrap())
    };
    let (names, want) = gradients(0);
    // The one layer of the BERT that is trained, and four bottlenecks.
    for part in
        ["text.encoder.layer.1.output.dense.weight", "image.encoder.stages.2.layers.1.layer.0.convolution.weight"]
    {
        assert!(names.iter().any(|name| name.ends_with(part)), "{names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("text.encoder.layer.0") || name.contains("embed")), "{names:?}");
    for chunk in [1, 5] {
        let (_, got) = gradients(chunk);
        near("losses", got.losses.data(), want.losses.data(), 2e-5 * largest(want.losses.data()));
        for ((name, got), want) in names.iter().zip(&got.encoder).zip(&want.encoder) {
            let (got, want) = (got.as_ref().unwrap().data(), want.as_ref().unwrap().data());
            // Sums over other parts, of some thousands of roundings of 6e-8.
            near(&format!("chunk {chunk}, {name}"), got, want, 1e-4 * largest(want).max(1e-2));
        }
    }
}

/// Runs the command that a run printed, with these features, and holds the model's metrics on them against the run's.
fn expect_links_as_it_was_validated(world: &World, name: &str, printed: &str) {
    let command = printed.lines().find_map(|line| line.trim().strip_prefix("fissfuse ")).unwrap();
    let [features, eval] = ["features", "eval"].map(|part| world.arg(&format!("{name}-{part}")));
    let words = command.split(' ').map(|word| if word == "FEATURES" { features } else { word });
    succeed(&words.chain(["--device", "cpu"]).collect::<Vec<_>>());
    let paths = ["--data", world.arg("data"), "--features", features, "--model", world.arg(name)];
    succeed(&[&["eval", "--split", "valid", "--device", "cpu", "--out", eval][..], &paths].concat());
    let metrics: Value = serde_json::from_slice(&fs::read(Path::new(eval).join("metrics.json")).unwrap()).unwrap();
    let records = world.read_lines(&format!("{name}/train.jsonl"));
    let best = records.iter().rfind(|record| record["best"] == true).unwrap();
    assert_eq!(metrics["mean"], best["valid"], "{name}: {metrics:#}");
    assert_eq!(metrics["training"]["encoder"]["two_encoders"], true);
    let loss = |epoch: usize| records[epoch]["loss"].as_f64().unwrap();
    assert!(records.len() == 3 && loss(2) < loss(0), "{name}: {records:?}");
}

#[test]
fn both_learn_and_what_comes_out_links_as_it_was_validated() {
    let world = World::encoded();
    world.write_encoder("other", 9);
    let (clip, other) = (world.arg("encoder"), world.arg("other"));
    for (name, model, text, image) in [
        ("ghmfc", "ghmfc", folder(BERT), folder(RESNET)),
        ("fissfuse", "fissfuse", folder(BERT), clip),
        ("clips", "clip-projected", other, clip),
    ] {
        let printed = succeed(&with(&train_two(&world, name, text, image), &["--model", model]));
        let [of_texts, of_images] = ["text", "image"].map(|which| world.arg(&format!("{name}/encoder/{which}")));
        assert!(printed.contains(&format!("its encoders are in {of_texts} and {of_images}")), "{printed}");
        assert!(printed.contains(&format!("--text-encoder {of_texts} --image-encoder {of_images}")), "{printed}");
        assert!(half_written(&world.path(name)).is_empty());
        expect_links_as_it_was_validated(&world, name, &printed);
    }
    let names = moved(Path::new(folder(RESNET)), &world.path("ghmfc/encoder/image"));
    for name in ["embedder.embedder.convolution.weight", "stages.2.layers.1.layer.2.normalization.weight"] {
        assert!(names.iter().any(|moved| moved.ends_with(name)), "{name} did not move: {names:?}");
    }
    // Of two CLIPs the one tower of each is trained.
    for (from, which, tower) in [(other, "text", "text_"), (clip, "image", "vis")] {
        let names = moved(Path::new(from), &world.path("clips/encoder").join(which));
        assert!(!names.is_empty() && names.iter().all(|name| name.starts_with(tower)), "{which}: {names:?}");
    }
    // What features of other encoders are told.
    let paths = ["--data", world.arg("data"), "--features", world.arg("features"), "--model", world.arg("clips")];
    let eval = [&["eval", "--device", "cpu", "--out", world.arg("eval")][..], &paths].concat();
    let made =
        "--text-encoder MODEL/encoder/text --image-encoder MODEL/encoder/image --precision f32 --modalities both";
    refuse(&eval, &["features of another encoder", made]);
}

#[test]
fn frozen_layers_and_what_lora_does_not_change_keep_their_bits() {
    let world = World::new();
    let two = train_two(&world, "frozen", folder("bert/distilled-f32"), folder(RESNET));
    succeed(&with(&replace(two, "--epochs", "1"), &["--freeze-layers", "3", "--model", "ghmfc"]));
    // The distilled BERT has no more layers than that.
    let files = fissfuse::encoder::TrainableEncoder::read(&fixture("bert/distilled-f32")).unwrap();
    let bare = world.path("bare");
    files.write(&files.weights(&fixture("bert/distilled-f32")).unwrap(), Precision::F32, &bare).unwrap();
    assert!(moved(&bare, &world.path("frozen/encoder/text")).is_empty());
    let names = moved(&fixture(RESNET), &world.path("frozen/encoder/image"));
    assert!(!names.is_empty() && names.iter().all(|name| name.contains("stages.2.")), "{names:?}");

    let two = train_two(&world, "lora", folder(BERT), world.arg("encoder"));
    succeed(&with(&two, &["--lora-rank", "4", "--model", "clip-projected"]));
    let names = moved(&world.path("encoder"), &world.path("lora/encoder/image"));
    let adapted =
        |name: &String| name.starts_with("vision_") && (name.contains(".q_proj.w") || name.contains(".v_proj.w"));
    assert!(names.len() == 2 && names.iter().all(adapted), "{names:?}");
    let checkpoint = Reader::open(&world.path("lora/last.safetensors")).unwrap();
    let count = |prefix: &str| checkpoint.names().filter(|name| name.starts_with(prefix)).count();
    // Two factors of queries and of values, in two layers and in one.
    assert_eq!(["encoder.parameter.text.", "encoder.parameter.image."].map(count), [8, 4]);
}

#[test]
fn a_run_that_was_killed_goes_on_bit_for_bit() {
    let world = World::new();
    fs::write(world.path("dropout.toml"), "[encoder]\ndropout = 0.1\n").unwrap();
    let steps = ["--negatives", "3", "--checkpoint-steps", "1", "--schedule", "cosine"];
    let settings = [&["--model", "ghmfc", "--config", world.arg("dropout.toml")][..], &steps].concat();
    let args =
        |out: &str| with(&replace(train_two(&world, out, folder(BERT), folder(RESNET)), "--epochs", "4"), &settings);
    succeed(&with(&args("straight"), &["--threads", "1"]));
    let broken = args("broken");
    let mut child = at_work(&broken, &world.path("broken/last.safetensors"));
    child.kill().unwrap();
    child.wait().unwrap();
    let resume = with(&broken, &["--resume"]);
    // Two others, and one in the place of two.
    let other = replace(resume.clone(), "--train-text-encoder", folder("bert/distilled-f32"));
    refuse(&other, &["it is of another encoder: text_encoder is \"bert:"]);
    let clip = replace(train(&world, "broken"), "--epochs", "4");
    refuse(&[&clip[..], &settings, &["--resume"]].concat(), &["last.safetensors", "it is of another encoder"]);
    succeed(&resume);
    let read = |out: &str, name: &str| fs::read(world.path(out).join(name)).unwrap();
    let of_encoders = ["encoder/text/model.safetensors", "encoder/image/model.safetensors", "encoder/text/config.json"];
    for name in ["last.safetensors", "best.safetensors"].into_iter().chain(of_encoders) {
        assert!(read("straight", name) == read("broken", name), "{name} differs");
    }
    assert!(half_written(&world.path("broken")).is_empty());
    fs::remove_dir_all(world.path("broken/encoder/image")).unwrap();
    refuse(&resume, &["broken/encoder/image", "is gone or broken; train again with another --out"]);
}

#[test]
fn one_folder_that_is_named_twice_is_one_encoder() {
    let world = World::new();
    let args = |out: &str| with(&replace(train(&world, out), "--epochs", "1"), &["--model", "clip-projected"]);
    succeed(&args("one"));
    let (clip, again) = (world.arg("encoder"), world.arg("data/../encoder"));
    let twice = train_two(&world, "twice", clip, again);
    succeed(&with(&replace(twice, "--epochs", "1"), &["--model", "clip-projected"]));
    let read = |out: &str| fs::read(world.path(out).join("encoder/model.safetensors")).unwrap();
    assert!(read("one") == read("twice"));
    // A copy of it is another: the run that goes on has two where there was one.
    fs::create_dir(world.path("copy")).unwrap();
    for entry in fs::read_dir(clip).unwrap().flatten() {
        fs::copy(entry.path(), world.path("copy").join(entry.file_name())).unwrap();
    }
    let copied = replace(train_two(&world, "one", clip, world.arg("copy")), "--epochs", "1");
    refuse(
        &with(&copied, &["--model", "clip-projected", "--resume"]),
        &["two_encoders was the default and is now true"],
    );
}

#[test]
fn a_device_trains_them_as_the_processor_does() {
    for (model, image) in [("ghmfc", Some(folder(RESNET))), ("fissfuse", None)] {
        let world = World::new();
        let image = image.unwrap_or(world.arg("encoder"));
        expect_a_device_trains_alike(&world, |out| {
            with(&train_two(&world, out, folder(BERT), image), &["--model", model])
        });
    }
}

#[test]
fn what_does_not_go_together_is_refused_with_what_to_do() {
    let world = World::new();
    let clip = world.arg("encoder");
    let two = |text: &'static str, image: &'static str| train_two(&world, "run", text, image);
    let says = ["holds a ResNet, which encodes images", "--train-text-encoder"];
    refuse(&two(folder(RESNET), clip), &says);
    refuse(&two(folder(RESNET), folder(RESNET)), &says);
    refuse(&two(clip, folder(BERT)), &["holds a BERT, which encodes texts", "--train-image-encoder"]);
    // A modality that the model does not read, and one that it reads without an encoder.
    let texts = with(&two(folder(BERT), folder(RESNET)), &["--model", "bert"]);
    refuse(&texts, &["three-stages-f32: encodes images, which the model does not read", "leave it out"]);
    for flag in ["--train-text-encoder", "--train-image-encoder"] {
        let of = if flag == "--train-text-encoder" { folder(BERT) } else { folder(RESNET) };
        let mut alone = replace(train(&world, "run"), "--train-encoder", of);
        let at = alone.iter().position(|arg| *arg == "--train-encoder").unwrap();
        alone[at] = flag;
        let (other, own) = if of == folder(BERT) { ("image", "text") } else { ("text", "image") };
        refuse(&alone, &[&format!("no encoder of {other}s is given: add --train-{other}-encoder DIR")]);
        let alone = with(&replace(alone, "--epochs", "1"), &["--modalities", own]);
        succeed(&replace(alone.clone(), "--out", world.arg(own)));
        assert!(world.path(own).join("encoder/model.safetensors").exists());
    }
    // LoRA where one of them has no queries, and layers to freeze of which neither has so many.
    let lora = with(&two(folder(BERT), folder(RESNET)), &["--model", "ghmfc", "--lora-rank", "2"]);
    refuse(&lora, &["lora_rank = 2", "three-stages-f32 has none"]);
    let frozen = with(&two(folder(BERT), folder(RESNET)), &["--model", "ghmfc", "--freeze-layers", "6"]);
    refuse(
        &frozen,
        &["freeze_layers = 6: there are 2 and 5 layers in", "sharded-f32 and", "no more than 5 can be frozen"],
    );
    // One that has nothing to do, and the folder of two encoders where one is asked for.
    let third = with(&two(folder(BERT), clip), &["--train-encoder", world.arg("nowhere")]);
    refuse(&third, &["--train-encoder", "nowhere: texts and images have encoders of their own; leave it out"]);
    for name in ["text", "image"] {
        fs::create_dir_all(world.path("both").join(name)).unwrap();
        fs::write(world.path("both").join(name).join("config.json"), "{}").unwrap();
    }
    let both = replace(world.encode(), "--encoder", world.arg("both"));
    refuse(&both, &["both: has no config.json; there is one in its text and in its image: give that folder"]);
    // A store beside them, and widths that the configuration asks for.
    let stored = run(&with(&two(folder(BERT), clip), &["--features", world.arg("features")]));
    let errors = String::from_utf8_lossy(&stored.stderr).into_owned();
    assert!(stored.status.code() == Some(2) && errors.contains("--features"), "{errors}");
    fs::write(
        world.path("widths.toml"),
        "[model]\nwidths = { text = 99, text_global = 24, image = 32, image_global = 32 }\n",
    )
    .unwrap();
    let widths = with(&two(folder(BERT), clip), &["--config", world.arg("widths.toml")]);
    refuse(&widths, &["the configuration asks for", "the features have"]);
    assert!(!world.path("run").exists());
}
