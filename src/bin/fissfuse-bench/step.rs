//! A training step.

use fissfuse::profile::Timing;
use fissfuse::profile::by_op::{ALL, Breakdown, PASS, Row, WHOLE_STEP};
use fissfuse::profile::flops::training_step;
use fissfuse::profile::measurement::Measurement;
use fissfuse::profile::step::TrainingStep;
use fissfuse::trace;
use fissfuse::train::Steps;
use serde_json::{Map, Value};

use super::session::Session;
use super::work::{DeviceArgs, ModelArgs, WorkArgs};

/// Time of a training step: forward, backward, AdamW. On a device, each is queued while the one before runs, as in training.
#[derive(clap::Args)]
pub struct StepArgs {
    #[command(flatten)]
    work: WorkArgs,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    device: DeviceArgs,

    /// On CUDA devices: give the device each step as one CUDA graph, not kernel by kernel.
    #[arg(long)]
    graph: bool,

    /// Take steps apart: a row for each operation, forward and backward, with its share of the step. On a device, each
    /// step is waited for, and marks between the kernels take their times.
    #[arg(long, conflicts_with = "graph")]
    by_op: bool,

    /// Tell profilers, and cusim's counts, which operation launches a kernel, by NVTX ranges.
    #[arg(long, conflicts_with = "graph")]
    ranges: bool,
}

pub fn step(args: StepArgs, session: &mut Session) -> anyhow::Result<()> {
    let rows = args.work.rows()?;
    let gpu = args.device.open()?;
    if args.ranges {
        trace::name_ranges()?;
    }
    session.begin("step", gpu.as_ref())?;
    args.work.set(session);
    args.model.set(session);
    session.set("graph", args.graph);
    for row in rows {
        let config = args.model.config(row.config)?;
        let steps = Steps::new(gpu.as_ref(), args.graph)?;
        let mut step = TrainingStep::new(config.clone(), row.shape, args.work.seed, steps)?;
        if args.by_op {
            by_op(&mut step, row.parameters, session)?;
            continue;
        }
        // The first step waits for none before it: where it counts, each is waited for.
        let cold = session.is_cold();
        if !cold {
            session.queues();
        }
        let measured = session.measure(WHOLE_STEP, row.parameters, |_| match cold {
            true => step.run().map(drop),
            false => step.queue().map(drop),
        })?;
        let (flops, bytes) = match gpu {
            // A step that is one graph cannot be taken apart, and costs are counted as devices spend them.
            Some(_) => {
                let cost = training_step(config, row.shape, args.work.seed)?.step();
                (cost.flops(), cost.forward_bytes + cost.backward_bytes)
            }
            // Behind what is measured, whose first run may be to count.
            None => {
                let mut once = Breakdown::default();
                once.run(&mut step)?;
                let sum = |of: fn(&Row) -> u64| once.rows.iter().map(of).sum();
                (sum(|row| row.flops), sum(|row| row.bytes))
            }
        };
        let samples = measured.seconds.as_ref().map_or(f64::NAN, |t| row.shape.mentions as f64 / t.p50());
        let measured = measured.with("samples_per_second", samples);
        let mut measured = measured.with_rate("flops", flops as f64).with_rate("bytes", bytes as f64);
        if let Some(graphs) = step.steps().recorded() {
            measured = measured.with("graphs_made", graphs.made as f64).with("graphs_updated", graphs.updated as f64);
        }
        session.push(measured);
    }
    Ok(())
}

/// A row for the whole step, one for each operation and pass, and one for what lies between them.
fn by_op(step: &mut TrainingStep, parameters: Map<String, Value>, session: &mut Session) -> anyhow::Result<()> {
    let mut taken = Breakdown::default();
    let whole = session.measure(WHOLE_STEP, parameters.clone(), |_| taken.run(step))?;
    taken.keep_last(whole.seconds.as_ref().map_or(0, Timing::runs));
    let on_device = step.steps().gpu().is_some();
    let seconds = Timing::new(taken.whole.clone())?;
    let share = |timing: &Timing| timing.p50() / seconds.p50();
    let row = |name: &str, pass: &str, runs: &[f64]| -> anyhow::Result<(Measurement, f64)> {
        let mut parameters = parameters.clone();
        parameters.insert(PASS.into(), pass.into());
        let timing = Timing::new(runs.to_vec())?;
        let share = share(&timing);
        let clocks_mhz = whole.clocks_mhz.clone();
        Ok((Measurement { seconds: Some(timing), clocks_mhz, ..Measurement::new(name, parameters) }, share))
    };
    for operation in &taken.rows {
        let (measured, share) = row(operation.op, operation.pass.name(), &operation.seconds)?;
        let measured = measured.with("share", share).with("calls", operation.calls as f64);
        let mut measured =
            measured.with_rate("flops", operation.flops as f64).with_rate("bytes", operation.bytes as f64);
        if on_device {
            measured = measured.with("tensor_flops", operation.tiles as f64);
        }
        session.push(measured);
    }
    let (between, share) = row("between operations", ALL, &taken.unaccounted())?;
    session.push(between.with("share", share));
    let (all, share) = row(WHOLE_STEP, ALL, &taken.whole)?;
    session.push(Measurement { warnings: whole.warnings, ..all }.with("share", share));
    Ok(())
}
