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
    /// Who did it.
    pub stamp: Stamp,
    /// Which instruction.
    pub origin: u32,
    /// Whether it wrote.
    pub wrote: bool,
}

impl Cell {
    /// Notes an access by `thread`; what it races with.
    #[inline]
    pub fn touch(&mut self, clock: &Clock, thread: u32, shared_by: Who, touch: Touch) -> Option<Conflict> {
        let mut conflict = None;
        let now = Stamp::new(clock.key, clock.time, thread, touch.strong).shared_by(shared_by);
        if clock.races(self.write, thread) && !(touch.strong && self.write.is_strong()) {
            conflict = Some(Conflict { stamp: self.write, origin: self.write_origin, wrote: true });
        }
        if touch.write {
            if conflict.is_none() && clock.races(self.read, thread) {
                conflict = Some(Conflict { stamp: self.read, origin: self.read_origin, wrote: false });
            }
            let merges = touch.strong && self.write.is_strong();
            self.write = if merges { clock.merge(self.write, now) } else { now };
            self.write_origin = touch.origin;
        } else if !touch.strong {
            self.read = clock.merge(self.read, now);
            self.read_origin = touch.origin;
        }
        conflict
    }
}

/// Cells of an address range.
pub trait Cells {
    /// Notes an access of the whole word at an address.
    fn touch_word(&mut self, at: u64, clock: &Clock, thread: u32, who: Who, touch: Touch) -> Option<(u64, Conflict)>;
    /// The byte at an address, in a word of which parts are accessed from now on.
    fn byte(&mut self, address: u64, clock: &Clock) -> &mut Cell;
    /// Notes an access of four whole words by the threads of one warp at once, if none of them needs a closer look;
    /// else nothing changes.
    ///
    /// # Safety
    /// The processor must have AVX2, and the four words must lie in the range.
    unsafe fn touch_four(&mut self, at: u64, clock: &Clock, threads: [u32; 4], who: Who, touch: Touch) -> bool;
}

/// Notes an access of a range of bytes; the first conflict and its address.
#[inline]
pub fn touch_range(
    cells: &mut impl Cells,
    clock: &Clock,
    thread: u32,
    who: Who,
    touch: Touch,
    address: u64,
    bytes: u32,
) -> Option<(u64, Conflict)> {
    let mut found = None;
    let end = address + u64::from(bytes);
    if bytes >= 4 {
        for word in 0..u64::from(bytes) / 4 {
            let conflict = cells.touch_word(address + 4 * word, clock, thread, who, touch);
            found = found.or(conflict);
        }
        return found;
    }
    for byte in address..end {
        let conflict = cells.byte(byte, clock).touch(clock, thread, who, touch);
        found = found.or(conflict.map(|conflict| (byte, conflict)));
    }
    found
}
