//! Who accessed a place last, and whether that happened before what happens now.
//!
//! A block counts time in steps: each completed barrier and each warp synchronisation begins a new one. What a thread
//! did before the last barrier of all threads happened before everything after it; what it did before it came to a
//! barrier of some warps happened before what those do after it; what a lane did before its warp's last synchronisation
//! happened before what the warp does now; what another block did happened before only if it released and this block
//! acquired through an atomic. Where a stamp stands for threads of several warps, any barrier orders them.

use std::collections::HashMap;
use std::sync::Arc;

use super::meetings::{Known, Meetings};

/// The time stops here; a block that comes this far is checked no further.
pub const LAST_TIME: u64 = (1 << 19) - 1;

/// Who a stamp stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// One thread.
    Thread,
    /// Several threads of its warp.
    Warp,
    /// Threads of several warps.
    Block,
    /// Threads of several blocks.
    Grid,
}

/// Bits of a stamp that say who: kind and thread.
pub const ID: u32 = 0xfff;
/// Bits in which stamps of one thread, or of several threads of one warp, agree with any thread of that warp.
pub const SAME_WARP: u32 = 0xbe0;

/// An access: from the top bit down, launch (12 bits, of which the first is 0), block (20), time (19), strong (1), who (2), thread (10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Stamp(pub u64);

impl Stamp {
    /// An access by one thread; `key` is launch and block.
    #[inline]
    pub fn new(key: u64, time: u64, thread: u32, strong: bool) -> Self {
        Self(key << 32 | time << 13 | u64::from(strong) << 12 | u64::from(thread))
    }

    /// The same for several threads.
    #[inline]
    pub fn shared_by(self, who: Who) -> Self {
        Self(self.0 & !(3 << 10) | (who as u64) << 10)
    }

    /// Launch and block.
    #[inline]
    pub fn key(self) -> u64 {
        self.0 >> 32
    }

    /// The launch, as [`of_launch`] gives it; 0 of none.
    #[inline]
    pub fn launch(self) -> u64 {
        self.0 >> 52
    }

    /// Number of the block, modulo 2^20.
    #[inline]
    pub fn block(self) -> u64 {
        self.0 >> 32 & 0xf_ffff
    }

    #[inline]
    fn time(self) -> u64 {
        self.0 >> 13 & LAST_TIME
    }

    /// Whether atomics and other accesses meant to meet others did it.
    #[inline]
    pub fn is_strong(self) -> bool {
        self.0 >> 12 & 1 != 0
    }

    #[inline]
    fn who(self) -> Who {
        match self.0 >> 10 & 3 {
            0 => Who::Thread,
            1 => Who::Warp,
            2 => Who::Block,
            _ => Who::Grid,
        }
    }

    /// The thread.
    #[inline]
    pub fn thread(self) -> u32 {
        (self.0 & 0x3ff) as u32
    }
}

/// Launches repeat after this many, before which the shadow memory is cleared.
pub const LAUNCHES: u64 = 2047;

/// A launch as stamps name it.
pub fn of_launch(launch: u64) -> u64 {
    launch % LAUNCHES + 1
}

/// Launch and block as a stamp's key.
pub fn key(launch: u64, block: u64) -> u64 {
    of_launch(launch) << 20 | block & 0xf_ffff
}

/// What a block knows of the order of things.
pub struct Clock {
    /// Launch and block.
    pub key: u64,
    /// Now.
    pub time: u64,
    /// When the last barrier of all threads completed.
    phase: u64,
    /// When the last barrier completed.
    last: u64,
    /// Until when each warp's accesses happened before what each warp does now; empty before there is a barrier of
    /// some warps.
    known: Vec<[u64; 32]>,
    /// The same of whoever acquires at a place in shared memory, by its address.
    released: HashMap<u64, [u64; 32]>,
    /// When each warp last came to a barrier without waiting there.
    announced: [u64; 32],
    /// When each warp synchronised last.
    warps: Vec<u64>,
    /// What of other blocks happened before now.
    known_blocks: Known,
}

impl Clock {
    /// A block's clock.
    pub fn new(key: u64, warps: usize) -> Self {
        Self {
            key,
            time: 1,
            phase: 1,
            last: 1,
            known: vec![],
            released: HashMap::new(),
            announced: [0; 32],
            warps: vec![1; warps],
            known_blocks: Known::default(),
        }
    }

    /// All threads met at a barrier.
    pub fn barrier(&mut self) {
        self.time = (self.time + 1).min(LAST_TIME);
        (self.phase, self.last) = (self.time, self.time);
        self.warps.fill(self.time);
    }

