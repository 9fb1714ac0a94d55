//! A decoder with random weights.

use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::llama::{LlamaConfig, Precision, Preset};
use fissfuse::profile::decoding::DecodingBench;
use fissfuse::report::table;
use serde_json::json;

use super::{at_least_one, machine, milliseconds, print_json};

/// Time of prompts and of the tokens that follow them, in layers of a Llama with random weights.
///
/// `llama` measures a model from its files, beside what the machine can do.
#[derive(clap::Args)]
pub struct DecodeArgs {
    /// Sizes of the Llama.
    #[arg(long, value_enum, default_value = "7b")]
    preset: Preset,

    /// Its layers; 0 takes all.
    #[arg(long, default_value_t = 1)]
    layers: usize,

    /// What the weights are kept in.
    #[arg(long, value_enum, default_value = "bf16")]
    precision: Precision,

    /// Sequences that go through together.
    #[arg(long, default_value_t = 1, value_parser = at_least_one())]
    sequences: usize,

    /// Tokens of each prompt.
    #[arg(long, default_value_t = 128, value_parser = at_least_one())]
    prompt: usize,

    /// Steps after the prompts.
    #[arg(long, default_value_t = 32, value_parser = at_least_one())]
    steps: usize,

    /// Timed runs.
    #[arg(long, default_value_t = 5, value_parser = at_least_one())]
    runs: usize,

    /// Runs before those that are timed.
    #[arg(long, default_value_t = 1)]
    warmup: usize,

    /// What computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
}

pub fn decode(args: DecodeArgs, json: bool) -> anyhow::Result<()> {
    let gpu = args.device.open(Arithmetic::Mixed)?;
    let preset = args.preset.config();
    let layers = if args.layers == 0 { preset.layers } else { args.layers };
    let config = LlamaConfig { layers, ..preset };
    let DecodeArgs { precision, sequences, prompt, steps, .. } = args;
    let bench = DecodingBench::new(&config, precision, (sequences, prompt), gpu.as_ref())?;
    let times = bench.measure(steps, args.warmup, args.runs)?;
    let (prefill, step) = (times.prefill.summary(), times.step.summary());
    let (flops, bytes) = (bench.prefill_flops(), bench.step_bytes());
    if json {
        return print_json(
            &json!({"machine": machine(gpu.as_ref()), "layers": layers, "precision": precision.to_string(),
            "sequences": sequences, "prompt": prompt, "prefill_seconds": prefill, "step_seconds": step,
            "prefill_flops": flops, "step_weight_bytes": bytes}),
        );
    }
    println!("{}; {layers} layers, {precision}, {sequences} sequences of {prompt} tokens", machine(gpu.as_ref()));
    let row = |name: &str, time: fissfuse::profile::Summary, tokens: usize, rate: String| {
        let times = [time.p50, time.min, time.max].map(milliseconds);
        let per_second = format!("{:.1}", tokens as f64 / time.p50);
        [name.to_string(), time.runs.to_string()].into_iter().chain(times).chain([per_second, rate]).collect()
    };
    let header = ["", "runs", "median ms", "min ms", "max ms", "tokens/s", "rate"];
    let rows = [
        row("prompts", prefill, sequences * prompt, format!("{:.1} GFLOP/s", flops / prefill.p50 / 1e9)),
        row("a step", step, sequences, format!("{:.1} GB/s of weights", bytes as f64 / step.p50 / 1e9)),
    ];
    println!("{}", table(&header, rows));
    Ok(())
}
