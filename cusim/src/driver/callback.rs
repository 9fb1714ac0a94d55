//! Functions of the host in streams: what they must not do, and who may wait for them.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::code::Code;
use super::{Driver, say, with};

/// A C function that the host runs in stream order.
#[derive(Clone, Copy)]
pub enum HostFunction {
    /// Of `cuLaunchHostFunc`: the function and its argument's address. CUDA calls it on a thread of its own.
    Plain(unsafe extern "C" fn(*mut c_void), usize),
    /// Of `cuStreamAddCallback`, which is also told the stream and how it fares: the function, the stream as the program
    /// names it, and the argument's address.
    Callback(unsafe extern "C" fn(u64, u32, *mut c_void), u64, usize),
}

thread_local! {
    /// Whether this thread is inside such a function.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is inside a function that a stream calls, which must not call the driver.
pub fn is_inside() -> bool {
    INSIDE.get()
}

impl HostFunction {
    /// Calls it.
    pub fn run(self) {
        INSIDE.set(true);
        // SAFETY: the program gave a function and its argument, to be called once for each time that it was queued.
        unsafe {
            match self {
                Self::Plain(call, data) => call(data as *mut c_void),
                Self::Callback(call, stream, data) => call(stream, 0, data as *mut c_void),
            }
        }
        INSIDE.set(false);
    }
}

/// A program may wait for a function's effect and never call the driver meanwhile. So functions are called after this time
/// even if no call waits for them, and what stands before them in their streams is done.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether a thread looks after functions that wait in streams. Changed only by those who hold the driver.
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Sees to it that functions which wait in streams are called some time.
pub fn watch() {
    if WATCHED.swap(true, Ordering::Relaxed) {
        return;
    }
    if let Err(error) = std::thread::Builder::new().name("cusim callbacks".to_string()).spawn(look_after) {
        WATCHED.store(false, Ordering::Relaxed);
        say(&format!("no thread can be had that calls host functions in time: {error}"));
    }
}

fn look_after() {
    loop {
        let Ok(issued) = with(|d| Ok(d.issued)) else {
            return;
        };
        std::thread::sleep(PATIENCE);
        let waiting = with(|d| {
            d.call_overdue(issued);
            let waiting = d.streams.iter().any(|(_, stream)| stream.queue.iter().any(|(_, work)| work.calls_host()));
            WATCHED.store(waiting, Ordering::Relaxed);
            Ok(waiting)
        });
        if waiting != Ok(true) {
            return;
        }
    }
}

impl Driver {
    /// Calls all functions that were issued before, and does what stands before them. A failure was said, and the program's
    /// next call returns it if it made the context useless.
    fn call_overdue(&mut self, issued: u64) {
        for stream in self.streams.handles() {
            let last = self.streams.get(stream).ok().and_then(|stream| {
                let overdue = stream.queue.iter().rfind(|(own, work)| *own <= issued && work.calls_host());
                Some(overdue?.0)
            });
            let _: Result<(), Code> = last.map_or(Ok(()), |last| self.finish_until(stream, last + 1));
        }
    }
}
