//! What each part of KAR saves.

use std::path::PathBuf;

use fissfuse::llama;
use fissfuse::profile::kar::{KarBench, KarRow};
use fissfuse::report::table;
use serde_json::json;

use super::at_least_one;
use super::machine;
use super::print_json;
use super::work::DeviceArgs;

/// What sharing prefixes, reading logits, and the gate each save of a re-ranking's time, with a random Llama.
///
/// The instructions and the margins are those of a real run, such as the demo's.
#[derive(clap::Args)]
pub struct KarArgs {
    /// Folder of the dataset.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Run file of the dataset's test split.
    #[arg(long, value_name = "FILE")]
    ranking: PathBuf,

    /// Mentions, the first of the run file.
    #[arg(long, default_value_t = 500, value_parser = at_least_one())]
    mentions: usize,

    /// Sizes of the Llama.
    #[arg(long, value_enum, default_value = "1b")]
    preset: llama::Preset,

    /// Its layers, so that it ends in some minutes on a CPU; 0 takes all.
    #[arg(long, default_value_t = 1)]
    layers: usize,

    /// What its weights are kept in.
    #[arg(long, value_enum, default_value = "bf16")]
    precision: llama::Precision,

    /// Most tokens of an answer; a random model does not end before.
    #[arg(long, default_value_t = 8, value_parser = at_least_one())]
    max_new_tokens: usize,

    /// The gate's margin.
    #[arg(long, default_value_t = 0.2)]
    gate: f32,

    /// Draws the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    device: DeviceArgs,
}

pub fn kar(args: KarArgs, json: bool) -> anyhow::Result<()> {
    let gpu = args.device.open()?;
    let all = args.preset.config().layers;
    let layers = if args.layers == 0 { all } else { args.layers };
    let config = llama::LlamaConfig { layers, ..args.preset.config() };
    let mut bench =
        KarBench::new(&args.data, &args.ranking, args.mentions, &config, args.precision, args.seed, gpu.as_ref())?;
    let rows = bench.measure(args.max_new_tokens, args.gate)?;
    if json {
        let model = json!({"layers": layers, "of_layers": all, "precision": args.precision.to_string()});
        return print_json(&json!({"machine": machine(gpu.as_ref()), "model": model, "rows": rows}));
    }
    println!("{}", machine(gpu.as_ref()));
    println!(
        "{} mentions, random weights in {}, {layers} of {all} layers of the shape",
        bench.mentions(),
        args.precision
    );
    let header = ["", "s", "times faster", "calls", "prompt tokens", "computed", "new tokens", "mentions/s"];
    let base = rows.first().map_or(0.0, |row| row.spent.seconds);
    let row = |KarRow { name, spent }: &KarRow| {
        vec![
            name.clone(),
            format!("{:.1}", spent.seconds),
            format!("{:.2}", base / spent.seconds),
            spent.calls.to_string(),
            spent.prompt_tokens.to_string(),
            spent.computed_tokens.to_string(),
            spent.new_tokens.to_string(),
            format!("{:.1}", bench.mentions() as f64 / spent.seconds),
        ]
    };
    println!("{}", table(&header, rows.iter().map(row)));
    Ok(())
}
