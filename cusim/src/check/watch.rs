//! What execution tells of a launch: where the sanitizer's findings go, and the counts.

use std::sync::{Arc, Mutex, PoisonError};

use super::Checks;
use super::log::Turns;
use super::meetings::Meetings;
use super::report::Sink;
use crate::count::access::AccessCounts;
use crate::count::touched::Touched;
use crate::count::{Counting, Kernels};
use crate::machine::grid::Grid;
use crate::machine::listing::Executed;
use crate::mem::Memory;

/// Watches a launch.
pub struct Watch<'a> {
    /// What runs.
    pub grid: &'a Grid<'a>,
    /// Device memory.
    pub memory: &'a Memory,
    /// Where reports go.
    pub sink: &'a Sink,
    /// Where counts go.
    pub counting: Option<Counting<'a>>,
    /// What was touched of device memory, where that is counted.
    pub touched: Touched,
    /// Accesses of the blocks that have ended, where these are counted.
    accesses: Mutex<AccessCounts>,
    /// Whose turn it is to have its accesses to device memory checked.
    pub turns: Turns,
    /// Where blocks met through atomics.
    pub(super) meetings: Arc<Meetings>,
}

impl<'a> Watch<'a> {
    /// Of a launch, of whose blocks `wave` run at a time as far as counts go.
    pub fn new(grid: &'a Grid, memory: &'a Memory, sink: &'a Sink, counting: Option<Counting<'a>>, wave: u64) -> Self {
        let touched = Touched::new(grid.blocks(), wave);
        let accesses = Mutex::default();
        Self { grid, memory, sink, counting, touched, accesses, turns: Turns::default(), meetings: Arc::default() }
    }

    /// Whether memory accesses have to be shown.
    pub fn is_needed(&self) -> bool {
        self.sink.watches() || self.counting.is_some()
    }

    /// The checks that are on.
    pub fn checks(&self) -> Checks {
        self.sink.checks()
    }

    /// Whether instructions are counted.
    pub fn counts(&self) -> bool {
        self.counting.is_some()
    }

    /// Changes the counts, if there are any.
    pub(super) fn count(&self, change: impl FnOnce(&mut Kernels)) {
        if let Some(counting) = &self.counting {
            counting.change(change);
        }
    }

    /// A thread has run its blocks: how often it executed each instruction, which came from these PTX instructions.
    pub fn executed(&self, origins: impl Iterator<Item = u32>, executed: &[Executed]) {
        self.count(|kernels| kernels.add_executed(self.grid.listing, origins, executed));
    }

    /// A block has ended: what it accessed.
    pub(super) fn accessed(&self, counts: &AccessCounts) {
        self.accesses.lock().unwrap_or_else(PoisonError::into_inner).add(counts);
    }

    /// All blocks have ended.
    pub fn ended(&self) {
        let accesses = self.accesses.lock().unwrap_or_else(PoisonError::into_inner);
        self.count(|kernels| {
            kernels.add_accesses(self.grid.listing, &accesses);
            kernels.add_touched(&self.grid.listing.name, &self.touched);
        });
    }
}
