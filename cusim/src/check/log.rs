//! Findings that do not depend on chance although blocks run in parallel.
//!
//! What a block does to device memory is written down while it runs, and looked at when its turn comes: one block after
//! the other, in the launch's order, as if they had run so. That takes kernels without atomics and the like on device
//! memory, whose blocks cannot wait for each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::part::lanes_after;
use super::report::Finding;
use super::stamp::{Clock, key};
use crate::machine::access::Seen;
use crate::machine::grid::Grid;
use crate::machine::{LANES, Mask};

/// A block with this many entries waits for its turn, so that logs do not fill the memory.
const MAX_ENTRIES: usize = 1 << 16;

/// So many finished blocks may wait for one before them.
const MAX_READY: usize = 64;

/// Something that happened in a block.
pub(super) enum Entry {
    /// An access to device memory.
    Access(Access),
    /// All threads met.
    Barrier,
    /// Warps met: those that arrived, those that waited.
    PartialBarrier(u32, u32),
    /// A warp came to a barrier without waiting.
    Announce(u32),
    /// A warp's lanes met.
    WarpBarrier(u32),
    /// A warp acquired at a place in shared memory.
    AcquireFrom(u32, u64),
    /// A warp released there.
    ReleaseTo(u32, u64),
    /// A check of the block alone found something.
    Found(Box<Finding>),
}

/// An access to device memory.
pub(super) struct Access {
    /// Number of the memory instruction.
    pub(super) index: u32,
    pub(super) warp: u32,
    pub(super) mask: Mask,
    pub(super) bytes: u32,
    pub(super) addresses: Addresses,
    /// Where to find which lanes store the same, if that matters.
    pub(super) stored: Option<u32>,
}

/// Where lanes access.
pub(super) enum Addresses {
    /// In rows of so many lanes, a power of two: how far apart lanes of a row and rows are.
    Rows { first: u64, step: u64, width: u32, jump: u64 },
    /// A place in [`Log::addresses`].
    Any(u32),
}

impl Addresses {
    /// These addresses as rows, if they are that: products of matrices read so.
    fn rows(all: &[u64; LANES]) -> Option<Self> {
        let (first, step) = (all[0], all[1].wrapping_sub(all[0]));
        // SAFETY: checks run only where the processor has AVX2.
        let breaks = !unsafe { lanes_after(all, 1, step) } & !1;
        let width = match breaks {
            0 => 32,
            0x1_0000 => 16,
            _ if breaks & !0x0101_0100 == 0 => 8,
            _ => return None,
        };
        let jump = all[width % LANES].wrapping_sub(first);
        let even = (1..LANES / width).all(|row| all[row * width].wrapping_sub(all[(row - 1) * width]) == jump);
        even.then_some(Self::Rows { first, step, width: width as u32, jump })
    }

    /// All lanes' addresses.
    pub(super) fn all(&self, listed: &[[u64; LANES]]) -> [u64; LANES] {
        match *self {
            Self::Any(index) => listed[index as usize],
            Self::Rows { first, step, width, jump } => std::array::from_fn(|lane| {
                let (row, column) = (lane as u64 >> width.trailing_zeros(), lane as u64 & u64::from(width - 1));
                first.wrapping_add(row.wrapping_mul(jump)).wrapping_add(column.wrapping_mul(step))
            }),
        }
    }
}

/// What a block did to device memory, and what else was found in it.
#[derive(Default)]
pub struct Log {
    pub(super) entries: Vec<Entry>,
    pub(super) addresses: Vec<[u64; LANES]>,
    pub(super) stored: Vec<[u32; LANES]>,
}

impl Log {
    /// An access by these lanes.
    pub fn access(&mut self, seen: &Seen, mask: Mask, stored: Option<&[u32; LANES]>) {
        let addresses = Addresses::rows(seen.addresses).unwrap_or_else(|| {
            self.addresses.push(*seen.addresses);
            Addresses::Any(self.addresses.len() as u32 - 1)
        });
        let stored = stored.map(|stored| {
            self.stored.push(*stored);
            self.stored.len() as u32 - 1
        });
        let Seen { index, warp, bytes, .. } = *seen;
        self.entries.push(Entry::Access(Access { index, warp, mask, bytes, addresses, stored }));
    }

    /// All threads met.
    pub fn barrier(&mut self) {
        self.entries.push(Entry::Barrier);
    }

    /// Warps met.
    pub fn partial_barrier(&mut self, arrived: u32, waiting: u32) {
        self.entries.push(Entry::PartialBarrier(arrived, waiting));
    }

    /// A warp came to a barrier without waiting.
    pub fn announce(&mut self, warp: usize) {
        self.entries.push(Entry::Announce(warp as u32));
    }

