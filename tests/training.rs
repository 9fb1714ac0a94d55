//! Training through the binary: damaged files, broken numbers, signals, going on, where results come from.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::child::at_work;
use crate::support::{World, refuse, refused, replace, run, succeed};

#[test]
fn a_bit_that_flipped_in_a_model_or_a_checkpoint_is_found() {
    let world = World::encoded();
    let train = [&world.train()[..], &["--epochs", "1"]].concat();
    succeed(&train);
    let resume = [&world.train()[..], &["--epochs", "2", "--resume"]].concat();
    for (file, command) in
        [("best.safetensors", world.eval("eval")), ("best.safetensors", world.link()), ("last.safetensors", resume)]
    {
        let path = world.path("model").join(file);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        // Of a weight: finite before and after.
        let at = bytes.len() - 4;
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        refuse(&command, &[file, "checksum differs", "copy it again"]);
        // Of the header: the seed that it names.
        let mark = b"seed\\\":";
        let at = whole.windows(mark.len()).position(|bytes| bytes == mark).unwrap() + mark.len();
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        refuse(&command, &[file, "checksum differs"]);
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn training_that_breaks_keeps_no_broken_model() {
    let world = World::encoded();
    let train = replace(world.train(), "--learning-rate", "1e30");
    let output = run(&[&train[..], &["--epochs", "3"]].concat());
    refused(&output, &["lower"]);
    assert!(!world.path("model/best.safetensors").exists(), "a broken model was kept");
}

/// Starts a training that takes long, sends it a signal once it wrote a checkpoint, and waits for its end.
fn stopped_by(world: &World, signal: &str) -> Output {
    let settings = ["--epochs", "100000", "--checkpoint-steps", "1"];
    let child = at_work(&[&world.train()[..], &settings].concat(), &world.path("model/last.safetensors"));
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    child.wait_with_output().unwrap()
}

#[test]
fn a_signal_ends_training_after_its_step_and_says_how_to_go_on() {
    let world = World::encoded();
    for (signal, name, code) in [("-INT", "SIGINT", 130), ("-TERM", "SIGTERM", 143)] {
        let output = stopped_by(&world, signal);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(&format!("stopped by {name}")) && errors.contains("--resume goes on"), "{errors}");
        // What was kept is whole.
        succeed(&[&world.train()[..], &["--resume", "--epochs", "1", "--checkpoint-steps", "1"]].concat());
        fs::remove_dir_all(world.path("model")).unwrap();
    }
}

#[test]
fn a_run_is_resumed_where_there_is_one_and_as_it_was_begun() {
    let world = World::encoded();
    let with = |more: &[&'static str]| [&world.train()[..], more].concat();
    refuse(&with(&["--epochs", "1", "--resume"]), &["model", "no last.safetensors", "without --resume"]);
    assert!(!world.path("model").exists());
    succeed(&with(&["--epochs", "1", "--schedule", "linear"]));
    let longer = with(&["--epochs", "2", "--schedule", "linear", "--resume"]);
    refuse(&longer, &["last.safetensors", "--new-horizon"]);
    succeed(&[&longer[..], &["--new-horizon"]].concat());
    assert_eq!(world.read_lines("model/train.jsonl").len(), 2);
    fs::remove_file(world.path("model/best.safetensors")).unwrap();
    let printed = succeed(&longer);
    assert!(printed.contains("best: epoch") && printed.contains("best.safetensors is missing"), "{printed}");
    fs::remove_dir_all(world.path("model")).unwrap();
    fs::remove_file(world.path("data/valid.jsonl")).unwrap();
    let printed = succeed(&with(&["--epochs", "2"]));
    assert!(printed.contains("no mention to validate with: epoch 2") && !printed.contains("MRR"), "{printed}");
}

#[test]
fn every_result_names_what_it_came_from() {
    let world = World::encoded();
    succeed(&[&world.train()[..], &["--epochs", "1", "--seed", "7"]].concat());
    succeed(&[&world.eval("eval")[..], &["--seed", "5"]].concat());
    let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(world.path(name)).unwrap()).unwrap() };
    let (metrics, run) = (read("eval/metrics.json"), read("model/train.json"));
    assert_eq!((&metrics["candidate_order_seed"], &metrics["protocol"]), (&json!(5), &json!("gold-in-list")));
    assert_eq!(metrics["training"]["settings"]["seed"], 7);
    assert_eq!(metrics["training"], run["training"]);
    for key in ["version", "commit", "device", "dataset"] {
        assert!(run["training"][key].is_string() && metrics["provenance"][key].is_string(), "{key}");
    }
    assert_eq!(metrics["provenance"]["dataset"], run["training"]["dataset"]);
}

#[test]
fn sizes_beyond_the_memory_are_refused_before_anything_is_allocated() {
    let world = World::encoded();
    let d = replace(world.train(), "--d", "1000000");
    refuse(&[&world.train()[..], &["--weight-decay", "NaN"]].concat(), &["weight_decay = NaN"]);
    refuse(&d, &["training needs", "GB at least", "lower model.d"]);
    refuse(
        &replace(world.train(), "--d", "99999999999999999"),
        &["model: d = 99999999999999999: must be from 1 to 16777216"],
    );
    let most = "18446744073709551615";
    let huge = [&replace(world.train(), "--batch-size", most)[..], &["--negatives", most, "--epochs", "1"]].concat();
    let output = run(&huge);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = run(&[&world.train()[..], &["--threads", "1000000"]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_store_that_is_cut_short_while_it_is_read_is_an_error() {
    let world = World::encoded();
    let train = [&world.train()[..], &["--epochs", "100000"]].concat();
    let child = at_work(&train, &world.path("model/last.safetensors"));
    let shard = fs::OpenOptions::new().write(true).open(world.path("features/image-00000.safetensors")).unwrap();
    shard.set_len(0).unwrap();
    refused(&child.wait_with_output().unwrap(), &["features/image-00000.safetensors: was cut short"]);
}
