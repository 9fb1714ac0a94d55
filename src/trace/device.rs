//! Spans of devices: between marks in their streams, whose times are asked for when they are past, and never waited for
//! before the trace ends.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

use super::ring::Track;
use super::{is_on, lock, with};
use crate::device::Gpu;
use crate::device::cuda::Mark;
use crate::error::Result;

/// The devices of the trace. Held while marks are asked for their times, which waits for no other thread.
static STREAMS: Mutex<Vec<Stream>> = Mutex::new(Vec::new());

/// Seconds after which times are counted from a new mark: an f32 of milliseconds is exact to 0.1 microseconds up to
/// there.
const REBASE: f64 = 1.0;

/// A device's stream of kernels.
struct Stream {
    gpu: Gpu,
    /// Times are counted from here.
    base: Mark,
    /// When that was, in nanoseconds of the trace.
    base_at: u64,
    /// Spans whose end is marked, in the order of these marks.
    waiting: VecDeque<Waiting>,
    /// How many spans have begun and not ended.
    open: usize,
}

struct Waiting {
    name: &'static str,
    pass: &'static str,
    step: u32,
    /// How many spans it lies in.
    depth: usize,
    start: Mark,
    end: Mark,
}

/// A span of a device, from where its stream was when it was opened to where it is when this is dropped.
#[must_use = "the span ends where this is dropped"]
pub struct DeviceSpan(Option<Open>);

struct Open {
    gpu: Gpu,
    name: &'static str,
    pass: &'static str,
    depth: usize,
    start: Mark,
}

/// A span by this name of what is queued on a device until what this gives is dropped; behind the name stands the pass,
/// unless that is empty. Nothing where no trace is taken, on the host, or in a recording, which runs later.
pub fn on_device(gpu: Option<&Gpu>, name: &'static str, pass: &'static str) -> DeviceSpan {
    let Some(gpu) = gpu.filter(|_| is_on()) else { return DeviceSpan(None) };
    // A device that fails says so to whoever works on it; its trace ends there.
    let open = || -> Result<Option<Open>> {
        let known = |streams: &[Stream]| streams.iter().any(|stream| stream.gpu.is(gpu));
        if !known(&lock(&STREAMS)) {
            let Some(stream) = Stream::new(gpu)? else { return Ok(None) };
            let mut streams = lock(&STREAMS);
            if !known(&streams) {
                streams.push(stream);
            }
        }
        Ok(gpu.mark()?.map(|start| Open { gpu: gpu.clone(), name, pass, depth: 0, start }))
    };
    let mut open = open().ok().flatten();
    if let Some(open) = &mut open {
        of(gpu, |stream| {
            open.depth = stream.open;
            stream.open += 1;
        });
    }
    DeviceSpan(open)
}

impl Drop for DeviceSpan {
    fn drop(&mut self) {
        let Some(Open { gpu, name, pass, depth, start }) = self.0.take() else { return };
        let end = gpu.mark().ok().flatten();
        let step = with(|taken| taken.ring.step());
        of(&gpu, |stream| {
            stream.open = stream.open.saturating_sub(1);
            if let (Some(end), Some(step)) = (end, step) {
                stream.waiting.push_back(Waiting { name, pass, step, depth, start, end });
            }
        });
    }
}

fn of(gpu: &Gpu, work: impl FnOnce(&mut Stream)) {
    if let Some(stream) = lock(&STREAMS).iter_mut().find(|stream| stream.gpu.is(gpu)) {
        work(stream);
    }
}

impl Stream {
    /// A device whose clock is compared with the host's once, for which what is queued must be done. `None` in a
    /// recording.
    fn new(gpu: &Gpu) -> Result<Option<Stream>> {
        let Some(base) = gpu.mark()? else { return Ok(None) };
        base.since(&base)?;
        let base_at = with(|taken| taken.at(Instant::now())).unwrap_or(0);
        Ok(Some(Stream { gpu: gpu.clone(), base, base_at, waiting: VecDeque::new(), open: 0 }))
    }

    /// Takes over the spans that have ended; with `all`, waits for the others.
    fn collect(&mut self, device: u32, all: bool) -> Result<()> {
        while let Some(first) = self.waiting.front() {
            if !all && !first.end.is_past()? {
                break;
            }
            let Some(Waiting { name, pass, step, depth, start, end }) = self.waiting.pop_front() else { break };
            let [from, to] = [start.since(&self.base)?, end.since(&self.base)?];
            let [from, to] = [from, to].map(|seconds| self.base_at + (1e9 * seconds.max(0.0)).round() as u64);
            let whole = if pass.is_empty() { name.to_string() } else { format!("{name} {pass}") };
            with(|taken| taken.ring.add(&whole, Track::Device(device), (from, to), step));
            // None that has not been taken over began before the end of one that lies in no other.
            if depth == 0 && end.since(&self.base)? > REBASE {
                (self.base, self.base_at) = (end, to);
            }
        }
        Ok(())
    }
}

fn collect_from(all: bool) {
    for (device, stream) in (0..).zip(lock(&STREAMS).iter_mut()) {
        if stream.collect(device, all).is_err() {
            // The device is lost, and with it the times that it has not told.
            stream.waiting.clear();
        }
    }
}

/// Takes over the spans that devices have ended, and waits for none.
pub(super) fn collect() {
    collect_from(false);
}

/// Waits for the spans that devices have been given.
pub(super) fn collect_all() {
    collect_from(true);
}

/// Names of the devices of the trace.
pub(super) fn tracks() -> Vec<String> {
    lock(&STREAMS).iter().map(|stream| format!("{:?}", stream.gpu)).collect()
}

/// Forgets the devices of the trace.
pub(super) fn forget() {
    lock(&STREAMS).clear();
}
