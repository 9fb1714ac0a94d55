//! `fissfuse-bench`: what is refused before anything is measured, and what is kept however a run ends.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fissfuse::profile::Timing;
use fissfuse::profile::measurement::Measurements;
use serde_json::Value;

use crate::support::{World, fissfuse_bench, refused};

fn bench(args: &[&str]) -> Output {
    fissfuse_bench().args(args).output().unwrap()
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_measured() {
    let step = ["step", "--device", "cpu", "--mentions", "1", "--d", "8", "--runs", "1"];
    let with = |more: &[&str]| bench(&[&step[..], more].concat());
    for wrong in [["--threads", "5000"], ["--noise", "nan"], ["--limit", "inf"], ["--plant", "inf"]] {
        assert_eq!(with(&wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(bench(&["self-test", "--slowdown", "nan"]).status.code(), Some(2));
    for flag in [&["--strict"][..], &["--explain"], &["--thresholds", "configs/bench-thresholds.toml"]] {
        refused(&with(flag), &[flag[0], "add --compare FILE or --interleave PROGRAM"]);
    }
    let latency = ["latency", "--device", "cpu", "--runs", "1", "--mentions", "1"];
    let latency = |more: &[&str]| bench(&[&latency[..], more].concat());
    for flag in [["--slo", "5"], ["--arrival", "constant"], ["--load-seconds", "5"]] {
        refused(&latency(&flag), &["add --load RATE"]);
    }
    let endless = ["latency", "--device", "cpu", "--load", "1e-20", "--load-seconds", "1e21"];
    refused(&bench(&endless), &["86400 s at most"]);
    refused(&latency(&["--entities", "1-6000", "--cold"]), &["12000 rows, 10000 are the most", "2 of ways"]);
    let rows = ["decode", "--device", "cpu", "--prompt", "1-6000", "--precision", "bf16,int8"];
    refused(&bench(&rows), &["12000 rows", "2 of precision"]);
    for size in [["--mentions", "18446744073709551615"], ["--max-tokens", "18446744073709551615"]] {
        refused(&bench(&[&["flops"][..], &size].concat()), &["too large"]);
    }
    refused(&bench(&["flops", "--d", "18446744073709551615"]), &["too wide"]);
    // Refused before anything of the size is made.
    let (most, many) = ("9223372036854775807", "1000000000000000");
    for size in [most, many] {
        refused(&bench(&["pretrain", "--device", "cpu", "--pairs", size]), &["--pairs: takes", "are free"]);
        refused(&bench(&["layer", "--device", "cpu", "--images", size]), &["--images: takes", "are free"]);
        refused(&bench(&["decode", "--device", "cpu", "--layers", "1", "--prompt", size]), &["--prompt: takes"]);
        refused(&bench(&["scan", "--entities", size]), &["--entities and --width: takes", "are free"]);
        refused(&bench(&["store", "--entities", "1", "--mentions", size]), &["--mentions: ", "are free"]);
        refused(&bench(&["candidates", "--entities", size]), &["--entities: ", "are free"]);
    }
    assert_eq!(bench(&["flops", "--prompt", "18446744073709551615"]).status.code(), Some(2));
}

#[test]
fn a_file_to_save_to_is_looked_at_before_anything_is_measured() {
    let world = World::new();
    // Measured, each of these would take an hour.
    let step = ["step", "--device", "cpu", "--mentions", "1", "--d", "8", "--limit", "3600", "--runs", "100000000"];
    let run = |more: &[&str]| bench(&[&step[..], more].concat());
    let quick =
        ["step", "--device", "cpu", "--mentions", "1", "--d", "8", "--runs", "2", "--save", world.arg("old.json")];
    assert!(bench(&quick).status.success());
    let old = std::fs::read(world.path("old.json")).unwrap();
    let compare = ["--compare", world.arg("old.json")];
    let save = |name: &str| ["--save", world.arg(name)];
    refused(&run(&[&compare[..], &save("old.json")].concat()), &["--save is what --compare reads"]);
    refused(&run(&save("data")), &["is a folder"]);
    refused(&run(&save("old.json/new.json")), &["old.json/new.json"]);
    std::fs::write(world.path("t.toml"), "").unwrap();
    let thresholds = ["--thresholds", world.arg("t.toml")];
    refused(&run(&[&compare[..], &thresholds, &save("t.toml")].concat()), &["--save is what --thresholds reads"]);
    std::fs::write(world.path("texts"), "a\n").unwrap();
    let encode = ["encode", "--texts", world.arg("texts"), "--text-encoder", world.arg("encoder")];
    refused(&bench(&[&encode[..], &save("texts")].concat()), &["--save is what --texts reads"]);
    let weights = save("encoder/model.safetensors");
    refused(&bench(&[&encode[..], &weights].concat()), &["--save is a file of --text-encoder"]);
    // What cannot be compared with is known before, too, and leaves no file.
    let new = save("new.json");
    refused(&run(&[&compare[..], &new, &["--seed", "1"]].concat()), &["seed was 0 then and is 1 now"]);
    refused(&run(&[&compare[..], &new, &["--threads", "7"]].concat()), &["threads"]);
    let layer = ["layer", "--device", "cpu", "--runs", "100000000"];
    refused(&bench(&[&layer[..], &compare, &new].concat()), &["step was measured then, layer now"]);
    let mut twice = Measurements::read(&world.path("old.json")).unwrap();
    twice.results.push(twice.results[0].clone());
    twice.write(&world.path("twice.json")).unwrap();
    refused(&run(&["--compare", world.arg("twice.json")]), &["is a row twice"]);
    assert!(!world.path("new.json").exists() && std::fs::read(world.path("old.json")).unwrap() == old);
}

#[test]
fn a_comparison_that_nobody_reads_keeps_its_code_and_its_file() {
    let world = World::new();
    // Of one thread, and however busy the machine is.
    let step = ["step", "--device", "cpu", "--threads", "1", "--mentions", "4", "--d", "8", "--runs", "12", "--save"];
    assert!(bench(&[&step[..], &[world.arg("old.json")]].concat()).status.success());
    let mut old = Measurements::read(&world.path("old.json")).unwrap();
    old.results[0].seconds = Some(Timing::new(vec![1e-9; 12]).unwrap());
    old.write(&world.path("old.json")).unwrap();
    std::fs::write(world.path("t.toml"), "max_noise = 1000.0\nclear_gap = 0.0").unwrap();
    let rest = ["--compare", world.arg("old.json"), "--thresholds", world.arg("t.toml"), "--output", "json"];
    let compare = [&step[..], &[world.arg("new.json")], &rest].concat();
    let heard = bench(&compare);
    let document: Value = serde_json::from_slice(&heard.stdout).unwrap();
    assert_eq!(document["comparison"][0]["verdict"], "SLOW");
    assert_eq!(document["results"].as_array().unwrap().len(), 1);
    std::fs::remove_file(world.path("new.json")).unwrap();
    let mut child = fissfuse_bench().args(&compare).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!((heard.status.code(), child.wait().unwrap().code()), (Some(3), Some(3)));
    assert_eq!(Measurements::read(&world.path("new.json")).unwrap().results.len(), 1);
}

#[test]
fn files_of_other_encoders_or_texts_are_not_compared() {
    let world = World::new();
    world.write_encoder("other", 1);
    std::fs::write(world.path("texts"), "a ball\n").unwrap();
    std::fs::write(world.path("more"), "a box\n").unwrap();
    let run = |encoder: &str, texts: &str, more: &[&str]| {
        let encode = ["encode", "--text-encoder", world.arg(encoder), "--texts", world.arg(texts)];
        bench(&[&encode[..], &["--device", "cpu", "--precision", "f32", "--runs", "2"], more].concat())
    };
    assert!(run("encoder", "texts", &["--save", world.arg("old.json")]).status.success());
    let old = ["--compare", world.arg("old.json")];
    assert!(run("encoder", "texts", &old).status.success());
    refused(&run("other", "texts", &old), &["text_encoder was"]);
    refused(&run("encoder", "more", &old), &["texts was"]);
    let latency = ["latency", "--device", "cpu", "--entities", "20", "--d", "8", "--mentions", "1", "--runs", "2"];
    let run = |encoder: &str, precision: &str, more: &[&str]| {
        bench(&[&latency[..], &["--encoder", world.arg(encoder), "--precision", precision], more].concat())
    };
    assert!(run("encoder", "f32", &["--save", world.arg("latency.json")]).status.success());
    let old = ["--compare", world.arg("latency.json")];
    refused(&run("other", "f32", &old), &["encoder was"]);
    refused(&run("encoder", "bf16", &old), &["precision was"]);
}

#[test]
fn a_signal_while_rows_are_measured_leaves_those_that_are_done() {
    let world = World::new();
    // Thousands of rows, each larger than the one before: some are done after seconds, and all of them after hours.
    let step =
        ["step", "--device", "cpu", "--mentions", "1-5000", "--d", "8", "--runs", "1", "--warmup", "0", "--save"];
    for seconds in [2, 8, 32] {
        let mut bench = fissfuse_bench();
        bench.args(step).arg(world.path("kept.json")).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = bench.spawn().unwrap();
        std::thread::sleep(Duration::from_secs(seconds));
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        // Of a machine that was too busy for one row there is nothing to keep.
        if world.path("kept.json").exists() {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(128 + 2) && errors.contains("stopped by SIGINT"), "{errors}");
            let kept = Measurements::read(&world.path("kept.json")).unwrap().results;
            let mentions: Vec<_> = kept.iter().map(|row| row.parameters["mentions"].as_u64().unwrap()).collect();
            assert_eq!(mentions, (1..=kept.len() as u64).collect::<Vec<_>>());
            assert!(String::from_utf8_lossy(&output.stdout).contains("samples/s"), "the rows are printed, too");
            return;
        }
    }
    panic!("no row was done in half a minute");
}
