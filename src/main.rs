//! The `fissfuse` command.

// Over the standard library's, which panic when nobody listens.
#[macro_use(eprintln, print, println)]
extern crate fissfuse;

mod cli;

use std::process::ExitCode;

use clap::Parser;
use fissfuse::printable::PrintableWriter;
use fissfuse::terminal;

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FISSFUSE_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| PrintableWriter(std::io::stderr()))
        .without_time()
        .log_internal_errors(false)
        .init();
    terminal::run(|| cli::Cli::parse().run())
}
