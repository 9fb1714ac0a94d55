//! Each operation and the whole training step at the paper's WikiDiverse size, on this machine.
//!
//!     cargo bench                      everything
//!     cargo bench -- cross_attention   one operation

use criterion::{Criterion, criterion_group, criterion_main};
use fissfuse::autograd::{Tape, Var};
use fissfuse::model::ModelConfig;
use fissfuse::ops::cases::wikidiverse;
use fissfuse::profile::step::TrainingStep;
use fissfuse::profile::synthetic::Shape;
use fissfuse::tensor::Tensor;
use fissfuse::train::Steps;

/// Forward of each operation, then forward with backward.
fn operations(criterion: &mut Criterion) {
    let cases = wikidiverse().expect("the table's sizes fit together");
    for case in &cases {
        let mut group = criterion.benchmark_group(&case.name);
        group.sample_size(20);
        group.bench_function("forward", |bench| {
            bench.iter(|| {
                let tape = Tape::inference();
                let inputs: Vec<Var> = case.inputs.iter().cloned().map(Var::constant).collect();
                case.apply(&tape, &inputs.iter().collect::<Vec<_>>()).expect("forward")
            })
        });
        group.bench_function("forward and backward", |bench| {
            bench.iter(|| {
                let tape = Tape::recording();
                let inputs: Vec<Var> = case.inputs.iter().map(|tensor| tape.leaf(tensor.clone())).collect();
                let output = case.apply(&tape, &inputs.iter().collect::<Vec<_>>()).expect("forward");
                let shape = output.tensor().shape().to_vec();
                let ones = Tensor::new(&shape[..], vec![1.0; shape.iter().product()]).expect("a tensor of ones");
                tape.backward(&output, ones).expect("backward")
            })
        });
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
