//! Arithmetic and memory traffic of a training step, operation by operation.

mod encoders;
mod models;

use std::collections::{BTreeMap, BTreeSet};

use half::f16;
use serde::Serialize;

pub use encoders::{Backbone, EncoderCost};
pub use models::{ModelCost, PUBLISHED, Published, models};

use super::counts::{Counts, KernelCount, RangeCount};
use super::synthetic::Shape;
use crate::autograd::{Cost, Profile, Sample, Tape};
use crate::device::Clock;
use crate::error::{Error, Result};
use crate::model::{Batch, Model, ModelConfig, Noise, Scorer, Source};
use crate::ops::AdamW;

/// Cost of all runs of one operation in a step.
#[derive(Clone, Debug, Serialize)]
pub struct OpCost {
    /// The operation.
    pub op: &'static str,
    /// The part of a step that it belongs to.
    pub stage: &'static str,
    /// Trained parameters that it reads.
    pub parameters: u64,
    /// How often a step runs it.
    pub calls: usize,
    /// All calls together.
    pub cost: Cost,
}

/// Cost of a training step.
#[derive(Clone, Debug, Serialize)]
pub struct StepCost {
    /// The batch.
    pub shape: Shape,
    /// Trainable parameters.
    pub parameters: usize,
    /// Bytes of the features, stored as f16: the least that a device loads of them in one pass.
    pub feature_bytes: u64,
    /// In the order in which a step first runs them.
    pub ops: Vec<OpCost>,
    /// All of them.
    pub total: Cost,
    /// AdamW, which comes after them.
    pub optimizer: OpCost,
    /// FLOPs of scoring a prepared mention against its prepared candidates, of a model that can be prepared.
    pub prepared: Option<u64>,
}

/// Counts a training step on a batch of this shape, whose lengths are drawn by seed.
pub fn training_step(config: ModelConfig, shape: Shape, seed: u64) -> Result<StepCost> {
    let batch = shape.batch(config.widths, seed)?;
    let model = Model::new(config, seed)?;
    let samples = samples_of(&model, &batch, true)?;
    let Reach { weights, reached } = Reach::of(&model, shape, seed)?;
    if samples.iter().map(|sample| sample.costs.len()).ne(reached.iter().map(Vec::len)) {
        return Err(Error::shape("flops", "a batch of another size runs other operations"));
    }
    let mut ops: Vec<OpCost> = Vec::new();
    for (sample, reached) in samples.iter().zip(&reached) {
        let cost = sample.as_reached(Some(reached)).cost();
        match ops.iter_mut().find(|op| op.op == sample.op) {
            Some(op) => {
                op.calls += 1;
                op.cost += cost;
            }
            None => {
                let (op, parameters) = (sample.op, weights.get(sample.op).copied().unwrap_or(0));
                ops.push(OpCost { op, stage: stage_of(op), parameters, calls: 1, cost });
            }
        }
    }
    let total = ops.iter().map(|op| op.cost).sum();
    let parameters = model.parameters().count();
    let (op, cost) = ("adamw", AdamW::cost(parameters));
    let optimizer = OpCost { op, stage: stage_of(op), parameters: 0, calls: 1, cost };
    let rows = [shape.mean_tokens, shape.patches];
    let prepared = match model.config().network.prepares() {
        true => {
            let scorer = Scorer::new(&model)?;
            let pair = scorer.flops(&rows, &rows);
            Some(scorer.mention_flops(&rows) + shape.candidates as u64 * pair)
        }
        false => None,
    };
    let modalities = [&batch.mention, &batch.entity].into_iter().flat_map(|side| [&side.text, &side.image]);
    let features = modalities.flat_map(|modality| [&modality.tokens, &modality.global]).filter_map(Source::stored);
    let feature_bytes = features.map(|rows| (rows.len() * rows.table.width() * size_of::<f16>()) as u64).sum();
    Ok(StepCost { shape, parameters, feature_bytes, ops, total, optimizer, prepared })
}

impl StepCost {
    /// Forward, backward and the optimizer.
    pub fn step(&self) -> Cost {
        self.total + self.optimizer.cost
    }

    /// What the operations of each part of a step cost together, in the order in which a step first comes to them.
    pub fn stages(&self) -> Vec<OpCost> {
        let mut stages: Vec<OpCost> = Vec::new();
        for op in self.ops.iter().chain([&self.optimizer]) {
            match stages.iter_mut().find(|stage| stage.stage == op.stage) {
                Some(stage) => {
                    stage.calls += op.calls;
                    stage.parameters += op.parameters;
                    stage.cost += op.cost;
                }
                None => stages.push(OpCost { op: op.stage, ..op.clone() }),
            }
        }
        stages
    }
}

/// Forward FLOPs of scoring a batch of this shape, without dropout and loss, whose lengths are drawn by seed.
pub fn inference(config: ModelConfig, shape: Shape, seed: u64) -> Result<(Cost, usize)> {
    let batch = shape.batch(config.widths, seed)?;
    let model = Model::new(config, seed)?;
    let samples = samples_of(&model, &batch, false)?;
    Ok((samples.iter().map(Sample::cost).sum(), model.parameters().count()))
}

fn samples_of(model: &Model, batch: &Batch, training: bool) -> Result<Vec<Sample>> {
    let tape = Tape::inference().profiled();
    let vars = model.parameters().bind(&tape);
    let noise = training.then_some(Noise { seed: 0, step: 0 });
    let scores = model.scores(&tape, &vars, batch, noise)?;
    if training {
        model.losses(&tape, &scores, batch)?;
    }
    Ok(tape.samples())
}

