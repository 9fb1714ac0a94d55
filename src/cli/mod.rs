//! The command line: one file per subcommand, which parses, calls and prints.

mod audit;
mod candidates;
mod common;
mod database;
mod demo;
mod doctor;
mod embed;
mod encode;
mod eval;
mod experiment;
mod import;
mod index;
mod language_model;
mod link;
mod llm;
mod merge;
mod parallel;
mod paths;
mod pretrain;
mod replay;
mod report;
mod rerank;
mod shard;
mod trace;
mod train;
mod whole;
mod written;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, Subcommand};

/// Multimodal entity linking: train FissFuse, link mentions, re-rank with a language model.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    /// Threads for the arithmetic; results do not depend on it [default: all cores].
    #[arg(long, global = true, value_name = "N", value_parser = threads())]
    threads: Option<usize>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Import(import::Args),
    Audit(audit::Args),
    Candidates(candidates::Args),
    Encode(encode::Args),
    Train(train::Args),
    Pretrain(pretrain::Args),
    Eval(eval::Args),
    Experiment(experiment::Args),
    Link(link::Args),
    Merge(merge::Args),
    Index(index::Args),
    Embed(embed::Args),
    Llm(llm::Args),
    Rerank(rerank::Args),
    Report(report::Args),
    Replay(replay::Args),
    Doctor(doctor::Args),
}

/// Parses counts of threads; more than any machine has cores would only use up its memory.
fn threads() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=4096)
}

impl Cli {
    /// Runs the chosen subcommand.
    pub fn run(self) -> anyhow::Result<()> {
        if let Some(threads) = self.threads {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        }
        match self.command {
            Command::Demo(args) => demo::run(args),
            Command::Import(args) => import::run(args),
            Command::Audit(args) => audit::run(args),
            Command::Candidates(args) => candidates::run(args),
            Command::Encode(args) => encode::run(args),
            Command::Train(args) => train::run(args),
            Command::Pretrain(args) => pretrain::run(args),
            Command::Eval(args) => eval::run(args),
            Command::Experiment(args) => experiment::run(args),
            Command::Link(args) => link::run(args),
            Command::Merge(args) => merge::run(args),
            Command::Index(args) => index::run(args),
            Command::Embed(args) => embed::run(args),
            Command::Llm(args) => llm::run(args),
            Command::Rerank(args) => rerank::run(args),
            Command::Report(args) => report::run(args),
            Command::Replay(args) => replay::run(args),
            Command::Doctor(args) => doctor::run(args),
        }
    }
}
