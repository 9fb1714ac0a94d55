//! The `fissfuse` command.

mod cli;

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;
use fissfuse::report::{PrintableWriter, printable};

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FISSFUSE_LOG").unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| PrintableWriter(std::io::stderr()))
        .without_time()
        .init();
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// Whoever read our output has enough, as `| head` does: no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(|e| e.kind() == ErrorKind::BrokenPipe)
}
