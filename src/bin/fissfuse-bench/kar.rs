//! What each part of KAR saves.

use std::path::PathBuf;

use anyhow::ensure;
use clap::ValueEnum;
use fissfuse::llama;
use fissfuse::profile::Timing;
use fissfuse::profile::kar::KarBench;
use fissfuse::profile::measurement::Measurement;
use serde_json::Map;

use super::session::{Session, go_on};
use super::values::{Values, expect_few, once};
use super::work::{DeviceArgs, fingerprint_of_file};

/// What sharing prefixes, reading logits, and the gate each save of a re-ranking's time, with a random Llama.
///
/// The instructions and the margins are those of a real run, such as the demo's.
#[derive(clap::Args)]
pub struct KarArgs {
    /// Folder of the dataset.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Run file of the dataset's test split.
    #[arg(long, value_name = "FILE")]
    pub ranking: PathBuf,

    /// Mentions, the first of the run file.
    #[arg(long, default_value = "500", value_name = "LIST")]
    mentions: Values,

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
    #[arg(long, default_value = "8", value_name = "LIST")]
    max_new_tokens: Values,

    /// The gate's margin.
    #[arg(long, default_value_t = 0.2)]
    gate: f32,

    /// Draws the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    device: DeviceArgs,
}

pub fn kar(args: KarArgs, session: &mut Session) -> anyhow::Result<()> {
    let gpu = args.device.open()?;
    ensure!(!session.warms_up(), "kar answers in full each time, and warms up by nothing: leave out --warmup");
    let all = args.preset.config().layers;
    ensure!(args.layers <= all, "--layers {}: the model has {all}; 0 takes all of them", args.layers);
    let layers = if args.layers == 0 { all } else { args.layers };
    let config = llama::LlamaConfig { layers, ..args.preset.config() };
    let ways = KarBench::ways(args.max_new_tokens.iter(), args.gate);
    expect_few(&[("mentions", args.mentions.count()), ("ways", ways.len())])?;
    let most = args.mentions.iter().max().unwrap_or(1);
    let mut bench = KarBench::new(&args.data, &args.ranking, most, &config, args.precision, args.seed, gpu.as_ref())?;
    session.begin("kar", gpu.as_ref())?;
    session.set("layers", layers);
    session.set("of_layers", all);
    session.set("precision", args.precision.to_string());
    session.set("preset", args.preset.to_possible_value().map_or(String::new(), |value| value.get_name().into()));
    session.set("seed", args.seed);
    session.set("gate", args.gate);
    session.set("dataset", bench.dataset().checksum()?);
    session.set("ranking", fingerprint_of_file(&args.ranking)?);
    // A run file may have fewer.
    let there = once(args.mentions.iter().map(|mentions| mentions.min(bench.mentions())).collect());
    for mentions in there {
        let mut first = None;
        for (name, settings, share) in &ways {
            session.next_row()?;
            let mut spent = bench.run(mentions, settings, *share)?;
            let mut times = vec![spent.seconds];
            for _ in 1..session.runs().unwrap_or(1) {
                go_on()?;
                spent = bench.run(mentions, settings, *share)?;
                times.push(spent.seconds);
            }
            let seconds = Timing::new(times)?;
            let median = seconds.p50();
            let base = *first.get_or_insert(median);
            let figures = [
                ("times_faster", base / median),
                ("mentions_per_second", mentions as f64 / median),
                ("calls", spent.calls as f64),
                ("prompt_tokens", spent.prompt_tokens as f64),
                ("computed_tokens", spent.computed_tokens as f64),
                ("new_tokens", spent.new_tokens as f64),
            ];
            let sizes = Map::from_iter([("mentions".to_string(), mentions.into())]);
            let row = Measurement { seconds: Some(seconds), ..Measurement::new(name, sizes) };
            session.push(figures.into_iter().fold(row, |row, (name, figure)| row.with(name, figure)));
        }
    }
    Ok(())
}