/// What only a step on a tape that records shows: it is made with the smallest batch, since such a tape keeps what it computed.
struct Reach {
    /// Parameters that each operation reads.
    weights: BTreeMap<&'static str, u64>,
    /// Of each operation, in the order in which they run, whether a gradient comes to each of its instances.
    reached: Vec<Vec<bool>>,
}

impl Reach {
    fn of(model: &Model, shape: Shape, seed: u64) -> Result<Reach> {
        let least = Shape { mentions: 1, candidates: 2, mean_tokens: 1, max_tokens: 1, ..shape };
        let batch = least.batch(model.config().widths, seed)?;
        let profile = Profile::new(Clock::Host);
        model.gradients_on(Tape::recording().timed(&profile), &batch, Some(Noise { seed: 0, step: 0 }))?;
        let mut leaves: BTreeMap<&'static str, BTreeSet<(usize, usize)>> = BTreeMap::new();
        for sample in profile.samples() {
            leaves.entry(sample.op).or_default().extend(sample.leaves);
        }
        let sum = |leaves: &BTreeSet<(usize, usize)>| leaves.iter().map(|(_, size)| *size as u64).sum();
        let weights = leaves.iter().map(|(op, leaves)| (*op, sum(leaves))).collect();
        Ok(Reach { weights, reached: profile.reached() })
    }
}

/// The part of a step that an operation belongs to; one that is not named here is a part of its own.
fn stage_of(op: &'static str) -> &'static str {
    match op {
        "project" | "features" | "gather" => "project",
        "multi_pool" | "sequence_pool" | "max_pool" => "pool",
        "cross_attention" | "attention" => "attention",
        "cross_entropy" | "hinge" => "loss",
        "adamw" => "optimizer",
        "score" | "normalize" | "combine" | "sum" | "multiply" | "mix" => "scores",
        "mlp" | "linear" | "activation" | "layer_norm" | "dropout" => "mlp",
        _ => op,
    }
}

/// What cusim counted of a step, beside what its costs say.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Counted {
    /// FLOPs that were counted.
    pub flops: u64,
    /// Of them, on tensor cores.
    pub tensor: u64,
    /// FLOPs beyond those that the costs say with all padding; less than 0 where the costs say more.
    pub unattributed: i64,
    /// The same of tensor cores.
    pub unattributed_tensor: i64,
}

impl Counted {
    /// Compares counts of kernels with a cost.
    fn new<'a>(kernels: impl Iterator<Item = &'a KernelCount>, cost: &Cost) -> Counted {
        let (mut flops, mut tensor) = (0, 0);
        for kernel in kernels {
            (flops, tensor) = (flops + kernel.work.flops, tensor + kernel.tensor_flops());
        }
        let account = cost.account();
        let beyond = |counted: u64, said: u64| counted as i64 - said as i64;
        Counted {
            flops,
            tensor,
            unattributed: beyond(flops, account.all()),
            unattributed_tensor: beyond(tensor, account.tensor),
        }
    }

    /// All kernels of one step beside its cost.
    pub fn all(counts: &Counts, step: &Cost) -> Counted {
        Counted::new(counts.kernels.iter(), step)
    }

    /// Kernels that were launched from within some operations' ranges, beside their cost together. `None` if the program that
    /// ran named no ranges.
    pub fn of_operations(counts: &Counts, ops: &[&'static str], cost: &Cost) -> Option<Counted> {
        let theirs = |range: &&RangeCount| operation(&range.range).is_some_and(|op| ops.contains(&op));
        (!counts.ranges.is_empty())
            .then(|| Counted::new(counts.ranges.iter().filter(theirs).map(|range| &range.count), cost))
    }

    /// Kernels that no operation's range held, if the program that ran named ranges.
    pub fn between_operations(counts: &Counts) -> Option<Counted> {
        let within = |range: &&RangeCount| operation(&range.range).is_some();
        (!counts.ranges.is_empty()).then(|| {
            let all = Counted::all(counts, &Cost::default());
            let held = Counted::new(counts.ranges.iter().filter(within).map(|range| &range.count), &Cost::default());
            let (flops, tensor) = (all.flops - held.flops, all.tensor - held.tensor);
            Counted { flops, tensor, unattributed: flops as i64, unattributed_tensor: tensor as i64 }
        })
    }
}

/// The operation that a range is of: a tape names them by operation and pass, a step its optimizer.
fn operation(range: &str) -> Option<&str> {
    match range {
        "optimizer" => Some("adamw"),
        _ => range.strip_suffix(" forward").or_else(|| range.strip_suffix(" backward")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_textbooks_attention_is_what_pytorch_counts() {
        let shape = Shape { mentions: 1, ..Shape::WIKIDIVERSE };
        let step = training_step(ModelConfig::default(), shape, 0).unwrap();
        let attention = step.ops.iter().find(|op| op.op == "cross_attention").unwrap();
        // PyTorch's FlopCounterMode counts the products alone; biases, softmax, residual and norm are little besides.
        let (products, counted) = (145.25e6, attention.cost.textbook_forward as f64);
        assert!(counted >= products && counted < 1.001 * products, "{counted}");
    }
    #[test]
    fn tensor_cores_do_hardly_more_than_the_products_at_the_papers_sizes() {
        // What they are said to do is what cusim counts, to the last operation (tests/costs.rs).
        for shape in [Shape::WIKIDIVERSE, Shape { mentions: 16, ..Shape::WIKIMEL }] {
            let step = training_step(ModelConfig::default(), shape, 0).unwrap();
            let work = step.total.kernels_forward + step.total.kernels_backward;
            let times = work.tiles as f64 / work.products as f64;
            println!("{} candidates: {times:.3} times the least", shape.candidates);
            assert!((1.0..=1.1).contains(&times), "{} candidates: {times}", shape.candidates);
        }
    }
}
