//! The commands on devices that are unlike the one that most tests have: an old driver, no memory pools, a large card. Kernels
//! are checked there too, by cuda.rs.

use std::process::Output;

use fissfuse::llama::{Precision, Preset, write_random};
use serde_json::{Value, json};

use crate::support::{OLDEST, World, fissfuse_on_cusim};

/// Encodes, trains, evaluates, links and re-ranks on a device, and gives the evaluation's ranking.
fn run_all(environment: &[(&str, &str)]) -> Vec<Value> {
    let world = World::new();
    let on_cuda = |args: &[&str], cuda: &[&str]| -> Output {
        let output = fissfuse_on_cusim(&[args, cuda].concat(), environment);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !errors.contains("cusim: ["), "{environment:?} {args:?}: {errors}");
        output
    };
    let [cuda, f32] = [&["--device", "cuda"][..], &["--device", "cuda", "--arithmetic", "f32"]];
    on_cuda(&world.encode(), &[cuda, &["--precision", "f32"]].concat());
    on_cuda(&[&world.train()[..], &["--epochs", "1"]].concat(), f32);
    let graph = [&world.train()[..], &["--epochs", "2", "--resume", "--graph"]].concat();
    on_cuda(&graph, &[f32, &["--schedule", "constant"]].concat());
    on_cuda(&world.eval("eval"), f32);
    world.write_lines("asked.jsonl", &[World::mention("test", 0), World::mention("test", 1)]);
    let linked = on_cuda(&[&world.link()[..], &["--input", world.arg("asked.jsonl")]].concat(), f32);
    assert_eq!(String::from_utf8_lossy(&linked.stdout).lines().count(), 2);
    write_random(&world.path("llama"), &Preset::Tiny.config(), Precision::F32, 3, ["A ball: B or C."].into_iter())
        .unwrap();
    let ranking = ["--ranking", world.arg("eval/run.jsonl"), "--out", world.arg("kar.jsonl")];
    let rerank = ["rerank", "--data", world.arg("data"), "--llm", world.arg("llama")];
    on_cuda(&[&rerank[..], &ranking].concat(), cuda);
    assert_eq!(world.read_lines("kar.jsonl").len(), 10);
    let ranks =
        world.read_lines("eval/run.jsonl").into_iter().map(|line| json!([line["mention_id"], line["candidates"]]));
    ranks.collect()
}

#[test]
fn everything_runs_on_any_driver_without_pools_and_on_large_cards() {
    let usual = run_all(&[]);
    assert_eq!(run_all(&[OLDEST[0]]), usual, "of the oldest driver");
    assert_eq!(run_all(&[OLDEST[1], ("CUSIM_DEVICE", "h200")]), usual, "of an H200 without memory pools");
}
