//! `fissfuse-bench batch` and `ops`: what a step is made of, by itself, and what a step costs.

use std::collections::HashMap;

use serde_json::Value;

use crate::bench::{bench, json};
use crate::support::refused;

/// A figure of a row.
fn figure(row: &Value, name: &str) -> f64 {
    row["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {row}"))
}

#[test]
fn batches_are_put_together_of_a_store() {
    let small = ["batch", "--mentions", "4", "--tokens", "3", "--patches", "2", "--runs", "3", "--device", "cpu"];
    let batch = |candidates, entities| [&small[..], &["--candidates", candidates, "--entities", entities]].concat();
    let run = json(&batch("2-3", "40"));
    let rows = run["results"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["parts"]["put together"]["p50"].as_f64() > Some(0.0)), "{rows:?}");
    refused(&bench(&batch("41", "40")), &["41 of 40 entities"]);
    assert_eq!(bench(&batch("0", "40")).status.code(), Some(2));
}

#[test]
fn operations_for_inference_are_measured_beside_those_that_train() {
    let of = |args: &[&str]| json(&[&["ops", "--device", "cpu", "--runs", "2", "--warmup", "0"], args].concat());
    let run = of(&["rms_norm", "--of", "inference"]);
    let row = &run["results"][0];
    assert_eq!((&run["settings"]["of"], &row["parameters"]["extent"]), (&"inference".into(), &"forward".into()));
    assert!(row["figures"]["bytes"].as_f64() > Some(1e6), "{row}");
    assert_eq!(of(&["dropout"])["results"].as_array().unwrap().len(), 2, "forward, and both");
    refused(&bench(&["ops", "rms_norm"]), &["no operation is called rms_norm: project"]);
}

#[test]
fn what_an_operation_costs_forward_and_backward_is_more_than_forward() {
    let run = json(&["ops", "mlp", "--device", "cpu", "--runs", "1", "--warmup", "0"]);
    let mut forward = HashMap::new();
    for row in run["results"].as_array().unwrap() {
        let (name, flops, bytes) = (row["name"].to_string(), figure(row, "flops"), figure(row, "bytes"));
        match row["parameters"]["extent"].as_str().unwrap() {
            "forward" => drop(forward.insert(name, (flops, bytes))),
            // Of each product two more, of gradients of its weights and of its rows.
            _ => {
                let (alone, moved) = forward[&name];
                assert!((2.9..3.3).contains(&(flops / alone)) && bytes > 1.5 * moved, "{row}, {alone} forward");
            }
        }
    }
    assert!(!forward.is_empty());
}

#[test]
fn a_step_costs_what_its_operations_cost_with_the_optimizer() {
    let small = ["step", "--mentions", "2", "--d", "8", "--device", "cpu", "--runs", "1"];
    let whole = json(&small);
    let parts = json(&[&small[..], &["--by-op"]].concat());
    for name in ["flops", "bytes"] {
        let rows = parts["results"].as_array().unwrap();
        let of = |row: &Value| row["figures"][name].as_f64().unwrap_or(0.0);
        let (sum, all) = (rows.iter().map(of).sum::<f64>(), figure(&whole["results"][0], name));
        assert!(sum == all && all > 0.0, "{name}: {all}, of its operations {sum}");
    }
}

#[test]
fn a_column_stands_once() {
    let scan =
        ["scan", "--entities", "50", "--width", "64", "--mentions", "1-2", "--top", "3", "--recall-mentions", "2"];
    let output = bench(&[&scan[..], &["--runs", "1", "--output", "csv"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut columns: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    let all = columns.len();
    columns.sort_unstable();
    columns.dedup();
    assert!(columns.len() == all && columns.contains(&"mentions"), "{text}");
    refused(&bench(&["scan", "--entities", "5", "--top", "10"]), &["--top 10", "--entities 5"]);
}

#[test]
fn what_cannot_be_repeated_takes_no_runs() {
    for command in ["store", "candidates", "flops"] {
        for flag in ["--runs", "--warmup"] {
            refused(&bench(&[command, flag, "3"]), &[command, "leave out --runs and --warmup"]);
        }
    }
    let step = ["step", "--device", "cpu", "--mentions", "1", "--d", "8", "--interleave", "/bin/true"];
    refused(&bench(&step), &["/bin/true ended without a row: is it a fissfuse-bench"]);
}
