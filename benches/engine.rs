//! Each operation and the whole training step at the paper's WikiDiverse size, on this machine.
//!
//!     cargo bench                      everything
//!     cargo bench -- cross_attention   one operation
//!
//! What criterion sampled lies in target/tmp/bench.json besides, in the form of `fissfuse-bench`, whose `--compare` and
//! `fissfuse report` read it. `fissfuse-bench ops` and `step` measure the same work until its noise has settled.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use criterion::Criterion;
use fissfuse::device::cpu::keep_freed_memory;
use fissfuse::model::ModelConfig;
use fissfuse::profile::Timing;
use fissfuse::profile::measurement::{Measurement, Measurements};
use fissfuse::profile::operations::{Operation, Part};
use fissfuse::profile::step::TrainingStep;
use fissfuse::profile::synthetic::Shape;
use fissfuse::train::Steps;
use serde_json::{Map, Value};

/// Samples of a benchmark, as criterion divides its time.
const SAMPLES: usize = 20;

/// Forward of each operation, then forward with backward.
fn operations(criterion: &mut Criterion) {
    for operation in Operation::all(Part::Training).expect("the table's sizes fit together") {
        let mut group = criterion.benchmark_group(operation.name());
        group.sample_size(SAMPLES);
        let extents = operation.extents();
        let operation = operation.open(None).expect("the host");
        for &extent in extents {
            group.bench_function(extent.name(), |bench| bench.iter(|| operation.run(extent).expect("the operation")));
        }
    }
}

/// Forward, backward and AdamW.
fn step(criterion: &mut Criterion) {
    let steps = Steps::new(None, false).expect("the host");
    let mut step = TrainingStep::new(ModelConfig::default(), Shape::WIKIDIVERSE, 0, steps).expect("the paper's sizes");
    let mut group = criterion.benchmark_group("training step");
    group.sample_size(SAMPLES).bench_function("wikidiverse", |bench| bench.iter(|| step.run().expect("a step")));
}

/// Files of samples below criterion's folder: of each group and function the last run's.
fn samples(folder: &Path) -> BTreeSet<PathBuf> {
    let inside = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let functions = inside(folder.into()).flat_map(inside);
    functions.map(|function| function.join("new/sample.json")).filter(|file| file.exists()).collect()
}

fn json(file: &Path) -> Value {
    let text = fs::read_to_string(file).expect("criterion wrote it");
    serde_json::from_str(&text).expect("criterion writes JSON")
}

/// A row of the seconds of one run in each sample.
fn row(sample: &Path) -> Measurement {
    let (sampled, benchmark) = (json(sample), json(&sample.with_file_name("benchmark.json")));
    let numbers =
        |name: &str| sampled[name].as_array().into_iter().flatten().filter_map(Value::as_f64).collect::<Vec<_>>();
    let runs = numbers("iters").into_iter().zip(numbers("times")).map(|(runs, nanoseconds)| nanoseconds / runs / 1e9);
    let text = |name: &str| benchmark[name].as_str().unwrap_or_default().to_string();
    let parameters: Map<String, Value> = [("extent".to_string(), text("function_id").into())].into_iter().collect();
    let seconds = Timing::new(runs.collect()).expect("criterion sampled");
    Measurement { seconds: Some(seconds), ..Measurement::new(&text("group_id"), parameters) }
}

fn main() {
    keep_freed_memory();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (folder, start) = (target.join("criterion"), SystemTime::now());
    let mut measured = Measurements::begin("cargo bench", None).expect("this machine");
    let mut criterion = Criterion::default().output_directory(&folder).configure_from_args();
    operations(&mut criterion);
    step(&mut criterion);
    criterion.final_summary();
    let is_new = |file: &PathBuf| fs::metadata(file).and_then(|of| of.modified()).is_ok_and(|at| at >= start);
    measured.results = samples(&folder).iter().filter(|file| is_new(file)).map(|file| row(file)).collect();
    if !measured.results.is_empty() {
        let file = target.join("bench.json");
        measured.write(&file).expect("the target folder takes files");
        println!("saved to {}", file.display());
    }
}
