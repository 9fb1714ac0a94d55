//! Where a training step's time goes, operation by operation, forward and backward.

use super::step::TrainingStep;
use crate::autograd::{Cost, Profile, Tape, Timed};
use crate::device::Clock;
use crate::error::{Error, Result};
use crate::model::Noise;
use crate::ops::AdamW;

/// The parameter of a row that names its pass.
pub const PASS: &str = "pass";
/// The pass of rows that belong to none.
pub const ALL: &str = "all";
/// The row of a whole step.
pub const WHOLE_STEP: &str = "training step";

/// What an operation does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It computes its output.
    Forward,
    /// It computes gradients.
    Backward,
    /// It changes the parameters: the optimizer.
    Update,
}

impl Pass {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Forward => "forward",
            Pass::Backward => "backward",
            Pass::Update => "update",
        }
    }
}

/// All calls of one operation in a step, in one pass.
#[derive(Clone, Debug)]
pub struct Row {
    /// The operation.
    pub op: &'static str,
    /// Forward, backward, or the optimizer's.
    pub pass: Pass,
    /// How often a step runs it.
    pub calls: usize,
    /// FLOPs of a step's calls as executed.
    pub flops: u64,
    /// FLOPs of their products on a device's tensor cores, with the padding of their tiles, which are not in `flops`.
    pub tiles: u64,
    /// Bytes that they read and write at least.
    pub bytes: u64,
    /// Seconds of all calls of a step, of each run.
    pub seconds: Vec<f64>,
}

/// Runs of a training step, taken apart.
#[derive(Clone, Debug, Default)]
pub struct Breakdown {
    /// Operations in the order in which a step first runs them, forward; then backward; then the optimizer.
    pub rows: Vec<Row>,
    /// Seconds from the beginning of each run to its end, by the same clock as the rows.
    pub whole: Vec<f64>,
}

impl Breakdown {
    /// Seconds of each run that are in no row: what lies between operations. None less than 0, which rounding could
    /// make it.
    pub fn unaccounted(&self) -> Vec<f64> {
        let rows = |run: usize| self.rows.iter().map(|row| row.seconds[run]).sum::<f64>();
        self.whole.iter().enumerate().map(|(run, whole)| (whole - rows(run)).max(0.0)).collect()
    }

    /// Runs a step, which begins when nothing is queued, and takes it apart.
    pub fn run(&mut self, step: &mut TrainingStep) -> Result<()> {
        if step.steps().recorded().is_some() {
            return Err(Error::invalid("a step that is one graph cannot be taken apart: leave out --graph"));
        }
        let (operations, whole) = one(step)?;
        self.add(&operations)?;
        self.whole.push(whole);
        Ok(())
    }

    /// Leaves out all runs but the last ones: those before warmed up.
    pub fn keep_last(&mut self, runs: usize) {
        let out = self.whole.len().saturating_sub(runs);
        self.whole.drain(..out);
        self.rows.iter_mut().for_each(|row| drop(row.seconds.drain(..out)));
    }

    /// Adds a step's operations, those of the first run as rows.
    fn add(&mut self, operations: &[Call]) -> Result<()> {
        let (first, run) = (self.whole.is_empty(), self.whole.len());
        self.rows.iter_mut().for_each(|row| row.seconds.push(0.0));
        for &Call { op, pass, cost, seconds } in operations {
            let [flops, tiles, bytes] = match pass {
                Pass::Backward => [cost.backward, cost.kernels_backward.tiles, cost.backward_bytes],
                Pass::Forward | Pass::Update => [cost.forward, cost.kernels_forward.tiles, cost.forward_bytes],
            };
            let known = self.rows.iter_mut().find(|row| (row.op, row.pass) == (op, pass));
            match known {
                Some(row) => {
                    row.seconds[run] += seconds;
                    if first {
                        (row.calls, row.flops) = (row.calls + 1, row.flops + flops);
                        (row.tiles, row.bytes) = (row.tiles + tiles, row.bytes + bytes);
                    }
                }
                None if first => {
                    self.rows.push(Row { op, pass, calls: 1, flops, tiles, bytes, seconds: vec![seconds] });
                }
                None => return Err(Error::invalid(format!("a step ran {op}, which the step before had not"))),
            }
        }
        Ok(())
    }
}

/// One call of an operation.
struct Call {
    op: &'static str,
    pass: Pass,
    cost: Cost,
    seconds: f64,
}

