//! Standard output and error, whoever listens: the macros `println!`, `print!` and `eprintln!` of both programs.
//!
//! Rust's own panic when a pipe is closed or a disk is full. Here a command whose output nobody reads any more ends as `cat`
//! does, without a word; one whose output cannot be written ends with an error; and work that is worth more than its talk
//! goes on ([`work_on`]).

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Arg, Command, Parser};

use crate::error::Error;
use crate::printable::printable;

/// Whether the program goes on when what it says cannot be written.
static WORKS_ON: AtomicBool = AtomicBool::new(false);

/// Whether something could not be written.
static UNHEARD: AtomicBool = AtomicBool::new(false);

/// Why a command was ended from within: its output cannot be written. Unwinds to [`run`], so that locks and temporary files go
/// as they do after any other error.
struct Unwritten(io::Error);

/// Parses the command line. A negative number behind a flag is its value, of which the flag's own error says what is wrong, and no
/// flag that nobody knows.
pub fn parse<C: Parser>() -> C {
    let parsed = C::from_arg_matches_mut(&mut with_negatives(C::command()).get_matches());
    parsed.unwrap_or_else(|error| error.format(&mut C::command()).exit())
}

fn with_negatives(command: Command) -> Command {
    let has_value = |arg: &Arg| !arg.is_positional() && arg.get_action().takes_values();
    let allow = |arg: Arg| if has_value(&arg) { arg.allow_negative_numbers(true) } else { arg };
    command.mut_args(allow).mut_subcommands(with_negatives)
}

/// From now on, what cannot be written is left out, and the work goes on.
pub fn work_on() {
    WORKS_ON.store(true, Ordering::Relaxed);
}

/// Prints to standard output. For the macros.
pub fn print(text: fmt::Arguments) {
    if UNHEARD.load(Ordering::Relaxed) {
        return;
    }
    let Err(error) = io::stdout().write_fmt(text) else { return };
    if !WORKS_ON.load(Ordering::Relaxed) {
        // Not a panic: nothing is reported on the way.
        panic::resume_unwind(Box::new(Unwritten(error)));
    }
    UNHEARD.store(true, Ordering::Relaxed);
    eprint(format_args!("standard output cannot be written ({error}); the work goes on without it\n"));
}

/// Prints to standard error, if somebody listens. For the macros.
pub fn eprint(text: fmt::Arguments) {
    // There is no other place to complain at.
    let _ = io::stderr().write_fmt(text);
}

/// `print!` that never panics.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::terminal::print(::std::format_args!($($arg)*)) };
}

/// `println!` that never panics.
#[macro_export]
macro_rules! println {
    () => { $crate::terminal::print(::std::format_args!("\n")) };
    ($($arg:tt)*) => { $crate::terminal::print(::std::format_args!("{}\n", ::std::format_args!($($arg)*))) };
}

/// `eprintln!` that never panics.
#[macro_export]
macro_rules! eprintln {
    ($($arg:tt)*) => { $crate::terminal::eprint(::std::format_args!("{}\n", ::std::format_args!($($arg)*))) };
}

/// Runs a command: its error goes to standard error, and what it says to whoever listens.
pub fn run(command: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    let ended = match panic::catch_unwind(AssertUnwindSafe(command)) {
        Ok(ended) => ended,
        Err(payload) => match payload.downcast::<Unwritten>() {
            Ok(unwritten) => Err(anyhow::Error::new(unwritten.0).context("standard output cannot be written")),
            Err(panicked) => panic::resume_unwind(panicked),
        },
    };
    let flushed = || match WORKS_ON.load(Ordering::Relaxed) {
        true => Ok(()),
        false => io::stdout().flush().map_err(|e| anyhow::Error::new(e).context("standard output cannot be written")),
    };
    match ended.and_then(|()| flushed()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprint(format_args!("error: {}\n", printable(&format!("{error:#}"))));
            stopped_by(&error).map_or(ExitCode::FAILURE, |signal| ExitCode::from(128 + signal as u8))
        }
    }
}

/// The signal that ended the work; shells know it by the exit code.
fn stopped_by(error: &anyhow::Error) -> Option<i32> {
    match error.downcast_ref::<Error>() {
        Some(Error::Stopped { signal, .. }) => Some(*signal),
        _ => None,
    }
}

/// Whoever read our output has enough, as `| head` does: no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<io::Error>()).any(|e| e.kind() == ErrorKind::BrokenPipe)
}
