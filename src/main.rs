//! The `fissfuse` command.

// Over the standard library's, which panic when nobody listens.
#[macro_use(eprintln, print, println)]
extern crate fissfuse;

mod cli;

use std::process::ExitCode;

use clap::Parser;
use fissfuse::printable::PrintableWriter;
use fissfuse::{terminal, trace};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FISSFUSE_LOG").unwrap_or_else(|_| "warn".into());
    let log = tracing_subscriber::fmt::layer()
        .with_writer(|| PrintableWriter(std::io::stderr()))
        .without_time()
        .log_internal_errors(false);
    tracing_subscriber::registry().with(log.with_filter(filter)).with(trace::layer()).init();
    terminal::run(|| cli::Cli::parse().run())
}
