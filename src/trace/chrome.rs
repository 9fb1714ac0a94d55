//! The file: Chrome's trace format, in its form of an object.

use std::io::{self, Write};

use serde_json::json;

use super::ring::{Event, Ring, Track};

/// Numbers under which the host's threads and the devices stand, as processes.
const HOST: u32 = 1;
const DEVICES: u32 = 2;

/// What the file says beside the spans.
pub struct About<'a> {
    /// Names of the devices.
    pub tracks: &'a [String],
    /// Names of the threads.
    pub threads: &'a [String],
    /// Steps that are kept.
    pub steps: usize,
    /// Spans that are not.
    pub left_out: u64,
}

fn process_and_thread(track: Track) -> (u32, u32) {
    match track {
        Track::Host(thread) => (HOST, thread),
        Track::Device(device) => (DEVICES.saturating_add(device), 0),
    }
}

/// Writes the spans; times are microseconds with three places.
pub fn write(out: &mut dyn Write, ring: &Ring, events: &[Event], about: &About) -> io::Result<()> {
    let version = concat!("fissfuse ", env!("CARGO_PKG_VERSION"), " (", env!("FISSFUSE_COMMIT"), ")");
    let other = json!({"program": version, "steps": about.steps, "spans left out": about.left_out});
    write!(out, "{{\"displayTimeUnit\":\"ms\",\"otherData\":{other},\"traceEvents\":[")?;
    let named = |kind: &str, (pid, tid): (u32, u32), name: &str| json!({"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}});
    write!(out, "\n{}", named("process_name", (HOST, 0), "host"))?;
    for (thread, name) in (0..).zip(about.threads) {
        write!(out, ",\n{}", named("thread_name", process_and_thread(Track::Host(thread)), name))?;
    }
    for (device, name) in (0..).zip(about.tracks) {
        let place = process_and_thread(Track::Device(device));
        write!(out, ",\n{},\n{}", named("process_name", place, name), named("thread_name", place, "kernels"))?;
    }
    for event in events {
        let ((pid, tid), name) = (process_and_thread(event.track), json!(ring.name(event.name)));
        let kind = if pid == HOST { "host" } else { "device" };
        let [start, duration] = [event.start, event.duration].map(|time| (time / 1000, time % 1000));
        write!(
            out,
            ",\n{{\"ph\":\"X\",\"name\":{name},\"cat\":\"{kind}\",\"pid\":{pid},\"tid\":{tid},\"ts\":{}.{:03},\
             \"dur\":{}.{:03},\"args\":{{\"step\":{}}}}}",
            start.0, start.1, duration.0, duration.1, event.step
        )?;
    }
    writeln!(out, "\n]}}")
}
