//! The `fissfuse-bench` command: how much work the model is and how fast this machine does it.

// Over the standard library's, which panic when nobody listens.
#[macro_use(eprintln, print, println)]
extern crate fissfuse;

mod data;
mod decode;
mod encode;
mod flops;
mod kar;
mod kernels;
mod latency;
mod llama;
mod results;
mod step;
mod work;

use std::process::ExitCode;

use anyhow::Context;
use clap::builder::RangedU64ValueParser;
use clap::{Parser, Subcommand};
use fissfuse::bytes::Bytes;
use fissfuse::device::{Gpu, describe};
use fissfuse::terminal;

/// Count the model's work and time it, on features and weights drawn by seed.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
struct Cli {
    /// Threads for the arithmetic [default: all cores].
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,

    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Latency(latency::LatencyArgs),
    Flops(flops::FlopsArgs),
    Step(step::StepArgs),
    Layer(step::LayerArgs),
    Kernels(kernels::KernelsArgs),
    Kar(kar::KarArgs),
    Ceiling(encode::CeilingArgs),
    Llama(llama::LlamaArgs),
    Decode(decode::DecodeArgs),
    Encode(encode::EncodeArgs),
    Candidates(data::CandidatesArgs),
    Store(data::StoreArgs),
    Results(results::ResultsArgs),
    #[command(hide = true)]
    StoreOnce(data::StoreOnceArgs),
}

/// Parses counts that cannot be zero.
fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

fn main() -> ExitCode {
    terminal::run(|| run(Cli::parse()))
}

fn run(cli: Cli) -> anyhow::Result<()> {
    if let Some(threads) = cli.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    match cli.command {
        Command::Latency(args) => latency::latency(args, cli.json),
        Command::Flops(args) => flops::flops(args, cli.json),
        Command::Step(args) => step::step(args, cli.json),
        Command::Llama(args) => llama::llama(args, cli.json),
        Command::Decode(args) => decode::decode(args, cli.json),
        Command::Layer(args) => step::layer(args, cli.json),
        Command::Kernels(args) => kernels::kernels(args, cli.json),
        Command::Candidates(args) => data::candidates(args, cli.json),
        Command::Results(args) => results::results(args, cli.json),
        Command::Store(args) => data::store(args, cli.json),
        Command::StoreOnce(args) => data::store_once(args),
        Command::Kar(args) => kar::kar(args, cli.json),
        Command::Ceiling(args) => encode::ceiling(args, cli.json),
        Command::Encode(args) => encode::encode(args, cli.json),
    }
}

fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value).context("cannot be written as JSON")?);
    Ok(())
}

fn machine(gpu: Option<&Gpu>) -> String {
    format!("fissfuse {} ({}), {}", env!("CARGO_PKG_VERSION"), env!("FISSFUSE_COMMIT"), describe(gpu))
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3}", 1e3 * seconds)
}

fn print_peak(bytes: Option<u64>) {
    if let Some(bytes) = bytes {
        println!("memory at its peak: {}", Bytes(bytes));
    }
}
