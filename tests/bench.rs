//! `fissfuse-bench`: settings do what they say, and what cannot be measured is refused.

use std::process::{Command, Output};

use fissfuse::profile::measurement::Measurements;
use serde_json::Value;

use crate::support::{World, refused};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fissfuse-bench")).args(args).output().unwrap()
}

fn json(args: &[&str]) -> Value {
    let output = bench(&[args, &["--output", "json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn latency_measures_what_it_is_asked_for() {
    let small = ["latency", "--entities", "20", "--d", "8", "--device", "cpu", "--runs", "2"];
    let rows = |more: &[&str]| json(&[&small[..], more].concat())["results"].as_array().unwrap().clone();
    let row = |rows: &[Value]| {
        let number = |value: &Value| value.as_u64().unwrap();
        let of = |r: &Value| {
            [&r["parameters"]["mentions"], &r["parameters"]["candidates"], &r["seconds"]["runs"]].map(number)
        };
        rows.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(row(&rows(&["--mentions", "3"])), [[3, 10, 2]]);
    assert_eq!(row(&rows(&["--mentions", "2-4*2", "--preset", "wikimel"])), [[2, 100, 2], [4, 100, 2]]);
    for wrong in [&["--mentions", "0"][..], &["--mentions", "3-2"], &["--runs", "0"], &["--load", "5"]] {
        assert_eq!(bench(&[&small[..], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn flops_are_those_of_the_encoder_that_is_named() {
    let world = World::new();
    let of = |args: &[&str]| json(&[&["flops", "--mentions", "2", "--d", "8"], args].concat());
    let texts = |args: &[&str]| {
        let run = of(args);
        let row = run["results"].as_array().unwrap().iter().find(|row| row["name"] == "encoder, texts of a sample");
        row.unwrap()["figures"]["textbook_flops"].as_f64().unwrap()
    };
    assert!(texts(&["--encoder", world.arg("encoder")]) < texts(&[]));
    // A textbook pads to the longest text that is read, and no further than the encoder goes.
    assert!(texts(&["--max-tokens", "64"]) < texts(&["--max-tokens", "77"]));
    assert_eq!(texts(&["--max-tokens", "77"]), texts(&["--max-tokens", "300"]));
    let config = world.path("encoder/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen("\"clip\"", "\"bert\"", 1)).unwrap();
    refused(&bench(&["flops", "--encoder", world.arg("encoder")]), &["config.json", "model_type `bert`"]);
}

#[test]
fn nothing_to_measure_is_an_error() {
    let world = World::new();
    assert_eq!(bench(&["encode"]).status.code(), Some(2));
    std::fs::write(world.path("texts"), "\n \n").unwrap();
    let texts = ["encode", "--texts", world.arg("texts")];
    assert_eq!(bench(&texts).status.code(), Some(2));
    let encode = [&texts[..], &["--text-encoder", world.arg("encoder")]].concat();
    refused(&bench(&encode), &["texts: holds no text"]);
    std::fs::write(world.path("counts.json"), r#"{"kernels": []}"#).unwrap();
    refused(&bench(&["kernels", "--counts", world.arg("counts.json")]), &["counts no launch"]);
}

#[test]
fn one_run_has_the_same_rows_in_every_format() {
    let world = World::new();
    let step = ["step", "--device", "cpu", "--mentions", "1-2", "--d", "8,16", "--runs", "2", "--warmup", "0"];
    let printed = |format: &str| {
        let output = bench(&[&step[..], &["--output", format, "--save", world.arg("run.json")]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let saved = || Measurements::read(&world.path("run.json")).unwrap();
    let whole: Measurements = serde_json::from_str(&printed("json")).unwrap();
    assert_eq!((whole.results.clone(), whole.results.len()), (saved().results, 4));
    let parameters: Vec<_> = whole.results.iter().map(|r| (&r.parameters["mentions"], &r.parameters["d"])).collect();
    let wanted = [(1, 8), (1, 16), (2, 8), (2, 16)].map(|(a, b)| (Value::from(a), Value::from(b)));
    assert_eq!(parameters, wanted.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
    assert!(whole.results.iter().all(|r| r.seconds.as_ref().unwrap().runs() == 2));
    let lines = printed("jsonl");
    assert!(lines.lines().count() == 4 && lines.lines().all(|l| serde_json::from_str::<Value>(l).is_ok()));
    assert_eq!(printed("csv").lines().count(), 5);
    let rows = |text: &str, start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((rows(&printed("md"), "| "), rows(&printed("table"), " 1 ")), (5, 2));
}

#[test]
fn comparisons_give_verdicts_and_codes() {
    let world = World::new();
    let step = ["step", "--device", "cpu", "--mentions", "1", "--d", "8"];
    let run = |more: &[&str]| bench(&[&step[..], more].concat());
    assert!(run(&["--runs", "12", "--save", world.arg("old.json")]).status.success());
    let against = |more: &[&str]| run(&[&["--runs", "12", "--compare", world.arg("old.json")], more].concat());
    // Five times as slow, which no noise hides; whatever the noise, it is never the same.
    let slow = against(&["--plant", "400", "--explain"]);
    let said = String::from_utf8_lossy(&slow.stdout).into_owned();
    assert!(said.contains("SLOW") || said.contains("AMBIGUOUS"), "{said}");
    assert_eq!(slow.status.code(), Some(if said.contains("SLOW") { 3 } else { 0 }), "{said}");
    // One run says nothing, and says so.
    let few = run(&["--runs", "1", "--compare", world.arg("old.json"), "--strict", "--explain"]);
    let said = String::from_utf8_lossy(&few.stdout).into_owned();
    assert!(few.status.code() == Some(4) && said.contains("1 new runs, at least 10 are needed"), "{said}");
    refused(&against(&["--seed", "1"]), &["seed was 0 then and is 1 now"]);
    refused(&against(&["--candidates", "3"]), &["candidates 10", "was measured then only"]);
    let text = std::fs::read_to_string(world.path("old.json")).unwrap();
    std::fs::write(world.path("newer.json"), text.replace("\"schema\": 1", "\"schema\": 9")).unwrap();
    refused(&run(&["--compare", world.arg("newer.json")]), &["newer.json", "schema 9"]);
    std::fs::write(world.path("t.toml"), "clear_gap = 7").unwrap();
    refused(&run(&["--thresholds", world.arg("t.toml")]), &["t.toml", "clear_gap"]);
}

#[test]
fn two_programs_are_measured_in_turn() {
    let world = World::new();
    std::fs::write(world.path("t.toml"), "min_rounds = 2\nmax_rounds = 2\nleast_change = 0.3").unwrap();
    let this = env!("CARGO_BIN_EXE_fissfuse-bench");
    let step = ["step", "--device", "cpu", "--mentions", "1,2", "--d", "8", "--thresholds", world.arg("t.toml")];
    let compared = bench(&[&step[..], &["--interleave", this, "--output", "json"]].concat());
    let rows: Value = serde_json::from_slice(&compared.stdout).unwrap();
    let rows = rows["comparison"].as_array().unwrap().clone();
    assert_eq!(rows.iter().map(|row| row["parameters"]["mentions"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    for row in &rows {
        let (ratio, interval) = (row["ratio"].as_f64().unwrap(), &row["interval"]);
        assert!(interval[0].as_f64().unwrap() <= ratio && ratio <= interval[1].as_f64().unwrap(), "{row}");
        assert!(row["old"].as_f64().unwrap() > 0.0 && row["new"].as_f64().unwrap() > 0.0, "{row}");
    }
    let with = |program: &str| bench(&[&step[..], &["--interleave", program]].concat());
    refused(&with("/bin/false"), &["/bin/false ended while it was measured"]);
    refused(&with(world.arg("nowhere")), &["nowhere cannot be started"]);
    refused(&with("/bin/cat"), &["/bin/cat"]);
}

#[test]
fn requests_under_load_count_from_their_schedule() {
    let load = ["latency", "--device", "cpu", "--entities", "20", "--d", "8", "--mentions", "1", "--candidates", "2"];
    let load =
        [&load[..], &["--load", "40", "--load-seconds", "0.5", "--arrival", "constant", "--slo", "10000"]].concat();
    let run = json(&load);
    let row = &run["results"][0];
    assert_eq!((&row["figures"]["requests"], &row["figures"]["good_share"]), (&20.0.into(), &1.0.into()));
    let at = |part: &Value, i: usize| part["samples"][i].as_f64().unwrap();
    for i in 0..20 {
        let parts = at(&row["parts"]["queue"], i) + at(&row["parts"]["service"], i);
        assert!((at(&row["seconds"], i) - parts).abs() < 1e-6, "{row}");
    }
    for wrong in [["--load", "0"], ["--load", "1e9"], ["--slo", "-1"], ["--arrival", "gamma"]] {
        assert!(!bench(&[&load[..], &wrong].concat()).status.success(), "{wrong:?}");
    }
}
