//! What can stand in a stream's queue, and doing it.

use std::sync::Arc;
use std::time::Instant;

use super::Driver;
use super::callback::HostFunction;
use super::code::*;
use super::rows::RowCopy;
use crate::exec::program::Program;
use crate::mem::FreeError;

/// One end of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Device, pinned or managed memory.
    Device(u64),
    /// Pageable memory of the host.
    Host(u64),
}

/// A step of a stream.
#[derive(Clone)]
pub enum Work {
    /// Run a kernel.
    Launch(Arc<Shot>),
    /// Copy bytes.
    Copy {
        /// To here.
        to: Place,
        /// From here.
        from: Place,
        /// How many.
        bytes: u64,
        /// The call, for messages.
        call: &'static str,
    },
    /// Write bytes that were taken from the host when the call was made.
    Write {
        /// To here.
        to: u64,
        /// The bytes.
        data: Arc<Vec<u8>>,
        /// The call, for messages.
        call: &'static str,
    },
    /// Copy rows of bytes.
    CopyRows(Arc<RowCopy>),
    /// Fill rows of memory with a pattern.
    Fill {
        /// From here on.
        to: u64,
        /// Bytes from one row to the next.
        pitch: u64,
        /// The pattern.
        value: u32,
        /// Its bytes: 1, 2 or 4.
        width: u64,
        /// How often in a row.
        count: u64,
        /// Rows.
        rows: u64,
    },
    /// Free memory.
    Free(u64),
    /// An event's n-th recording.
    Record(u64, u64),
    /// Wait for an event's n-th recording.
    Wait(u64, u64),
    /// Call the host.
    Host(HostFunction),
    /// Run a graph's steps.
    Graph(Arc<Vec<Node>>),
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// Its blocks may wait for each other.
    pub cooperative: bool,
    /// It may begin before the launch before it has ended.
    pub early: bool,
}

/// A launch with its arguments.
pub struct Shot {
    /// The kernel.
    pub program: Arc<Program>,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads per block.
    pub block: [u32; 3],
    /// Dynamic shared memory.
    pub shared: u32,
    /// The parameters.
    pub params: Vec<u8>,
    /// The device that runs it.
    pub device: u32,
    /// How it was launched.
    pub how: How,
    /// Blocks that the device has room for at a time.
    pub wave: u64,
    /// The innermost range of the thread that asked for it.
    pub range: Option<Arc<str>>,
}

/// A step of a graph.
#[derive(Clone)]
pub struct Node {
    /// What it does.
    pub work: Work,
    /// The nodes that it comes directly after, in the order in which these edges were added.
    pub after: Vec<usize>,
    /// What memory the ends of a copy or a memset are in; an update must not change that.
    pub(super) ends: Vec<End>,
}

/// Where an end of a copy is, as far as updates care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Host,
    Device(u32),
    Managed(u32),
}

impl Work {
    /// Whether it calls a function of the host.
    pub fn calls_host(&self) -> bool {
        match self {
            Self::Host(_) => true,
            Self::Graph(nodes) => nodes.iter().any(|node| node.work.calls_host()),
            _ => false,
        }
    }
}

impl Driver {
    /// Does a step of a stream.
    pub fn perform(&mut self, stream: u64, work: &Work) -> Result<(), Code> {
        match work {
            Work::Launch(_) | Work::Record(..) | Work::Wait(..) | Work::Free(_) => {}
            // Begins when all before it has ended, and has ended when the next begins.
            _ => self.all_ended(stream),
        }
        match work {
            Work::Launch(shot) => self.launch_in(stream, shot),
            Work::Copy { to, from, bytes, call } => self.copy(*to, *from, *bytes, call),
            Work::Write { to, data, call } => {
                self.check_range(*to, data.len() as u64, call, "writes")?;
                self.memory.write(*to, data);
                self.memory.mark_written(*to, data.len() as u64);
                Ok(())
            }
            Work::CopyRows(copy) => self.copy_rows(copy),
            Work::Fill { to, pitch, value, width, count, rows } => (0..*rows).try_for_each(|row| {
                let to = to.wrapping_add(row.wrapping_mul(*pitch));
                self.fill(to, &value.to_le_bytes()[..*width as usize], width.saturating_mul(*count))
            }),
            Work::Free(start) => self.free_now(*start),
            Work::Record(event, number) => {
                // An event may be destroyed before the work that records it is done.
                if let Ok(event) = self.events.get_mut(*event) {
                    event.done = event.done.max(*number);
                    event.time = Some(Instant::now());
                }
                Ok(())
            }
            Work::Wait(..) => Ok(()),
            Work::Host(function) => {
                function.run();
                Ok(())
            }
            Work::Graph(nodes) => {
                let done = nodes.iter().try_for_each(|node| self.perform(stream, &node.work));
                self.all_ended(stream);
                done
            }
        }
    }

