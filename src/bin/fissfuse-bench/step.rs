//! A training step, and a layer of an encoder.

use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::encoder;
use fissfuse::profile::Timing;
use fissfuse::profile::flops::training_step;
use fissfuse::profile::layers::LayerBench;
use fissfuse::profile::step::TrainingStep;
use fissfuse::report::table;
use fissfuse::train::Steps;
use serde_json::json;

use super::at_least_one;
use super::machine;
use super::milliseconds;
use super::print_json;
use super::work::DeviceArgs;
use super::work::WorkArgs;

/// Time of a training step: forward, backward, AdamW. On a device, each is queued while the one before runs, as in training.
#[derive(clap::Args)]
pub struct StepArgs {
    #[command(flatten)]
    work: WorkArgs,

    /// Timed steps.
    #[arg(long, default_value_t = 20, value_parser = at_least_one())]
    runs: usize,

    /// Steps before those that are timed.
    #[arg(long, default_value_t = 2)]
    warmup: usize,

    #[command(flatten)]
    device: DeviceArgs,

    /// On CUDA devices: give the device each step as one CUDA graph, not kernel by kernel.
    #[arg(long)]
    graph: bool,
}

pub fn step(args: StepArgs, json: bool) -> anyhow::Result<()> {
    let (shape, config) = (args.work.shape()?, args.work.config());
    let flops = training_step(config.clone(), shape, args.work.seed)?.total.flops();
    let gpu = args.device.open()?;
    let steps = Steps::new(gpu.as_ref(), args.graph)?;
    let mut step = TrainingStep::new(config, shape, args.work.seed, steps)?;
    // With no step before it, the first would not wait for anything.
    let timing = match args.warmup {
        0 => Timing::of(0, args.runs, || step.run().map(drop)),
        warmup => Timing::of(warmup, args.runs, || step.queue().map(drop)),
    };
    let timing = timing?.summary();
    let rate = flops as f64 / timing.p50 / 1e9;
    if json {
        return print_json(
            &json!({"machine": machine(gpu.as_ref()), "shape": shape, "graph": args.graph, "seconds": timing, "flops": flops}),
        );
    }
    println!("{}; {} mentions x {} candidates", machine(gpu.as_ref()), shape.mentions, shape.candidates);
    let row = [timing.p50, timing.min, timing.p90, timing.max].map(milliseconds).into_iter();
    let rest = [format!("{:.0}", shape.mentions as f64 / timing.p50), format!("{rate:.0}")];
    let header = ["runs", "median ms", "min ms", "p90 ms", "max ms", "samples/s", "GFLOP/s"];
    println!("{}", table(&header, [[timing.runs.to_string()].into_iter().chain(row).chain(rest).collect()]));
    if let Some(graphs) = step.steps().recorded() {
        println!("graphs: {} made ready, {} brought up to date", graphs.made, graphs.updated);
    }
    Ok(())
}

/// Time of layers of CLIP ViT-B/32's vision tower.
#[derive(clap::Args)]
pub struct LayerArgs {
    /// Images of a run.
    #[arg(long, default_value_t = 8, value_parser = at_least_one())]
    images: usize,

    /// Layers of a run.
    #[arg(long, default_value_t = 1, value_parser = at_least_one())]
    layers: usize,

    /// Timed runs.
    #[arg(long, default_value_t = 20, value_parser = at_least_one())]
    runs: usize,

    /// Runs before those that are timed.
    #[arg(long, default_value_t = 2)]
    warmup: usize,

    /// What computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,

    /// What the layers compute with, f32 or bf16 [default: the faster one].
    #[arg(long, value_name = "TYPE", value_parser = encoder::parse_precision)]
    precision: Option<encoder::Precision>,
}

pub fn layer(args: LayerArgs, json: bool) -> anyhow::Result<()> {
    let gpu = args.device.open(Arithmetic::Mixed)?;
    let precision = args.precision.unwrap_or_else(|| encoder::Compute::fastest(gpu.as_ref()));
    let mut bench = LayerBench::new(args.layers, args.images, encoder::Compute { precision, gpu: gpu.clone() })?;
    let timing = Timing::of(args.warmup, args.runs, || bench.run())?.summary();
    let cost = bench.cost()?;
    let (flops, bytes) = (cost.forward, cost.forward_bytes);
    if json {
        let (images, layers) = (args.images, args.layers);
        let report = json!({"machine": machine(gpu.as_ref()), "images": images, "layers": layers, "precision": precision,
            "seconds": timing, "flops": flops, "least_bytes": bytes});
        return print_json(&report);
    }
    println!("{}; {} layers of ViT-B/32, {} images, {precision}", machine(gpu.as_ref()), args.layers, args.images);
    let [median, min, max] = [timing.p50, timing.min, timing.max].map(milliseconds);
    let rates = [flops as f64 / timing.p50 / 1e9, flops as f64 / 1e9, bytes as f64 / 1e6];
    let [rate, flops, bytes] = rates.map(|x| format!("{x:.1}"));
    let header = ["runs", "median ms", "min ms", "max ms", "GFLOP/s", "GFLOP", "least MB moved"];
    println!("{}", table(&header, [vec![timing.runs.to_string(), median, min, max, rate, flops, bytes]]));
    Ok(())
}
