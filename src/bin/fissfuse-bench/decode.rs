//! A decoder with random weights.

use clap::ValueEnum;
use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::llama::{LlamaConfig, Precision, Preset};
use fissfuse::profile::decoding::{DecodingBench, PROMPT, TOKEN};

use super::session::Session;
use super::values::{Values, combinations, expect_few, once, value};

/// Time of prompts and of the tokens that follow them, in layers of a Llama with random weights.
///
/// `llm` measures a model from its files, beside what the machine can do.
#[derive(clap::Args)]
pub struct DecodeArgs {
    /// Sizes of the Llama.
    #[arg(long, value_enum, default_value = "7b")]
    preset: Preset,

    /// Its layers [default: 1; --all-layers takes all].
    #[arg(long, default_value = "1", value_name = "LIST")]
    layers: Values,

    /// All layers of the preset.
    #[arg(long, conflicts_with = "layers")]
    all_layers: bool,

    /// What the weights are kept in; each is a row.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "bf16")]
    precision: Vec<Precision>,

    /// Sequences that go through together.
    #[arg(long, default_value = "1", value_name = "LIST")]
    sequences: Values,

    /// Tokens of each prompt.
    #[arg(long, default_value = "128", value_name = "LIST")]
    prompt: Values,

    /// Steps after the prompts.
    #[arg(long, default_value = "32", value_name = "LIST")]
    steps: Values,

    /// What computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
}

pub fn decode(args: DecodeArgs, session: &mut Session) -> anyhow::Result<()> {
    let preset = args.preset.config();
    let layers = if args.all_layers { Values::one(preset.layers) } else { args.layers };
    let rows = combinations(&[
        ("layers", &layers),
        ("sequences", &args.sequences),
        ("prompt", &args.prompt),
        ("steps", &args.steps),
    ])?;
    let precisions = once(args.precision);
    expect_few(&[("sizes", rows.len()), ("precision", precisions.len())])?;
    let gpu = args.device.open(Arithmetic::Mixed)?;
    session.begin("decode", gpu.as_ref())?;
    session.set("preset", args.preset.to_possible_value().map_or(String::new(), |value| value.get_name().into()));
    for precision in precisions {
        for row in &rows {
            let config = LlamaConfig { layers: value(row, "layers"), ..preset.clone() };
            let (sequences, prompt) = (value(row, "sequences"), value(row, "prompt"));
            let bench = DecodingBench::new(&config, precision, (sequences, prompt), gpu.as_ref())?;
            let mut parameters = row.clone();
            parameters.insert("precision".into(), precision.to_string().into());
            let steps = value(row, "steps");
            let measured = session.measure("decoding", parameters, |laps| bench.run(steps, laps))?;
            let rate = |part: &str, amount: f64| measured.parts.get(part).map_or(f64::NAN, |time| amount / time.p50());
            let (flops, bytes) = (bench.prefill_flops(), bench.step_bytes() as f64);
            let rates = [
                ("prompt_flops", flops),
                ("prompt_flops_per_second", rate(PROMPT, flops)),
                ("prompt_tokens_per_second", rate(PROMPT, (sequences * prompt) as f64)),
                ("weight_bytes", bytes),
                ("weight_bytes_per_second", rate(TOKEN, bytes)),
                ("tokens_per_second", rate(TOKEN, sequences as f64)),
            ];
            session.push(rates.into_iter().fold(measured, |row, (name, rate)| row.with(name, rate)));
        }
    }
    Ok(())
}
