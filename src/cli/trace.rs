//! `--trace`: where the time of a command went, as a file and as a table.

use std::path::{Path, PathBuf};

use fissfuse::report::table;
use fissfuse::{interrupt, trace};

use super::common::at_least_one;

/// Flags of subcommands that take traces.
#[derive(clap::Args, Clone)]
pub struct TraceArgs {
    /// Write where the time went: spans of threads and devices, for chrome://tracing or ui.perfetto.dev, and print what
    /// they add up to. Below 50 MB.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Steps that --trace keeps, the last ones: training steps, groups of texts or images, mentions, questions.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = at_least_one(), requires = "trace")]
    trace_steps: usize,
}

impl TraceArgs {
    /// The file and its flag, for the paths that are written.
    pub fn written(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.trace.as_deref().map(|path| ("--trace", path)).into_iter()
    }

    /// Does the work of a command, and takes its trace if it is to: of what was done, whether the work succeeds, fails
    /// or is stopped. Fails before the work if the file cannot be written.
    pub fn around<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let Some(path) = &self.trace else { return work() };
        trace::begin(path, self.trace_steps)?;
        let ending = Ending;
        let done = work();
        std::mem::forget(ending);
        let ended = end();
        match done {
            Ok(done) => ended.map(|()| done),
            Err(error) => {
                // What went wrong first is what is said last.
                ended.unwrap_or_else(|error| eprintln!("warning: there is no trace: {error:#}"));
                Err(error)
            }
        }
    }

    /// As [`TraceArgs::around`], of work that a signal ends at once: the trace is written before.
    pub fn around_unwatched<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let _watch = match self.trace {
            Some(_) => Some(interrupt::watch_and_end(|| {
                end().unwrap_or_else(|error| eprintln!("warning: there is no trace: {error:#}"));
            })?),
            None => None,
        };
        self.around(work)
    }
}

/// Ends the trace of work that unwinds, such as when nobody reads what it prints.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        end().unwrap_or_else(|error| eprintln!("warning: there is no trace: {error:#}"));
    }
}

/// Writes the trace, and says what is in it: on standard error, since some commands answer on standard output.
fn end() -> anyhow::Result<()> {
    let Some(report) = trace::end()? else { return Ok(()) };
    let milliseconds = |seconds: f64| format!("{:.3}", 1e3 * seconds);
    let rows = report.rows.iter().map(|row| {
        let mean = row.total / row.calls.max(1) as f64;
        let times = [row.total, mean, row.p50, row.max].map(milliseconds);
        let [total, mean, p50, max] = times;
        vec![
            row.name.clone(),
            row.place.clone(),
            row.calls.to_string(),
            total,
            mean,
            p50,
            max,
            format!("{:.1}", 100.0 * row.share),
        ]
    });
    let header = ["span", "where", "calls", "total ms", "mean ms", "p50 ms", "max ms", "share %"];
    eprintln!("{}", table(&header, rows));
    let left_out = match report.left_out {
        0 => String::new(),
        spans => format!("; {spans} spans of earlier steps are left out"),
    };
    eprintln!("trace of the last {} steps in {}{left_out}", report.steps, report.path.display());
    Ok(())
}
