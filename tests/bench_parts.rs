//! `fissfuse-bench batch` and `ops`: what a step is made of, by itself.

use crate::bench::{bench, json};
use crate::support::refused;

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
