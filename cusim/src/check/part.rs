//! A warp's access as the checks see it: lane by lane, or four words at once.

use std::arch::x86_64::{
    _mm256_castsi256_pd, _mm256_cmpeq_epi64, _mm256_loadu_si256, _mm256_movemask_pd, _mm256_set1_epi64x,
    _mm256_sub_epi64,
};

use super::race::{Cells, Conflict, Touch, touch_range};
use super::report::{Finding, Spot};
use super::stamp::Clock;
use super::watch::Watch;
use crate::machine::access::{AccessKind, Seen};
use crate::machine::address::SHARED_WINDOW;
use crate::machine::grid::Grid;
use crate::machine::names::readable;
use crate::machine::{LANES, Mask};
use crate::ptx::Space;

/// Lanes of an access that are in one space, and their addresses there.
pub struct Part<'a> {
    /// The access.
    pub seen: &'a Seen<'a>,
    /// The lanes.
    pub mask: Mask,
    /// Subtracted from addresses.
    pub window: u64,
}

/// Lanes whose address is that of the lane so many places before plus `step`.
#[target_feature(enable = "avx2")]
pub(super) fn lanes_after(addresses: &[u64; LANES], distance: usize, step: u64) -> Mask {
    let mut mask = 0;
    let steps = _mm256_set1_epi64x(step as i64);
    let mut lane = distance;
    while lane + 4 <= LANES {
        // SAFETY: the four lanes from here on and those before them are within the array.
        let (here, before) = unsafe {
            let at = addresses.as_ptr().add(lane);
            (_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.sub(distance).cast()))
        };
        let equal = _mm256_cmpeq_epi64(_mm256_sub_epi64(here, before), steps);
        mask |= (_mm256_movemask_pd(_mm256_castsi256_pd(equal)) as Mask) << lane;
        lane += 4;
    }
    for lane in lane..LANES {
        let equal = addresses[lane].wrapping_sub(addresses[lane - distance]);
        mask |= Mask::from(equal == step) << lane;
    }
    mask
}