    /// Warps met at a barrier, at which some of them waited.
    pub fn partial_barrier(&mut self, arrived: u32, waiting: u32) {
        self.time = (self.time + 1).min(LAST_TIME);
        self.last = self.time;
        self.known.resize(self.warps.len(), [0; 32]);
        let bits = |mask: u32| (0..32usize).filter(move |warp| mask >> warp & 1 != 0);
        let mut together = [0; 32];
        for warp in bits(arrived) {
            for (latest, known) in together.iter_mut().zip(self.known[warp]) {
                *latest = known.max(*latest);
            }
            together[warp] = if waiting >> warp & 1 != 0 { self.time } else { self.announced[warp] };
        }
        for warp in bits(waiting) {
            self.known[warp] = together;
            self.warps[warp] = self.time;
        }
    }

    /// A warp came to a barrier without waiting: what it does from now on, that barrier does not order.
    pub fn announce(&mut self, warp: usize) {
        self.time = (self.time + 1).min(LAST_TIME);
        self.announced[warp] = self.time;
    }

    /// A warp releases at a place in shared memory: whoever acquires there later comes after what it did before.
    pub fn release_to(&mut self, warp: u32, address: u64) {
        self.time = (self.time + 1).min(LAST_TIME);
        let known = self.known.get(warp as usize).copied().unwrap_or_default();
        let released = self.released.entry(address).or_default();
        released.iter_mut().zip(known).for_each(|(latest, known)| *latest = known.max(*latest));
        released[warp as usize] = self.time;
    }

    /// A warp acquires at a place in shared memory.
    pub fn acquire_from(&mut self, warp: u32, address: u64) {
        let Some(released) = self.released.get(&address) else {
            return;
        };
        self.known.resize(self.warps.len(), [0; 32]);
        let known = &mut self.known[warp as usize];
        known.iter_mut().zip(released).for_each(|(known, latest)| *known = (*latest).max(*known));
        // Other lanes of the warp may have released there, too.
        let own = &mut self.warps[warp as usize];
        *own = released[warp as usize].max(*own);
    }

    /// A warp's lanes met.
    pub fn warp_barrier(&mut self, warp: u32) {
        self.time = (self.time + 1).min(LAST_TIME);
        self.warps[warp as usize] = self.time;
    }

    /// Whether time is left.
    pub fn is_running(&self) -> bool {
        self.time < LAST_TIME
    }

    /// The block accesses a place where blocks meet; if it writes, others learn there what it did and knows.
    pub fn meet(&mut self, meetings: &Arc<Meetings>, place: u64, writes: bool) {
        let now = ((self.key & 0xf_ffff) as u32, self.time as u32);
        self.known_blocks.meet(meetings, now, place, writes);
    }

    /// Accesses of this block with stamps below this happened before the last barrier of all threads.
    #[inline]
    pub fn phase_bound(&self) -> Stamp {
        Stamp(self.key << 32 | self.phase << 13)
    }

    /// Accesses of a warp with stamps below this happened before its last synchronisation.
    #[inline]
    pub fn warp_bound(&self, warp: u32) -> Stamp {
        Stamp(self.key << 32 | self.warps[warp as usize] << 13)
    }

    /// Whether an earlier access is of this launch.
    #[inline]
    pub fn is_current(&self, stamp: Stamp) -> bool {
        stamp.launch() == self.key >> 20
    }

    /// Whether nothing orders an earlier access before one by this thread now.
    #[inline]
    pub fn races(&self, before: Stamp, thread: u32) -> bool {
        // By far the most common: never, or before the last barrier.
        if before.0 < self.phase_bound().0 && before.key() == self.key && before.who() != Who::Grid {
            return false;
        }
        before.0 != 0 && self.is_current(before) && self.races_now(before, thread)
    }

    fn races_now(&self, before: Stamp, thread: u32) -> bool {
        if before.who() == Who::Grid {
            return self.known_blocks.is_empty();
        }
        if before.key() != self.key {
            return !self.known_blocks.includes(before.block() as u32, before.time() as u32);
        }
        let (theirs, mine) = (before.thread() as usize / 32, thread as usize / 32);
        let same_warp = theirs == mine;
        match before.who() {
            Who::Thread if before.thread() == thread => false,
            Who::Thread | Who::Warp if same_warp => before.time() >= self.warps[thread as usize / 32],
            Who::Thread | Who::Warp => {
                let known = self.known.get(mine).map_or(0, |known| known[theirs]);
                before.time() >= self.phase.max(known)
            }
            _ => before.time() >= self.last,
        }
    }

