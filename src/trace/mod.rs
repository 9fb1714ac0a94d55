//! Where the time of a command went: spans of host and device, in the trace format that Chrome's about:tracing and
//! <https://ui.perfetto.dev> show.
//!
//! Code opens spans by [`span!`](crate::span) and [`on_device`]; while no trace is taken, that is a load and a
//! comparison. A trace keeps the spans of the last steps, in memory: a step is what a command repeats (a training step,
//! a group of texts or images, a mention, a question). The file is written once at the end, whole, whatever ended the
//! command.
//!
//! The crate `tracing-chrome` was looked at: it writes to the file as it goes, so that the file grows without bound and
//! has no end where the command was stopped; and it knows no spans of another clock, such as a device's.

mod chrome;
mod device;
mod host;
mod ring;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use device::{DeviceSpan, on_device};
pub use summary::Row;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::device::nvtx;
use crate::error::{Error, Result};
use crate::files;
use crate::printable::PrintableWriter;
use ring::Ring;

/// Target of the spans, by which they are told from what is logged.
pub const TARGET: &str = "fissfuse::trace";

/// From now on warnings go to standard error, others where the environment's FISSFUSE_LOG asks for them, and spans to the trace
/// that is taken: for the programs, once.
pub fn listen() {
    let filter = EnvFilter::try_from_env("FISSFUSE_LOG").unwrap_or_else(|_| "warn".into());
    let log = tracing_subscriber::fmt::layer()
        .with_writer(|| PrintableWriter(std::io::stderr()))
        .without_time()
        .log_internal_errors(false);
    tracing_subscriber::registry().with(log.with_filter(filter)).with(host::layer()).init();
}

/// Most bytes of a file.
const MOST_BYTES: usize = 48_000_000;

/// Whether a trace is taken.
static ON: AtomicBool = AtomicBool::new(false);

/// Whether spans are ranges for profilers, trace or not.
static RANGES: AtomicBool = AtomicBool::new(false);

/// The trace that is taken. Never held while a device is asked to do something: a thread that records its stream, which
/// others wait for, opens spans too.
static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);

/// Held by whoever ends a trace, until its file is written.
static ENDING: Mutex<()> = Mutex::new(());

struct Taken {
    path: PathBuf,
    /// The trace's time 0.
    start: Instant,
    ring: Ring,
}

impl Taken {
    /// Nanoseconds from the trace's beginning to a moment.
    fn at(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.start).as_nanos() as u64
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Whether anybody wants spans.
fn wants_spans() -> bool {
    is_on() || RANGES.load(Ordering::Relaxed)
}

/// From now on spans of the host are NVTX ranges, also while no trace is taken: profilers show them, and cusim counts by them.
///
/// Fails if NVTX's library is not installed.
pub fn name_ranges() -> Result<()> {
    if nvtx::ranges().is_none() {
        let reason = "is not installed: nothing can be told what ranges are called (it comes with CUDA's toolkit, and with cusim)";
        return Err(Error::invalid(format!("{} {reason}", nvtx::LIBRARY)));
    }
    RANGES.store(true, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

/// Does something with the trace that is taken, if one is.
fn with<T>(work: impl FnOnce(&mut Taken) -> T) -> Option<T> {
    lock(&TAKEN).as_mut().map(work)
}

/// A span of this thread by this name, until what it gives is dropped: `let _span = span!("forward");`. With a second
/// argument, the pass of an operation stands behind its name.
#[macro_export]
macro_rules! span {
    ($name:literal) => { ::tracing::info_span!(target: $crate::trace::TARGET, $name).entered() };
    ($name:expr, $pass:literal) => {
        ::tracing::info_span!(target: $crate::trace::TARGET, "operation", name = $name, pass = $pass).entered()
    };
}

/// What a command repeats begins anew: the oldest step goes if there are as many as are kept.
pub fn next_step() {
    if is_on() {
        device::collect();
        with(|taken| taken.ring.next_step());
    }
}

/// Begins to take a trace of the last `steps` steps, which [`end`] writes to a file. Fails if no file can be written
/// there. There is one at a time: a trace that was begun before is given up.
pub fn begin(path: &Path, steps: usize) -> Result<()> {
    files::expect_file_at(path)?;
    device::forget();
    *lock(&TAKEN) = Some(Taken { path: path.to_path_buf(), start: Instant::now(), ring: Ring::new(steps, MOST_BYTES) });
    turn(true);
    Ok(())
}

fn turn(on: bool) {
    ON.store(on, Ordering::Relaxed);
    // Whether a span is wanted was asked before, and is remembered.
    tracing::callsite::rebuild_interest_cache();
}

/// What a trace came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its file.
    pub path: PathBuf,
    /// Spans in it, by what they are called.
    pub rows: Vec<Row>,
    /// Steps in it.
    pub steps: usize,
    /// Spans that were left out: those of earlier steps, and what has no room in the file.
    pub left_out: u64,
}

/// Ends the trace and writes its file: of what is done by now, whole or not at all. `None` if no trace is taken, or
/// another thread has ended it, whose file is written then.
pub fn end() -> Result<Option<Report>> {
    let _ending = lock(&ENDING);
    if !is_on() {
        return Ok(None);
    }
    turn(false);
    device::collect_all();
    let Some(taken) = lock(&TAKEN).take() else { return Ok(None) };
    let (events, tracks) = (taken.ring.kept(), device::tracks());
    device::forget();
    let (steps, left_out) = (taken.ring.steps(), taken.ring.left_out());
    let about = chrome::About { tracks: &tracks, threads: &host::threads(), steps, left_out };
    files::write_whole(&taken.path, |out| chrome::write(out, &taken.ring, &events, &about))?;
    let rows = summary::rows(&taken.ring, &events, &tracks);
    Ok(Some(Report { path: taken.path, rows, steps, left_out }))
}