/// The operations of one step, with their passes, costs and seconds; and the seconds of all of it.
fn one(step: &mut TrainingStep) -> Result<(Vec<Call>, f64)> {
    let gpu = step.steps().gpu().cloned();
    if let Some(gpu) = &gpu {
        step.batch.arrive(gpu)?;
        gpu.synchronize()?;
    }
    let clock = Clock::of(gpu.as_ref());
    let profile = Profile::new(clock.clone());
    let noise = Noise { seed: 0, step: step.step as u32 };
    step.step += 1;
    let start = clock.now()?;
    let made = step.model.gradients_on(Tape::recording().timed(&profile), &step.batch, Some(noise))?;
    let updating = clock.now()?;
    let parameters = step.model.parameters_mut().tensors_mut();
    AdamW::default().step(step.step, parameters, &made.gradients, &mut step.moments)?;
    let end = clock.now()?;
    let timed = profile.timed()?;
    let call = |timed: &Timed, pass: Pass, seconds: f64| Call {
        op: timed.sample.op,
        pass,
        cost: timed.sample.cost(),
        seconds,
    };
    let forwards = timed.iter().map(|timed| call(timed, Pass::Forward, timed.forward));
    let backwards = timed.iter().rev().filter_map(|timed| Some(call(timed, Pass::Backward, timed.backward?)));
    let cost = AdamW::cost(step.model.parameters().count());
    let optimizer = [Call { op: "adamw", pass: Pass::Update, cost, seconds: end.since(&updating)? }];
    Ok((forwards.chain(backwards).chain(optimizer).collect(), end.since(&start)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelConfig;
    use crate::profile::flops::training_step;
    use crate::profile::synthetic::Shape;
    use crate::train::Steps;

    #[test]
    fn the_rows_are_the_operations_that_are_counted_and_lie_within_the_step() {
        let shape = Shape { mentions: 3, candidates: 4, mean_tokens: 5, max_tokens: 9, patches: 4 };
        let config = ModelConfig { d: 16, ..ModelConfig::default() };
        let counted = training_step(config.clone(), shape, 0).unwrap();
        let mut step = TrainingStep::new(config, shape, 0, Steps::new(None, false).unwrap()).unwrap();
        let mut taken = Breakdown::default();
        (0..4).for_each(|_| taken.run(&mut step).unwrap());
        taken.keep_last(3);
        let of = |pass: Pass| taken.rows.iter().filter(move |row| row.pass == pass);
        let names: Vec<&str> = of(Pass::Forward).map(|row| row.op).collect();
        assert_eq!(names, counted.ops.iter().map(|op| op.op).collect::<Vec<_>>());
        // What is counted is what a device spends: there, those that read the rows of sequences scale them, and `project` puts
        // their gradient together.
        let alike = |op: &str| !["project", "multi_pool", "cross_attention"].contains(&op);
        for (row, op) in of(Pass::Forward).zip(&counted.ops) {
            assert_eq!(row.calls, op.calls, "{}", op.op);
            let cost = (op.cost.forward, op.cost.forward_bytes);
            assert!(!alike(op.op) || (row.flops, row.bytes) == cost, "{}", op.op);
        }
        // Backward runs once for each forward that depends on a parameter, and for no other.
        for row in of(Pass::Backward) {
            let op = counted.ops.iter().find(|op| op.op == row.op).unwrap();
            assert!(row.calls <= op.calls && (!alike(op.op) || row.flops == op.cost.backward), "{}", row.op);
        }
        let backward: u64 = of(Pass::Backward).filter(|row| alike(row.op)).map(|row| row.flops).sum();
        let of_alike = counted.ops.iter().filter(|op| alike(op.op)).map(|op| op.cost.backward).sum::<u64>();
        assert_eq!(backward, of_alike);
        assert_eq!(of(Pass::Update).map(|row| (row.op, row.calls)).collect::<Vec<_>>(), [("adamw", 1)]);
        assert!(taken.rows.iter().all(|row| row.seconds.len() == 3 && row.seconds.iter().all(|s| *s > 0.0)));
        for run in 0..3 {
            // Differences of one clock: they add up but for the rounding of their sum.
            let parts: f64 = taken.rows.iter().map(|row| row.seconds[run]).sum();
            assert!(parts <= taken.whole[run] * (1.0 + 1e-12), "{parts} of {}", taken.whole[run]);
        }
    }
}