    /// A warp's lanes met.
    pub fn warp_barrier(&mut self, warp: u32) {
        self.entries.push(Entry::WarpBarrier(warp));
    }

    /// A warp acquired at a place in shared memory.
    pub fn acquire_from(&mut self, warp: u32, address: u64) {
        self.entries.push(Entry::AcquireFrom(warp, address));
    }

    /// A warp released at a place in shared memory.
    pub fn release_to(&mut self, warp: u32, address: u64) {
        self.entries.push(Entry::ReleaseTo(warp, address));
    }

    /// A check of the block alone found something.
    pub fn found(&mut self, finding: Finding) {
        let known = |entry: &Entry| matches!(entry, Entry::Found(known) if known.repeats(&finding));
        if !self.entries.iter().any(known) {
            self.entries.push(Entry::Found(Box::new(finding)));
        }
    }

    /// Whether it should be looked at before the block goes on.
    pub fn is_long(&self) -> bool {
        self.entries.len() >= MAX_ENTRIES
    }
}

/// A block's log, and as far as it was looked at, the block's time.
pub struct Pending {
    pub(super) log: Log,
    pub(super) block: u64,
    pub(super) clock: Clock,
    /// Whether the block met a fault: nothing after it counts.
    last: bool,
}

impl Pending {
    /// For a block that begins.
    pub fn new(grid: &Grid, block: u64) -> Self {
        Self { log: Log::default(), block, clock: Clock::new(key(grid.id, block), grid.warps()), last: false }
    }

    /// What the block writes down.
    pub fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Marks the block as the last that counts.
    pub fn ends_launch(&mut self) {
        self.last = true;
    }
}

/// Brings the logs of a launch's blocks into order.
#[derive(Default)]
pub struct Turns {
    in_parallel: AtomicBool,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// The block whose turn it is, counted in the launch's order.
    next: u64,
    /// Blocks that have ended, and wait.
    ready: BTreeMap<u64, Pending>,
    /// Whether some thread looks at logs.
    busy: bool,
    /// Whether the launch ended with the block before.
    closed: bool,
}

impl Turns {
    /// Blocks run in parallel: they are to write logs.
    pub fn run_in_parallel(&self) {
        self.in_parallel.store(true, Ordering::Relaxed);
    }

    /// Whether blocks are to write logs.
    pub fn are_needed(&self) -> bool {
        self.in_parallel.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.moved.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of a block that still runs, then has its log so far looked at.
    pub fn await_turn(&self, turn: u64, pending: &mut Pending, replay: impl FnOnce(&mut Pending)) {
        let mut state = self.state();
        while !state.closed && (state.next != turn || state.busy) {
            state = self.wait(state);
        }
        let closed = state.closed;
        drop(state);
        // The turn stays with this block until it ends, so no other thread looks at logs meanwhile.
        if closed {
            pending.log = Log::default();
        } else {
            replay(pending);
        }
    }

    /// A block has ended: has all logs looked at whose turn has come.
    pub fn ended(&self, turn: u64, pending: Pending, replay: impl Fn(&mut Pending)) {
        let mut state = self.state();
        while !state.closed && state.next != turn && state.ready.len() >= MAX_READY {
            state = self.wait(state);
        }
        state.ready.insert(turn, pending);
        if state.busy {
            return;
        }
        state.busy = true;
        while !state.closed {
            let turn = state.next;
            let Some(mut pending) = state.ready.remove(&turn) else {
                break;
            };
            drop(state);
            replay(&mut pending);
            state = self.state();
            state.next += 1;
            state.closed |= pending.last;
            self.moved.notify_all();
        }
        state.busy = false;
        self.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_rows_come_back() {
        let rows = |width: usize, step: u64, jump: u64| -> [u64; LANES] {
            std::array::from_fn(|lane| {
                let (row, column) = ((lane / width) as u64, (lane % width) as u64);
                4096u64.wrapping_add(column.wrapping_mul(step)).wrapping_add(row.wrapping_mul(jump))
            })
        };
        for width in [8, 16, 32] {
            for (step, jump) in [(0, 0), (4, 0), (0, 1024), (4, 64), (4, 1024), (u64::MAX - 3, 8), (8, u64::MAX - 7)] {
                let all = rows(width, step, jump);
                let noted = Addresses::rows(&all).unwrap_or_else(|| panic!("{width} lanes, {step} and {jump}"));
                assert_eq!(noted.all(&[]), all);
            }
        }
        for odd in [5, 8, 16, 31] {
            let mut all = rows(8, 4, 32);
            all[odd] += 4;
            assert!(Addresses::rows(&all).is_none_or(|noted| noted.all(&[]) == all), "lane {odd}");
        }
        assert!(Addresses::rows(&rows(4, 4, 100)).is_none());
    }
}