    /// The stamp that stands for an earlier access and one now, so that whoever comes later sees what matters.
    #[inline]
    pub fn merge(&self, before: Stamp, now: Stamp) -> Stamp {
        if before.0 == 0 || !self.is_current(before) {
            return now;
        }
        if before.key() != self.key || before.who() == Who::Grid {
            return now.shared_by(Who::Grid);
        }
        let same_warp = before.thread() / 32 == now.thread() / 32 && before.who() != Who::Block;
        if before.time() < self.phase
            || before.who() == Who::Thread && before.thread() == now.thread()
            || same_warp && before.time() < self.warps[now.thread() as usize / 32]
        {
            now
        } else if same_warp {
            now.shared_by(Who::Warp)
        } else {
            now.shared_by(Who::Block)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(clock: &Clock, thread: u32) -> Stamp {
        Stamp::new(clock.key, clock.time, thread, false)
    }

    #[test]
    fn barriers_order_everything_and_warp_barriers_only_the_warp() {
        let mut clock = Clock::new(key(1, 0), 2);
        let (lane, other) = (at(&clock, 3), at(&clock, 40));
        assert!(clock.races(lane, 4) && clock.races(other, 4) && !clock.races(lane, 3));
        clock.warp_barrier(0);
        assert!(!clock.races(lane, 4) && clock.races(other, 4) && clock.races(lane, 41));
        clock.barrier();
        assert!(!clock.races(other, 4) && !clock.races(lane, 41));
    }

    #[test]
    fn barriers_of_some_warps_order_only_these() {
        let mut clock = Clock::new(key(1, 0), 3);
        let (first, third) = (at(&clock, 0), at(&clock, 64));
        clock.partial_barrier(0b011, 0b011);
        assert!(!clock.races(first, 32) && clock.races(first, 64) && clock.races(third, 0));
        clock.partial_barrier(0b110, 0b110);
        assert!(!clock.races(first, 64), "through the second warp");
        assert!(!clock.races(third, 32) && clock.races(third, 0));
    }

    #[test]
    fn who_acquires_comes_after_who_released_there() {
        let mut clock = Clock::new(key(1, 0), 3);
        let before = at(&clock, 0);
        clock.release_to(0, 512);
        let after = at(&clock, 0);
        clock.acquire_from(1, 516);
        assert!(clock.races(before, 32), "another place");
        clock.acquire_from(1, 512);
        assert!(!clock.races(before, 32) && clock.races(after, 32) && clock.races(before, 64));
        assert!(clock.races(before, 5), "another lane of the warp");
        clock.acquire_from(0, 512);
        assert!(!clock.races(before, 5) && clock.races(after, 5));
        clock.release_to(1, 520);
        clock.acquire_from(2, 520);
        assert!(!clock.races(before, 64) && clock.races(after, 64), "through the second warp");
    }

    #[test]
    fn who_only_announces_itself_is_ordered_until_then() {
        let mut clock = Clock::new(key(1, 0), 2);
        let before = at(&clock, 0);
        clock.announce(0);
        let after = at(&clock, 0);
        clock.partial_barrier(0b11, 0b10);
        assert!(!clock.races(before, 32) && clock.races(after, 32));
        assert!(clock.races(Stamp::new(clock.key, clock.time - 1, 32, false), 0), "it learns nothing");
    }

    #[test]
    fn readers_of_one_warp_stay_apart_from_readers_of_two() {
        let mut clock = Clock::new(key(1, 0), 2);
        let one = clock.merge(at(&clock, 3), at(&clock, 4));
        assert!(clock.races(one, 4), "lane 3 read too");
        let two = clock.merge(one, at(&clock, 40));
        clock.warp_barrier(0);
        assert!(!clock.races(one, 5) && clock.races(two, 5));
        assert_eq!(clock.merge(one, at(&clock, 5)), at(&clock, 5), "earlier lanes are ordered");
    }

    #[test]
    fn other_blocks_are_ordered_only_by_what_was_acquired() {
        let meetings = Arc::default();
        let mut first = Clock::new(key(1, 0), 1);
        let mut second = Clock::new(key(1, 1), 1);
        let stamp = at(&first, 0);
        assert!(second.races(stamp, 0));
        first.meet(&meetings, 512, true);
        second.meet(&meetings, 512, false);
        assert!(!second.races(stamp, 0));
        assert!(!Clock::new(key(2, 1), 1).races(stamp, 0), "another launch");
    }
}
