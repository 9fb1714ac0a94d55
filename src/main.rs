//! The `fissfuse` command.

// Over the standard library's, which panic when nobody listens.
#[macro_use(eprintln, print, println)]
extern crate fissfuse;

mod cli;

use std::process::ExitCode;

use fissfuse::device::cpu::keep_freed_memory;
use fissfuse::{terminal, trace};

fn main() -> ExitCode {
    keep_freed_memory();
    trace::listen();
    terminal::run(|| terminal::parse::<cli::Cli>().run())
}
