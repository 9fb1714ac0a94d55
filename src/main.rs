//! The `fissfuse` command.

// Over the standard library's, which panic when nobody listens.
#[macro_use(eprintln, print, println)]
extern crate fissfuse;

mod cli;

use std::process::ExitCode;

use fissfuse::{terminal, trace};

fn main() -> ExitCode {
    trace::listen();
    terminal::run(|| terminal::parse::<cli::Cli>().run())
}
