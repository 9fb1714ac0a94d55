//! A decoder with random weights.

use clap::ValueEnum;
use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::llama::{LlamaConfig, Precision, Preset};
use fissfuse::profile::decoding::{DecodingBench, RandomLlama};

use super::room::expect_memory;
use super::session::Session;
use super::values::{Values, combinations, expect_few, once, value};

/// Time of prompts and of the tokens that follow them, in layers of a Llama with random weights.
///
/// `llm` measures a model from its files.
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
            // A token's state, and its keys and values in 16 bits.
            let token = 4 * config.hidden_size + 4 * config.kv_width();
            expect_memory("--sequences and --prompt", &[value(row, "sequences"), value(row, "prompt"), token])?;
            let RandomLlama { llama, .. } = &RandomLlama::new(&config, precision, gpu.as_ref())?;
            let bench = DecodingBench::new(llama, value(row, "sequences"), value(row, "prompt"));
            let mut parameters = row.clone();
            parameters.insert("precision".into(), precision.to_string().into());
            let steps = value(row, "steps");
            let measured = session.measure("decoding", parameters, |laps| bench.run(steps, laps))?;
            session.push(bench.with_rates(measured));
        }
    }
    Ok(())
}
