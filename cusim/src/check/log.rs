//! Findings that do not depend on chance although blocks run in parallel.
//!
//! What a block does to device memory is written down while it runs, and looked at when its turn comes: one block after
//! the other, in the launch's order, as if they had run so. That takes kernels without atomics and the like on device
//! memory, whose blocks cannot wait for each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::global::GlobalChecks;
use super::part::Part;
use super::report::Finding;
use super::stamp::{Clock, key};
use crate::check::Checks;
use crate::exec::launch::Launch;
use crate::machine::access::Seen;
use crate::machine::{LANES, Mask};

/// A block with this many entries waits for its turn, so that logs do not fill the memory.
const MAX_ENTRIES: usize = 1 << 16;

/// So many finished blocks may wait for one before them.
const MAX_READY: usize = 64;

/// Something that happened in a block.
enum Entry {
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
    /// A check of the block alone found something.
    Found(Box<Finding>),
}

struct Access {
    /// Number of the memory instruction.
    index: u32,
    warp: u32,
    mask: Mask,
    bytes: u32,
    addresses: Addresses,
    /// Where to find which lanes store the same, if that matters.
    stored: Option<u32>,
}

enum Addresses {
    /// At a distance from each other.
    Even { first: u64, step: u64 },
    /// A place in [`Log::addresses`].
    Any(u32),
}

/// What a block did to device memory, and what else was found in it.
#[derive(Default)]
pub struct Log {
    entries: Vec<Entry>,
    addresses: Vec<[u64; LANES]>,
    stored: Vec<[u32; LANES]>,
}

impl Log {
    /// An access by these lanes.
    pub fn access(&mut self, part: &Part, stored: Option<&[u32; LANES]>) {
        let all = part.seen.addresses;
        let (first, step) = (all[0], all[1].wrapping_sub(all[0]));
        let mut uneven = 0;
        for lane in 0..LANES {
            uneven |= all[lane] ^ first.wrapping_add((lane as u64).wrapping_mul(step));
        }
        let addresses = if uneven == 0 {
            Addresses::Even { first, step }
        } else {
            self.addresses.push(*all);
            Addresses::Any(self.addresses.len() as u32 - 1)
        };
        let stored = stored.map(|stored| {
            self.stored.push(*stored);
            self.stored.len() as u32 - 1
        });
        let Seen { index, warp, bytes, .. } = *part.seen;
        self.entries.push(Entry::Access(Access { index, warp, mask: part.mask, bytes, addresses, stored }));
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

    /// Looks at everything, in order.
    fn replay(self, checks: &GlobalChecks, clock: &mut Clock) {
        let program = checks.launch.program;
        for entry in self.entries {
            match entry {
                Entry::Access(access) => {
                    let addresses = match access.addresses {
                        Addresses::Even { first, step } => {
                            std::array::from_fn(|lane| first.wrapping_add((lane as u64).wrapping_mul(step)))
                        }
                        Addresses::Any(index) => self.addresses[index as usize],
                    };
                    let Access { index, warp, mask, bytes, .. } = access;
                    let site = &program.sites[index as usize];
                    let seen = Seen { site, index, warp, mask, addresses: &addresses, bytes };
                    let stored = access.stored.map(|index| &self.stored[index as usize]);
                    checks.accessed(clock, &Part { seen: &seen, mask, window: 0 }, stored);
                }
                Entry::Barrier => clock.barrier(),
                Entry::PartialBarrier(arrived, waiting) => clock.partial_barrier(arrived, waiting),
                Entry::Announce(warp) => clock.announce(warp as usize),
                Entry::WarpBarrier(warp) => clock.warp_barrier(warp),
                Entry::Found(finding) => checks.launch.sink.found(*finding),
            }
        }
    }
}

/// A block's log, and as far as it was looked at, the block's time.
pub struct Pending {
    log: Log,
    block: u64,
    clock: Clock,
    checks: Checks,
    /// Whether the block met a fault: nothing after it counts.
    last: bool,
}

impl Pending {
    /// For a block that begins.
    pub fn new(launch: &Launch, block: u64) -> Self {
        let clock = Clock::new(key(launch.id, block), launch.threads().div_ceil(32) as usize);
        Self { log: Log::default(), block, clock, checks: launch.sink.checks(), last: false }
    }

    /// What the block writes down.
    pub fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Marks the block as the last that counts.
    pub fn ends_launch(&mut self) {
        self.last = true;
    }

    fn replay(&mut self, launch: &Launch) {
        let checks = GlobalChecks { launch, checks: self.checks, block: self.block };
        std::mem::take(&mut self.log).replay(&checks, &mut self.clock);
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

    /// Waits for the turn of a block that still runs, then looks at its log so far.
    pub fn await_turn(&self, launch: &Launch, turn: u64, pending: &mut Pending) {
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
            pending.replay(launch);
        }
    }

    /// A block has ended: looks at all logs whose turn has come.
    pub fn ended(&self, launch: &Launch, turn: u64, pending: Pending) {
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
            pending.replay(launch);
            state = self.state();
            state.next += 1;
            state.closed |= pending.last;
            self.moved.notify_all();
        }
        state.busy = false;
        self.moved.notify_all();
    }
}
