//! Checks and counts of one block, fed by its instructions.

use super::race::{Conflict, GlobalCells, SharedCells, Touch, touch_range};
use super::report::Spot;
use super::stamp::{Clock, Who, key};
use crate::count::access::AccessCounts;
use crate::driver::config::Checks;
use crate::exec::launch::Launch;
use crate::exec::observe::Seen;
use crate::exec::op::{LANES, Mask};
use crate::exec::program::AccessKind;
use crate::exec::site::{FIRST_OFFSET, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_SIZE};
use crate::ptx::Space;

/// What is remembered of a block while it runs.
pub struct BlockChecks {
    pub(super) checks: Checks,
    pub(super) number: u64,
    pub(super) clock: Clock,
    pub(super) cells: SharedCells,
    /// Asynchronous copies on their way to each word of shared memory, and which instruction started the last.
    pub(super) in_flight: Vec<(u16, u32)>,
    /// How many words these are.
    pub(super) flying: u32,
    /// Whether each byte of shared memory was written.
    pub(super) shared_written: Vec<u8>,
    /// Whether each byte of local memory was written, lane after lane, warp after warp.
    local_written: Vec<u8>,
    counts: Option<AccessCounts>,
}

/// Lanes of an access that are in one space, and their addresses there.
struct Part<'a> {
    seen: &'a Seen<'a>,
    mask: Mask,
    /// Subtracted from addresses.
    window: u64,
}

impl Part<'_> {
    fn lanes(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let mut rest = self.mask;
        std::iter::from_fn(move || {
            let lane = rest.trailing_zeros() as usize;
            rest &= rest.wrapping_sub(1);
            (lane < LANES).then(|| (lane, self.seen.addresses[lane].wrapping_sub(self.window)))
        })
    }

    fn thread(&self, lane: usize) -> u32 {
        self.seen.warp * 32 + lane as u32
    }
}

impl<'a> Part<'a> {
    /// The same access by these lanes only.
    fn with(&self, mask: Mask) -> Part<'a> {
        Part { seen: self.seen, mask, window: self.window }
    }

    /// One lane for each group of neighbours that access the same place, and which of these stand for several.
    fn distinct(&self) -> (Part<'a>, Mask) {
        let addresses = self.seen.addresses;
        let (mut mask, mut several) = (self.mask, 0);
        for lane in (0..LANES).rev().filter(|lane| self.mask >> lane & 1 != 0) {
            for distance in [1, 16] {
                if lane >= distance
                    && self.mask >> (lane - distance) & 1 != 0
                    && addresses[lane - distance] == addresses[lane]
                {
                    mask &= !(1 << lane);
                    several |= 1 << (lane - distance);
                    break;
                }
            }
        }
        (self.with(mask), several)
    }
}

/// Whether some byte was not written, given a 1 for each that was.
#[inline]
fn has_unwritten(written: &[u8]) -> bool {
    match written {
        [a, b, c, d] => a & b & c & d == 0,
        _ => written.iter().fold(1, |all, byte| all & byte) == 0,
    }
}

impl BlockChecks {
    /// For blocks of a launch.
    pub fn new(launch: &Launch) -> Self {
        Self {
            checks: launch.sink.checks(),
            number: 0,
            clock: Clock::new(0, 0),
            cells: SharedCells::default(),
            in_flight: vec![],
            flying: 0,
            shared_written: vec![],
            local_written: vec![],
            counts: launch.counters.map(|_| AccessCounts::default()),
        }
    }

    /// Begins a block.
    pub fn start(&mut self, launch: &Launch, number: u64) {
        let warps = launch.threads().div_ceil(32) as usize;
        let shared = launch.shared_end() as usize;
        self.number = number;
        self.clock = Clock::new(key(launch.id, number), warps);
        if self.checks.race {
            self.cells.reserve(shared);
            self.in_flight.clear();
            self.flying = 0;
            self.in_flight.resize(shared / 4 + 1, (0, 0));
        }
        if self.checks.init {
            self.shared_written.clear();
            self.shared_written.resize(shared, 0);
            self.local_written.clear();
            self.local_written.resize(launch.program.local_bytes as usize * LANES * warps, 0);
        }
    }

    /// An access was made.
    pub fn accessed(&mut self, launch: &Launch, seen: &Seen, stored: Option<&[u32; LANES]>) {
        let whole = |window| Part { seen, mask: seen.mask, window };
        match seen.site.space {
            Space::Shared => self.shared(launch, &whole(0), stored),
            Space::Local => self.local(launch, &whole(u64::from(FIRST_OFFSET))),
            Space::Global | Space::Const => self.global(launch, &whole(0), stored),
            Space::Generic | Space::Param => {
                let within = |window: u64| {
                    (0..LANES)
                        .filter(|lane| (window..window + WINDOW_SIZE).contains(&seen.addresses[*lane]))
                        .fold(0, |mask: Mask, lane| mask | 1 << lane)
                        & seen.mask
                };
                let (shared, local, param) = (within(SHARED_WINDOW), within(LOCAL_WINDOW), within(PARAM_WINDOW));
                if shared != 0 {
                    self.shared(launch, &Part { seen, mask: shared, window: SHARED_WINDOW }, stored);
                }
                if local != 0 {
                    let window = LOCAL_WINDOW + u64::from(FIRST_OFFSET);
                    self.local(launch, &Part { seen, mask: local, window });
                }
                let rest = seen.mask & !shared & !local & !param;
                if rest != 0 {
                    self.global(launch, &Part { seen, mask: rest, window: 0 }, stored);
                }
            }
        }
    }

