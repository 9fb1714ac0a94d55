//! The command line: one file per subcommand, which parses, calls and prints.

mod embed;
mod replay;

use clap::{Parser, Subcommand};

/// Multimodal entity linking: train FissFuse, link mentions, re-rank with a language model.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    /// Threads for the arithmetic; results do not depend on it [default: all cores].
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Embed(embed::Args),
    Replay(replay::Args),
}

impl Cli {
    /// Runs the chosen subcommand.
    pub fn run(self) -> anyhow::Result<()> {
        if let Some(threads) = self.threads {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        }
        match self.command {
            Command::Embed(args) => embed::run(args),
            Command::Replay(args) => replay::run(args),
        }
    }
}
