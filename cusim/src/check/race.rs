//! Races: two accesses to one place, at least one of them a write, that nothing orders.

use super::stamp::{Clock, Stamp, Who};

/// What is known of a word, or of a byte of a word that is accessed in parts.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Cell {
    /// The last write.
    pub write: Stamp,
    /// Reads since, as far as they matter.
    pub read: Stamp,
    /// The instruction that wrote.
    pub write_origin: u32,
    /// The instruction that read last.
    pub read_origin: u32,
    /// Another of the threads that the write's stamp stands for, if there are several.
    pub write_other: Other,
    /// The same of the reads.
    pub read_other: Other,
}

/// A thread of a block: the block (20 bits) and the thread (10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Other(pub u32);

impl Other {
    /// Whose stamp it is.
    #[inline]
    pub fn of(stamp: Stamp) -> Self {
        Self((stamp.block() as u32) << 10 | stamp.thread())
    }
}

/// How an instruction accesses a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Whether it writes.
    pub write: bool,
    /// Whether it is meant to meet others: atomics, volatile and so on.
    pub strong: bool,
    /// The instruction.
    pub origin: u32,
}

/// An earlier access that races.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The block that did it.
    pub block: u64,
    /// Its thread: another than the one it races with.
    pub thread: u32,
    /// Which instruction.
    pub origin: u32,
    /// Whether it wrote.
    pub wrote: bool,
}

impl Cell {
    /// Notes an access by `thread`, and by another of its warp's if `also` says so; what it races with.
    #[inline]
    pub fn touch(&mut self, clock: &Clock, thread: u32, also: Option<u32>, touch: Touch) -> Option<Conflict> {
        let mut conflict = None;
        let alone = Stamp::new(clock.key, clock.time, thread, touch.strong);
        let now = if also.is_some() { alone.shared_by(Who::Warp) } else { alone };
        if !(touch.strong && self.write.is_strong()) && clock.races(self.write, thread) {
            conflict = Some(conflict_with((self.write, self.write_other), alone, self.write_origin, true));
        }
        let other = |before: Stamp, known: Other| match also {
            _ if Other::of(before) != Other::of(alone) => Other::of(before),
            Some(also) => Other::of(Stamp::new(clock.key, clock.time, also, touch.strong)),
            None => known,
        };
        if touch.write {
            if conflict.is_none() && clock.races(self.read, thread) {
                conflict = Some(conflict_with((self.read, self.read_other), alone, self.read_origin, false));
            }
            if touch.strong && self.write.is_strong() {
                self.write_other = other(self.write, self.write_other);
                self.write = clock.merge(self.write, now);
            } else {
                self.write = now;
            }
            self.write_origin = touch.origin;
        } else if !touch.strong {
            let merged = clock.merge(self.read, now);
            // Where nothing of before is left, the other is of this access, if it has one.
            let before = if merged == now { now } else { self.read };
            self.read_other = other(before, self.read_other);
            self.read = merged;
            self.read_origin = touch.origin;
        }
        conflict
    }
}

/// A conflict with whom a stamp stands for: not the thread itself, if there are others.
#[cold]
fn conflict_with((stamp, other): (Stamp, Other), now: Stamp, origin: u32, wrote: bool) -> Conflict {
    let by = if Other::of(stamp) == Other::of(now) { other } else { Other::of(stamp) };
    Conflict { block: u64::from(by.0 >> 10), thread: by.0 & 0x3ff, origin, wrote }
}

/// Cells of an address range.
pub trait Cells {
    /// Notes an access of the whole word at an address by a thread, and perhaps by another of its warp.
    fn touch_word(
        &mut self,
        at: u64,
        clock: &Clock,
        thread: u32,
        also: Option<u32>,
        touch: Touch,
    ) -> Option<(u64, Conflict)>;
    /// The byte at an address, in a word of which parts are accessed from now on.
    fn byte(&mut self, address: u64, clock: &Clock) -> &mut Cell;
    /// Notes an access of four whole words by the threads of one warp at once, and by those so many further on if `also` says
    /// so, if none of them needs a closer look; else nothing changes.
    ///
    /// # Safety
    /// The processor must have AVX2, and the four words must lie in the range.
    unsafe fn touch_four(&mut self, at: u64, clock: &Clock, threads: [u32; 4], also: Option<u32>, touch: Touch)
    -> bool;
}

/// Notes an access of a range of bytes; the first conflict and its address.
#[inline]
pub fn touch_range(
    cells: &mut impl Cells,
    clock: &Clock,
    thread: u32,
    also: Option<u32>,
    touch: Touch,
    address: u64,
    bytes: u32,
) -> Option<(u64, Conflict)> {
    let mut found = None;
    let end = address + u64::from(bytes);
    if bytes >= 4 {
        for word in 0..u64::from(bytes) / 4 {
            let conflict = cells.touch_word(address + 4 * word, clock, thread, also, touch);
            found = found.or(conflict);
        }
        return found;
    }
    for byte in address..end {
        let conflict = cells.byte(byte, clock).touch(clock, thread, also, touch);
        found = found.or(conflict.map(|conflict| (byte, conflict)));
    }
    found
}
