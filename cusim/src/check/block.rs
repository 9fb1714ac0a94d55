//! Checks and counts of one block, fed by its instructions.

use super::Checks;
use super::global::{GlobalChecks, has_unwritten};
use super::log::Pending;
use super::part::Part;
use super::report::Finding;
use super::shared::SharedCells;
use super::stamp::{Clock, key};
use super::watch::Watch;
use crate::count::access::AccessCounts;
use crate::count::touched::Recent;
use crate::machine::access::{AccessKind, Seen};
use crate::machine::address::{FIRST_OFFSET, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_SIZE};
use crate::machine::{LANES, Mask};
use crate::ptx::Space;

/// What is remembered of a block while it runs.
pub struct BlockChecks {
    pub(super) checks: Checks,
    pub(super) number: u64,
    /// Its place in the order of blocks.
    turn: u64,
    pub(super) clock: Clock,
    pub(super) cells: SharedCells,
    /// What it does to device memory, if blocks run in parallel.
    pub(super) pending: Option<Pending>,
    /// Warps that have waited for the launches before this one, a bit for each.
    pub(super) waited: u32,
    /// Whether each byte of shared memory was written.
    pub(super) shared_written: Vec<u8>,
    /// Whether each byte of local memory was written, lane after lane, warp after warp.
    local_written: Vec<u8>,
    counts: Option<AccessCounts>,
    /// What it touched last of device memory, where that is counted.
    recent: Recent,
}

impl BlockChecks {
    /// For blocks of a launch.
    pub fn new(watch: &Watch) -> Self {
        Self {
            checks: watch.checks(),
            number: 0,
            turn: 0,
            clock: Clock::new(0, 0),
            cells: SharedCells::default(),
            pending: None,
            waited: 0,
            shared_written: vec![],
            local_written: vec![],
            counts: watch.counts().then(AccessCounts::default),
            recent: Recent::default(),
        }
    }

    /// Begins a block, the `turn`-th in order.
    pub fn start(&mut self, watch: &Watch, number: u64, turn: u64) {
        let warps = watch.grid.warps();
        let shared = watch.grid.shared_end() as usize;
        self.number = number;
        self.turn = turn;
        self.waited = 0;
        self.clock = Clock::new(key(watch.grid.id, number), warps);
        self.recent.start(watch.grid.id);
        self.pending = watch.turns.are_needed().then(|| Pending::new(watch.grid, number));
        if self.checks.race {
            self.cells.start(shared);
        }
        if self.checks.init {
            self.shared_written.clear();
            self.shared_written.resize(shared, 0);
            let reserved = watch.grid.listing.shared.reserved.clone();
            self.shared_written[reserved.start as usize..reserved.end as usize].fill(1);
            self.local_written.clear();
            self.local_written.resize(watch.grid.listing.local_bytes as usize * LANES * warps, 0);
        }
    }

    /// Whether it matters when asynchronous copies start and land.
    pub fn follows_copies(&self) -> bool {
        self.checks.race || self.checks.init
    }

    /// Whether races are looked for.
    pub fn looks_for_races(&self) -> bool {
        self.checks.race
    }

    /// An access was made.
    pub fn accessed(&mut self, watch: &Watch, seen: &Seen, stored: Option<&[u32; LANES]>) {
        let whole = |window| Part { seen, mask: seen.mask, window };
        match seen.site.space {
            Space::Shared => self.shared(watch, &whole(0), stored),
            Space::Local => self.local(watch, &whole(u64::from(FIRST_OFFSET))),
            Space::Global | Space::Const => self.global(watch, &whole(0), stored),
            Space::Generic | Space::Param => {
                let within = |window: u64| {
                    (0..LANES)
                        .filter(|lane| (window..window + WINDOW_SIZE).contains(&seen.addresses[*lane]))
                        .fold(0, |mask: Mask, lane| mask | 1 << lane)
                        & seen.mask
                };
                let (shared, local, param) = (within(SHARED_WINDOW), within(LOCAL_WINDOW), within(PARAM_WINDOW));
                if shared != 0 {
                    self.shared(watch, &Part { seen, mask: shared, window: SHARED_WINDOW }, stored);
                }
                if local != 0 {
                    let window = LOCAL_WINDOW + u64::from(FIRST_OFFSET);
                    self.local(watch, &Part { seen, mask: local, window });
                }
                let rest = seen.mask & !shared & !local & !param;
                if rest != 0 {
                    self.global(watch, &Part { seen, mask: rest, window: 0 }, stored);
                }
            }
        }
    }

    /// Reports what was found, or notes it until it is the block's turn.
    pub(super) fn found(&mut self, watch: &Watch, finding: Option<Finding>) {
        match (finding, &mut self.pending) {
            (Some(finding), Some(pending)) => pending.log().found(finding),
            (Some(finding), None) => watch.sink.found(finding),
            (None, _) => {}
        }
    }