    fn touch_of(seen: &Seen) -> Touch {
        use AccessKind::*;
        let write = matches!(seen.site.access, Store | StrongStore | Atomic | MatrixStore);
        let strong = matches!(seen.site.access, StrongLoad | StrongStore | Atomic);
        Touch { write, strong, origin: seen.site.origin }
    }

    fn reads(seen: &Seen) -> bool {
        !matches!(seen.site.access, AccessKind::Store | AccessKind::StrongStore | AccessKind::MatrixStore)
    }

    fn shared(&mut self, launch: &Launch, part: &Part, stored: Option<&[u32; LANES]>) {
        let bytes = part.seen.bytes;
        if let Some(counts) = &mut self.counts {
            counts.shared(launch.program, part.seen, part.mask);
        }
        // What an asynchronous copy writes is noted when it starts and when it lands.
        if part.seen.site.access == AccessKind::AsyncCopy {
            return;
        }
        // Lanes that read what a neighbour reads too add nothing but that they are several.
        let touch = Self::touch_of(part.seen);
        let (part, several) = if touch.write || touch.strong { (part.with(part.mask), 0) } else { part.distinct() };
        if self.checks.init {
            for (lane, address) in part.lanes() {
                let Some(written) =
                    self.shared_written.get_mut(address as usize..(address + u64::from(bytes)) as usize)
                else {
                    continue;
                };
                // An atomic on what was never written reads it.
                let unwritten = Self::reads(part.seen) && has_unwritten(written);
                if touch.write {
                    written.fill(1);
                }
                if unwritten {
                    self.uninitialised(launch, &part, lane, address);
                }
            }
        }
        if self.checks.race && self.clock.is_running() {
            self.shared_races(launch, &part, several, stored);
        }
    }

    fn shared_races(&mut self, launch: &Launch, part: &Part, several: Mask, stored: Option<&[u32; LANES]>) {
        let bytes = part.seen.bytes;
        let touch = Self::touch_of(part.seen);
        for (lane, address) in part.lanes() {
            let thread = part.thread(lane);
            if self.flying > 0 {
                for word in address / 4..(address + u64::from(bytes)).div_ceil(4) {
                    let (copies, origin) = self.in_flight[word as usize];
                    if copies > 0 {
                        self.copy_race(launch, part, lane, address, origin);
                    }
                }
            }
            let who = if several >> lane & 1 != 0 { Who::Warp } else { Who::Thread };
            let conflict = touch_range(&mut self.cells, &self.clock, thread, who, touch, address, bytes);
            if let Some((at, conflict)) = conflict
                && !self.same_store(part, lane, &conflict, touch, stored)
            {
                self.race(launch, part, lane, at, &conflict, "shared");
            }
        }
    }

    /// Lanes that store the same value to one place in one instruction do no harm.
    fn same_store(
        &self,
        part: &Part,
        lane: usize,
        conflict: &Conflict,
        touch: Touch,
        stored: Option<&[u32; LANES]>,
    ) -> bool {
        let other = conflict.stamp.thread();
        let same_instruction = conflict.wrote
            && touch.write
            && conflict.origin == touch.origin
            && other / 32 == part.seen.warp
            && part.mask >> (other % 32) & 1 != 0
            && part.seen.addresses[other as usize % 32] == part.seen.addresses[lane];
        same_instruction && stored.is_none_or(|stored| stored[other as usize % 32] == stored[lane])
    }

    fn local(&mut self, launch: &Launch, part: &Part) {
        if let Some(counts) = &mut self.counts {
            counts.local(launch.program, part.seen, part.mask);
        }
        if !self.checks.init {
            return;
        }
        let stride = launch.program.local_bytes as usize;
        for (lane, address) in part.lanes() {
            let start = part.thread(lane) as usize * stride + address as usize;
            let Some(written) = self.local_written.get_mut(start..start + part.seen.bytes as usize) else {
                continue;
            };
            if Self::touch_of(part.seen).write {
                written.fill(1);
            } else if has_unwritten(written) {
                self.uninitialised(launch, part, lane, address);
            }
        }
    }

    /// A call passed arguments or results through this part of local memory.
    pub fn local_passed(&mut self, launch: &Launch, thread: u32, offset: u32, bytes: u32) {
        let start = thread as usize * launch.program.local_bytes as usize + offset as usize;
        if let Some(written) = self.local_written.get_mut(start..start + bytes as usize) {
            written.fill(1);
        }
    }

