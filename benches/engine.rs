//! Each operation and the whole training step at the paper's WikiDiverse size, on this machine.
//!
//!     cargo bench                      everything
//!     cargo bench -- cross_attention   one operation
//!
//! `fissfuse-bench ops` and `step` measure the same work and write the files that `--compare` and `fissfuse report` read.

use criterion::{Criterion, criterion_group, criterion_main};
use fissfuse::model::ModelConfig;
use fissfuse::profile::operations::{Operation, Part};
use fissfuse::profile::step::TrainingStep;
use fissfuse::profile::synthetic::Shape;
use fissfuse::train::Steps;

/// Forward of each operation, then forward with backward.
fn operations(criterion: &mut Criterion) {
    for operation in Operation::all(Part::Training).expect("the table's sizes fit together") {
        let mut group = criterion.benchmark_group(operation.name());
        group.sample_size(20);
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
    group.sample_size(20).bench_function("wikidiverse", |bench| bench.iter(|| step.run().expect("a step")));
}

criterion_group!(benches, operations, step);
criterion_main!(benches);