impl<'a> Part<'a> {
    /// The lanes and their addresses.
    pub fn lanes(&self) -> impl Iterator<Item = (usize, u64)> + use<'a> {
        let (mut rest, addresses, window) = (self.mask, self.seen.addresses, self.window);
        std::iter::from_fn(move || {
            let lane = rest.trailing_zeros() as usize;
            rest &= rest.wrapping_sub(1);
            (lane < LANES).then(|| (lane, addresses[lane].wrapping_sub(window)))
        })
    }

    /// Number of a lane's thread.
    pub fn thread(&self, lane: usize) -> u32 {
        self.seen.warp * 32 + lane as u32
    }

    /// The same access by these lanes only.
    pub fn with(&self, mask: Mask) -> Part<'a> {
        Part { seen: self.seen, mask, window: self.window }
    }

    /// One lane for each group of neighbours that access the same place, and which of these stand for several.
    pub fn distinct(&self) -> (Part<'a>, Mask) {
        let addresses = self.seen.addresses;
        // SAFETY: checks run only where the processor has AVX2.
        let (near, far) = unsafe { (lanes_after(addresses, 1, 0), lanes_after(addresses, 16, 0)) };
        let near = near & self.mask & self.mask << 1;
        let far = far & self.mask & self.mask << 16 & !near;
        (self.with(self.mask & !near & !far), near >> 1 | far >> 16)
    }

    /// How many lanes on there is one that accesses the same place, for a lane that stands for several.
    fn twin(&self, lane: usize, several: Mask) -> Option<u32> {
        let is_next =
            |next: usize| self.seen.mask >> next & 1 != 0 && self.seen.addresses[next] == self.seen.addresses[lane];
        (several >> lane & 1 != 0).then(|| if lane + 1 < LANES && is_next(lane + 1) { 1 } else { 16 })
    }

    /// How it accesses its places.
    pub fn touch(&self) -> Touch {
        use AccessKind::*;
        let write = matches!(self.seen.site.access, Store | StrongStore | Atomic | MatrixStore);
        let strong = matches!(self.seen.site.access, StrongLoad | StrongStore | Atomic);
        Touch { write, strong, origin: self.seen.site.origin }
    }

    /// Whether it reads.
    pub fn reads(&self) -> bool {
        !matches!(self.seen.site.access, AccessKind::Store | AccessKind::StrongStore | AccessKind::MatrixStore)
    }

    /// Notes the access in `cells`; what it races with, lane by lane. Lanes in `several` stand for others too.
    pub fn note(
        &self,
        cells: &mut impl Cells,
        clock: &Clock,
        several: Mask,
        stored: Option<&[u32; LANES]>,
    ) -> Vec<(usize, u64, Conflict)> {
        let touch = self.touch();
        let bytes = self.seen.bytes;
        let mut found = vec![];
        let mut rest = self.mask;
        if !touch.strong && (4..=16).contains(&bytes) {
            // SAFETY: checks run only where the processor has AVX2.
            rest = unsafe { self.note_fours(cells, clock, several, touch) };
        }
        for (lane, address) in self.with(rest).lanes() {
            let thread = self.thread(lane);
            let also = self.twin(lane, several).map(|distance| thread + distance);
            let conflict = touch_range(cells, clock, thread, also, touch, address, bytes);
            if let Some((at, conflict)) = conflict
                && !self.same_store(lane, &conflict, touch, stored)
            {
                found.push((lane, at, conflict));
            }
        }
        found
    }

    /// Notes what lanes access in groups of four words that follow each other; the lanes that are left.
    #[target_feature(enable = "avx2")]
    fn note_fours(&self, cells: &mut impl Cells, clock: &Clock, several: Mask, touch: Touch) -> Mask {
        let bytes = self.seen.bytes;
        // Lanes that fill a group of four words, and their words.
        let (width, words) = match bytes {
            16 => (1, [0; 4]),
            8 => (2, [0, 0, 1, 1]),
            _ => (4, [0, 1, 2, 3]),
        };
        let mut starts = self.mask;
        if width > 1 {
            let follows = lanes_after(self.seen.addresses, 1, u64::from(bytes)) & self.mask & self.mask << 1;
            // All lanes of a group stand for one thread, or all for several.
            let follows = follows & !(several ^ several << 1);
            starts &= follows >> 1;
            if width == 4 {
                starts &= follows >> 2 & follows >> 3;
            }
        }
        let mut rest = self.mask;
        let group: Mask = (1 << width) - 1;
        while starts != 0 {
            let lane = starts.trailing_zeros() as usize;
            let lanes = group << lane;
            let address = self.seen.addresses[lane].wrapping_sub(self.window);
            let threads = words.map(|word| self.thread(lane + word));
            let also = self.twin(lane, several);
            // SAFETY: the processor has AVX2, and the access was found to lie inside memory that has cells.
            if unsafe { cells.touch_four(address, clock, threads, also, touch) } {
                rest &= !lanes;
            }
            starts &= !lanes;
        }
        rest
    }

    /// Lanes that store the same value to one place in one instruction do no harm.
    fn same_store(&self, lane: usize, conflict: &Conflict, touch: Touch, stored: Option<&[u32; LANES]>) -> bool {
        let other = conflict.thread;
        let same_instruction = conflict.wrote
            && touch.write
            && conflict.origin == touch.origin
            && other / 32 == self.seen.warp
            && self.mask >> (other % 32) & 1 != 0
            && self.seen.addresses[other as usize % 32] == self.seen.addresses[lane];
        same_instruction && stored.is_none_or(|stored| stored[other as usize % 32] == stored[lane])
    }

    /// A lane of a block as a place in the kernel.
    pub fn spot(&self, block: u64, lane: usize) -> Spot {
        Spot { origin: self.seen.site.origin, block, thread: self.thread(lane) }
    }

    /// A lane reads what nothing wrote.
    #[cold]
    pub fn uninitialised(&self, watch: &Watch, block: u64, lane: usize) -> Option<Finding> {
        let address = self.seen.addresses[lane].wrapping_sub(self.window);
        let (bytes, space) = (self.seen.bytes, self.seen.site.space);
        watch.sink.finding(
            watch.grid,
            "init",
            || format!("reads {bytes} bytes at {address:#x} in {space} memory that nothing wrote"),
            &self.spot(block, lane),
            None,
            || self.place_of(watch, address),
        )
    }

    /// A lane races with an earlier access.
    #[cold]
    pub fn race(
        &self,
        watch: &Watch,
        block: u64,
        (lane, address, conflict): (usize, u64, Conflict),
        space: &str,
    ) -> Option<Finding> {
        let verb = |write| if write { "writes" } else { "reads" };
        let other = Spot { origin: conflict.origin, block: conflict.block, thread: conflict.thread };
        watch.sink.finding(
            watch.grid,
            "race",
            || {
                format!(
                    "race at {address:#x} in {space} memory: {} what another thread {} meanwhile",
                    verb(self.touch().write),
                    verb(conflict.wrote)
                )
            },
            &self.spot(block, lane),
            Some((&other, if conflict.wrote { "written by" } else { "read by" })),
            || self.place_of(watch, address),
        )
    }

    /// A lane accesses what a launch before this one, which may not have ended, writes or reads.
    #[cold]
    pub fn overlap(&self, watch: &Watch, block: u64, (lane, address): (usize, u64), written: bool) -> Option<Finding> {
        let verb = |write| if write { "writes" } else { "reads" };
        watch.sink.finding(
            watch.grid,
            "race",
            || {
                format!(
                    "race at {address:#x} in global memory: {} what an earlier launch {}, without waiting for it \
                     (griddepcontrol.wait)",
                    verb(self.touch().write),
                    verb(written)
                )
            },
            &self.spot(block, lane),
            None,
            || self.place_of(watch, address),
        )
    }

    /// A lane meets an asynchronous copy that a thread started by the instruction `origin`.
    #[cold]
    pub fn copy_race(&self, watch: &Watch, block: u64, lane: usize, (origin, thread): (u32, u32)) -> Option<Finding> {
        let address = self.seen.addresses[lane].wrapping_sub(self.window);
        let other = Spot { origin, block, thread };
        watch.sink.finding(
            watch.grid,
            "race",
            || format!("accesses {address:#x} in shared memory while an asynchronous copy to it is under way"),
            &self.spot(block, lane),
            Some((&other, "the copy was started by")),
            || self.place_of(watch, address),
        )
    }

    /// The variable or allocation that an address lies in.
    fn place_of(&self, watch: &Watch, address: u64) -> Vec<String> {
        match self.seen.site.space {
            Space::Local => vec![],
            Space::Shared => in_shared(watch.grid, address),
            Space::Generic if self.window == SHARED_WINDOW => in_shared(watch.grid, address),
            _ => watch.memory.describe(address).into_iter().collect(),
        }
    }
}

fn in_shared(grid: &Grid, address: u64) -> Vec<String> {
    let layout = &grid.listing.shared;
    let holds = |start: u32, end: u32| (u64::from(start)..u64::from(end)).contains(&address);
    if let Some(variable) = layout.variables.iter().find(|variable| holds(variable.start, variable.end)) {
        let (offset, size) = (address - u64::from(variable.start), variable.end - variable.start);
        return vec![format!("byte {offset} of {} ({size} bytes)", readable(&variable.name))];
    }
    let offset = address.wrapping_sub(u64::from(layout.dynamic_start));
    vec![format!("byte {offset} of dynamic shared memory ({} bytes)", grid.dynamic_shared)]
}