    fn global(&mut self, launch: &Launch, part: &Part, stored: Option<&[u32; LANES]>) {
        let bytes = part.seen.bytes;
        if let Some(counts) = &mut self.counts {
            counts.global(launch.program, part.seen, part.mask);
        }
        if part.seen.site.space == Space::Const {
            return;
        }
        let touch = Self::touch_of(part.seen);
        if self.checks.init {
            for (lane, address) in part.lanes() {
                let Some(written) = launch.memory.shadow().written(address) else {
                    continue;
                };
                // SAFETY: the access was found inside an allocation, for which there is shadow. Blocks that write the
                // same byte at once both write 1.
                let written = unsafe { std::slice::from_raw_parts_mut(written, bytes as usize) };
                if Self::reads(part.seen) && has_unwritten(written) {
                    self.uninitialised(launch, part, lane, address);
                }
                if touch.write {
                    written.fill(1);
                }
            }
        }
        if !self.checks.race || !self.clock.is_running() {
            return;
        }
        if touch.strong {
            self.meet(launch, part, touch);
        }
        let mut cells = GlobalCells { shadow: launch.memory.shadow() };
        for (lane, address) in part.lanes() {
            let thread = part.thread(lane);
            let conflict = touch_range(&mut cells, &self.clock, thread, Who::Thread, touch, address, bytes);
            if let Some((at, conflict)) = conflict
                && !self.same_store(part, lane, &conflict, touch, stored)
            {
                self.race(launch, part, lane, at, &conflict, "global");
            }
        }
    }

    /// Blocks meet through atomics: what one did before happens before what the other does afterwards.
    fn meet(&mut self, launch: &Launch, part: &Part, touch: Touch) {
        let mut released = launch.released();
        for (_, address) in part.lanes() {
            let place = released.entry(address).or_default();
            self.clock.acquire(place);
            if touch.write {
                for (block, time) in self.clock.release() {
                    let known = place.entry(block).or_default();
                    *known = (*known).max(time);
                }
            }
        }
    }

    fn spot(&self, part: &Part, lane: usize) -> Spot {
        Spot { origin: part.seen.site.origin, block: self.number, thread: part.thread(lane) }
    }

    #[cold]
    fn uninitialised(&self, launch: &Launch, part: &Part, lane: usize, address: u64) {
        let (bytes, space) = (part.seen.bytes, part.seen.site.space);
        launch.sink.found(
            launch,
            "init",
            || format!("reads {bytes} bytes at {address:#x} in {space} memory that nothing wrote"),
            &self.spot(part, lane),
            None,
            || place_of(launch, part, address),
        );
    }

    #[cold]
    fn race(&self, launch: &Launch, part: &Part, lane: usize, address: u64, conflict: &Conflict, space: &str) {
        let verb = |write| if write { "writes" } else { "reads" };
        let now = Self::touch_of(part.seen);
        let other = Spot { origin: conflict.origin, block: conflict.stamp.block(), thread: conflict.stamp.thread() };
        launch.sink.found(
            launch,
            "race",
            || {
                format!(
                    "race at {address:#x} in {space} memory: {} what another thread {} meanwhile",
                    verb(now.write),
                    verb(conflict.wrote)
                )
            },
            &self.spot(part, lane),
            Some((&other, if conflict.wrote { "written by" } else { "read by" })),
            || place_of(launch, part, address),
        );
    }

    #[cold]
    fn copy_race(&self, launch: &Launch, part: &Part, lane: usize, address: u64, origin: u32) {
        let mut other = self.spot(part, lane);
        other.origin = origin;
        launch.sink.found(
            launch,
            "race",
            || format!("accesses {address:#x} in shared memory while an asynchronous copy to it is under way"),
            &self.spot(part, lane),
            Some((&other, "the copy was started by")),
            || place_of(launch, part, address),
        );
    }

    /// All threads have ended.
    pub fn block_ended(&mut self, launch: &Launch) {
        if let (Some(counts), Some(counters)) = (&mut self.counts, launch.counters) {
            let mut counters = counters.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            counters.add_accesses(launch.program, counts);
            counts.clear();
        }
    }
}

/// The variable or allocation that an address lies in.
fn place_of(launch: &Launch, part: &Part, address: u64) -> Vec<String> {
    match part.seen.site.space {
        Space::Local => vec![],
        Space::Shared => in_shared(launch, address),
        Space::Generic if part.window == SHARED_WINDOW => in_shared(launch, address),
        _ => launch.memory.find(address).map_or_else(Vec::new, |allocation| {
            vec![format!("{} bytes inside {}", address - allocation.start, allocation.describe())]
        }),
    }
}

fn in_shared(launch: &Launch, address: u64) -> Vec<String> {
    let layout = &launch.program.shared;
    let holds = |start: u32, end: u32| (u64::from(start)..u64::from(end)).contains(&address);
    if let Some(variable) = layout.variables.iter().find(|variable| holds(variable.start, variable.end)) {
        let (offset, size) = (address - u64::from(variable.start), variable.end - variable.start);
        return vec![format!("byte {offset} of {} ({size} bytes)", variable.name)];
    }
    let offset = address.wrapping_sub(u64::from(layout.dynamic_start));
    vec![format!("byte {offset} of dynamic shared memory ({} bytes)", launch.dynamic_shared)]
}