    fn shared(&mut self, watch: &Watch, part: &Part, stored: Option<&[u32; LANES]>) {
        if let Some(counts) = &mut self.counts {
            counts.shared(watch.grid.listing, part.seen, part.mask);
        }
        // What an asynchronous copy writes is noted when it starts and when it lands.
        if part.seen.site.access == AccessKind::AsyncCopy || !(self.checks.init || self.checks.race) {
            return;
        }
        // Lanes that read what a neighbour reads too add nothing but that they are several.
        let touch = part.touch();
        let (part, several) = if touch.write || touch.strong { (part.with(part.mask), 0) } else { part.distinct() };
        let bytes = part.seen.bytes;
        if self.checks.init {
            // An atomic on what was never written reads it.
            let reads = part.reads();
            let mut unwritten: Mask = 0;
            for (lane, address) in part.lanes() {
                let range = address as usize..(address + u64::from(bytes)) as usize;
                let Some(written) = self.shared_written.get_mut(range) else {
                    continue;
                };
                unwritten |= Mask::from(reads && has_unwritten(written)) << lane;
                if touch.write {
                    written.fill(1);
                }
            }
            for (lane, _) in part.with(unwritten).lanes() {
                self.found(watch, part.uninitialised(watch, self.number, lane));
            }
        }
        if self.checks.race && self.clock.is_running() {
            if part.seen.site.meets.acquires {
                self.acquire(part.seen.warp, part.lanes().map(|(_, address)| address));
            }
            if self.cells.has_marks() {
                for (lane, address) in part.lanes() {
                    if let Some(copy) = self.cells.copy_under_way(address, bytes) {
                        self.found(watch, part.copy_race(watch, self.number, lane, copy));
                    }
                }
            }
            for conflict in part.note(&mut self.cells, &self.clock, several, stored) {
                self.found(watch, part.race(watch, self.number, conflict, "shared"));
            }
            if part.seen.site.meets.releases {
                self.release(part.seen.warp, part.lanes().map(|(_, address)| address));
            }
        }
    }

    /// A warp learns what others released at these places in shared memory.
    pub fn acquire(&mut self, warp: u32, places: impl Iterator<Item = u64>) {
        if !self.checks.race || !self.clock.is_running() {
            return;
        }
        let mut last = None;
        for address in places.filter(|address| last.replace(*address) != Some(*address)) {
            self.clock.acquire_from(warp, address);
            if let Some(pending) = &mut self.pending {
                pending.log().acquire_from(warp, address);
            }
        }
    }

    /// A warp lets those who acquire at these places know what it did, and what it knows.
    pub fn release(&mut self, warp: u32, places: impl Iterator<Item = u64>) {
        if !self.checks.race || !self.clock.is_running() {
            return;
        }
        let mut last = None;
        for address in places.filter(|address| last.replace(*address) != Some(*address)) {
            self.clock.release_to(warp, address);
            if let Some(pending) = &mut self.pending {
                pending.log().release_to(warp, address);
            }
        }
    }

    fn local(&mut self, watch: &Watch, part: &Part) {
        if let Some(counts) = &mut self.counts {
            counts.local(watch.grid.listing, part.seen, part.mask);
        }
        if !self.checks.init {
            return;
        }
        let stride = watch.grid.listing.local_bytes as usize;
        for (lane, address) in part.lanes() {
            let start = part.thread(lane) as usize * stride + address as usize;
            let Some(written) = self.local_written.get_mut(start..start + part.seen.bytes as usize) else {
                continue;
            };
            if part.touch().write {
                written.fill(1);
            } else if has_unwritten(written) {
                self.found(watch, part.uninitialised(watch, self.number, lane));
            }
        }
    }

    /// A call passed arguments or results through this part of local memory.
    pub fn local_passed(&mut self, watch: &Watch, thread: u32, offset: u32, bytes: u32) {
        let start = thread as usize * watch.grid.listing.local_bytes as usize + offset as usize;
        if let Some(written) = self.local_written.get_mut(start..start + bytes as usize) {
            written.fill(1);
        }
    }

    fn global(&mut self, watch: &Watch, part: &Part, stored: Option<&[u32; LANES]>) {
        if let Some(counts) = &mut self.counts {
            counts.global(watch.grid.listing, part.seen, part.mask);
            self.recent.add(&watch.touched, self.number, part.seen, part.mask);
        }
        if part.seen.site.space == Space::Const || !(self.checks.init || self.checks.race) {
            return;
        }
        if self.checks.race && self.is_ahead(watch, part.seen.warp) {
            self.overlaps(watch, part);
        }
        if let Some(pending) = &mut self.pending {
            pending.log().access(part.seen, part.mask, stored);
            if pending.log().is_long() {
                watch.turns.await_turn(self.turn, pending, |pending| pending.replay(watch));
            }
        } else {
            let checks = GlobalChecks { watch, checks: self.checks, block: self.number };
            checks.accessed(&mut self.clock, part, stored);
        }
    }

    /// All threads have ended, or one met a fault that ends the launch.
    pub fn block_ended(&mut self, watch: &Watch, in_fault: bool) {
        if let Some(counts) = &mut self.counts {
            watch.accessed(counts);
            counts.clear();
        }
        if let Some(mut pending) = self.pending.take() {
            if in_fault {
                pending.ends_launch();
            }
            watch.turns.ended(self.turn, pending, |pending| pending.replay(watch));
        }
    }
}