    /// Runs a kernel, which may overlap with those before it if it was launched so.
    fn launch_in(&mut self, stream: u64, shot: &Shot) -> Result<(), Code> {
        let before = self.streams.get_mut(stream).map(|stream| std::mem::take(&mut stream.unfinished));
        let mut unfinished = if shot.how.early { before.unwrap_or_default() } else { vec![] };
        let ran = self.run_shot(shot, &unfinished);
        if let Ok(stream) = self.streams.get_mut(stream) {
            unfinished.push(self.launches);
            stream.unfinished = unfinished;
        }
        ran
    }

    /// What a stream launched has ended.
    pub(super) fn all_ended(&mut self, stream: u64) {
        if let Ok(stream) = self.streams.get_mut(stream) {
            stream.unfinished.clear();
        }
    }

    /// Fills a range with a pattern.
    fn fill(&mut self, to: u64, pattern: &[u8], bytes: u64) -> Result<(), Code> {
        self.check_range(to, bytes, "cuMemset", "writes")?;
        let start = self.memory.host_pointer(to);
        // SAFETY: the range was checked.
        let target = unsafe { std::slice::from_raw_parts_mut(start, bytes as usize) };
        match pattern {
            [byte] => target.fill(*byte),
            _ => target.chunks_exact_mut(pattern.len()).for_each(|chunk| chunk.copy_from_slice(pattern)),
        }
        self.memory.mark_written(to, bytes);
        Ok(())
    }

    pub(super) fn copy(&mut self, to: Place, from: Place, bytes: u64, call: &'static str) -> Result<(), Code> {
        if bytes == 0 {
            return Ok(());
        }
        if let Place::Device(address) = from {
            self.check_range(address, bytes, call, "reads")?;
        }
        if let Place::Device(address) = to {
            self.check_range(address, bytes, call, "writes")?;
        }
        let pointer = |memory: &crate::mem::Memory, place| match place {
            Place::Device(address) => memory.host_pointer(address),
            Place::Host(address) => address as *mut u8,
        };
        // SAFETY: device ranges were checked; host ranges are the caller's promise. They may overlap.
        unsafe { std::ptr::copy(pointer(&self.memory, from), pointer(&self.memory, to), bytes as usize) };
        let for_host = match to {
            Place::Device(to) => self.memory.find(to).is_some_and(|allocation| allocation.kind.is_of_the_host()),
            Place::Host(_) => true,
        };
        let checked = match from {
            Place::Device(from) if for_host => self.check_written(from, bytes, call),
            _ => Ok(()),
        };
        match (from, to) {
            (Place::Device(from), Place::Device(to)) if !for_host => self.memory.copy_written(from, to, bytes),
            // What the host does with it is not seen.
            (_, Place::Device(to)) => self.memory.mark_written(to, bytes),
            _ => {}
        }
        checked
    }

    /// Checks that all of what the host is to see was written: what is done with it there is not seen.
    fn check_written(&mut self, start: u64, bytes: u64, call: &str) -> Result<(), Code> {
        let Some(first) = self.memory.first_unwritten(start, bytes) else {
            return Ok(());
        };
        let inside = self.memory.describe(start + first).unwrap_or_default();
        self.sink.unwritten(
            call,
            &format!("{call} reads {bytes} bytes at {start:#x}, of which nothing wrote byte {first}"),
            inside,
        );
        if self.config.findings_fail { Err(LAUNCH_FAILED) } else { Ok(()) }
    }

    /// Checks that a range lies in one allocation.
    pub fn check_range(&mut self, start: u64, bytes: u64, call: &str, verb: &str) -> Result<(), Code> {
        if bytes == 0 {
            return Ok(());
        }
        if self.memory.heap_around(start).is_some() {
            let what = "memory that kernels allocate is not for the host";
            self.sink.host(call, &format!("{call} {verb} {bytes} bytes at {start:#x}: {what}"));
            return Err(INVALID_VALUE);
        }
        match self.memory.bounds(start, bytes) {
            Ok(_) => Ok(()),
            Err(invalid) => {
                self.sink.host(call, &format!("{call} {verb} {bytes} bytes at {start:#x}: {}", invalid.detail));
                Err(INVALID_VALUE)
            }
        }
    }

    /// Frees device memory at once.
    pub fn free_now(&mut self, start: u64) -> Result<(), Code> {
        if start == 0 {
            return Ok(());
        }
        match self.memory.free(start) {
            Ok(allocation) => {
                if let Some(device) = self.devices.get_mut(allocation.device as usize) {
                    device.used = device.used.saturating_sub(allocation.bytes);
                }
                Ok(())
            }
            Err(FreeError::Twice(what)) => {
                self.sink.host("cuMemFree", &format!("double free of {start:#x}: {what}"));
                Err(INVALID_VALUE)
            }
            Err(FreeError::Unknown(what)) => {
                self.sink.host("cuMemFree", &format!("free of {start:#x}, where no allocation begins: {what}"));
                Err(INVALID_VALUE)
            }
        }
    }
}
