//! A training step.

use fissfuse::profile::flops::training_step;
use fissfuse::profile::step::TrainingStep;
use fissfuse::train::Steps;

use super::session::Session;
use super::work::{DeviceArgs, WorkArgs};

/// Time of a training step: forward, backward, AdamW. On a device, each is queued while the one before runs, as in training.
#[derive(clap::Args)]
pub struct StepArgs {
    #[command(flatten)]
    work: WorkArgs,

    #[command(flatten)]
    device: DeviceArgs,

    /// On CUDA devices: give the device each step as one CUDA graph, not kernel by kernel.
    #[arg(long)]
    graph: bool,
}

pub fn step(args: StepArgs, session: &mut Session) -> anyhow::Result<()> {
    let rows = args.work.rows()?;
    let gpu = args.device.open()?;
    session.begin("step", gpu.as_ref())?;
    args.work.set(session);
    session.set("graph", args.graph);
    for row in rows {
        let cost = training_step(row.config.clone(), row.shape, args.work.seed)?.total;
        let steps = Steps::new(gpu.as_ref(), args.graph)?;
        let mut step = TrainingStep::new(row.config, row.shape, args.work.seed, steps)?;
        // The first step waits for none before it: where it counts, each is waited for.
        let cold = session.is_cold();
        let measured = session.measure("training step", row.parameters, |_| match cold {
            true => step.run().map(drop),
            false => step.queue().map(drop),
        })?;
        let samples = measured.seconds.as_ref().map_or(f64::NAN, |t| row.shape.mentions as f64 / t.p50());
        let bytes = (cost.forward_bytes + cost.backward_bytes) as f64;
        let mut measured = measured.with("samples_per_second", samples).with_rate("flops", cost.flops() as f64);
        measured = measured.with_rate("bytes", bytes);
        if let Some(graphs) = step.steps().recorded() {
            measured = measured.with("graphs_made", graphs.made as f64).with("graphs_updated", graphs.updated as f64);
        }
        session.push(measured);
    }
    Ok(())
}
