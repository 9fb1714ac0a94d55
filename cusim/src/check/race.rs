//! Races: two accesses to one place, at least one of them a write, that nothing orders.

use super::stamp::{Clock, Stamp, Who};

/// What is known of a word, or of a byte of a word that is accessed in parts.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Cell {
    write: Stamp,
    read: Stamp,
    write_origin: u32,
    read_origin: u32,
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
    /// Forgets what other blocks did, whose memory this was before.
    #[inline]
    fn of(&mut self, key: u64) -> &mut Self {
        for stamp in [&mut self.write, &mut self.read] {
            if stamp.key() != key {
                *stamp = Stamp::default();
            }
        }
        self
    }

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
    /// The word that holds an address, as launch and block `key` see it.
    fn word(&mut self, address: u64, key: u64) -> &mut Cell;
    /// The byte at an address.
    fn byte(&mut self, address: u64, key: u64) -> &mut Cell;
    /// Whether parts of a word were accessed, in which case its bytes' cells count.
    fn is_split(&mut self, address: u64, key: u64) -> bool;
    /// Makes a word's bytes count.
    fn split(&mut self, address: u64, key: u64);
}

/// Notes an access of a range of bytes; the first conflict and its address.
#[inline]
pub fn touch_range(
    cells: &mut impl Cells,
    clock: &Clock,
    thread: u32,
    shared_by: Who,
    touch: Touch,
    address: u64,
    bytes: u32,
) -> Option<(u64, Conflict)> {
    let mut found = None;
    let end = address + u64::from(bytes);
    if bytes >= 4 {
        let mut at = address;
        while at < end {
            if cells.is_split(at, clock.key) {
                for byte in at..at + 4 {
                    let conflict = cells.byte(byte, clock.key).touch(clock, thread, shared_by, touch);
                    found = found.or(conflict.map(|conflict| (byte, conflict)));
                }
            } else {
                let conflict = cells.word(at, clock.key).touch(clock, thread, shared_by, touch);
                found = found.or(conflict.map(|conflict| (at, conflict)));
            }
            at += 4;
        }
        return found;
    }
    let word = address & !3;
    if !cells.is_split(word, clock.key) {
        let whole = *cells.word(word, clock.key);
        for byte in word..word + 4 {
            *cells.byte(byte, clock.key) = whole;
        }
        cells.split(word, clock.key);
    }
    for byte in address..end {
        let conflict = cells.byte(byte, clock.key).touch(clock, thread, shared_by, touch);
        found = found.or(conflict.map(|conflict| (byte, conflict)));
    }
    found
}

/// A block's shared memory.
#[derive(Default)]
pub struct SharedCells {
    words: Vec<Cell>,
    bytes: Vec<Cell>,
    /// Key of the launch and block in which a word was split.
    splits: Vec<u64>,
}

impl SharedCells {
    /// Makes room for this many bytes.
    pub fn reserve(&mut self, bytes: usize) {
        let bytes = bytes.next_multiple_of(4);
        if self.bytes.len() < bytes {
            self.words.resize(bytes / 4, Cell::default());
            self.bytes.resize(bytes, Cell::default());
            self.splits.resize(bytes / 4, 0);
        }
    }
}

impl Cells for SharedCells {
    #[inline]
    fn word(&mut self, address: u64, key: u64) -> &mut Cell {
        self.words[address as usize / 4].of(key)
    }

    #[inline]
    fn byte(&mut self, address: u64, key: u64) -> &mut Cell {
        self.bytes[address as usize].of(key)
    }

    #[inline]
    fn is_split(&mut self, address: u64, key: u64) -> bool {
        self.splits[address as usize / 4] == key
    }

    #[inline]
    fn split(&mut self, address: u64, key: u64) {
        self.splits[address as usize / 4] = key;
    }
}

/// Device and host memory: cells in arenas of their own, which take memory only where kernels touch.
pub struct GlobalCells<'a> {
    /// The arenas.
    pub shadow: &'a crate::mem::Shadow,
}

impl GlobalCells<'_> {
    fn offset(&self, address: u64) -> u64 {
        self.shadow.offset(address)
    }
}

impl Cells for GlobalCells<'_> {
    #[inline]
    fn word(&mut self, address: u64, _key: u64) -> &mut Cell {
        let index = self.offset(address) / 4;
        // SAFETY: the access was found inside an allocation, for which the arena has cells; kernels run on one thread
        // while races are looked for.
        unsafe { &mut *(self.shadow.words() as *mut Cell).add(index as usize) }
    }

    #[inline]
    fn byte(&mut self, address: u64, _key: u64) -> &mut Cell {
        let index = self.offset(address);
        // SAFETY: as above.
        unsafe { &mut *(self.shadow.bytes() as *mut Cell).add(index as usize) }
    }

    #[inline]
    fn is_split(&mut self, address: u64, key: u64) -> bool {
        let index = self.offset(address) / 4;
        // SAFETY: as above. A word is split for a whole launch.
        unsafe { *(self.shadow.splits() as *mut u16).add(index as usize) == (key >> 20) as u16 }
    }

    #[inline]
    fn split(&mut self, address: u64, key: u64) {
        let index = self.offset(address) / 4;
        // SAFETY: as above.
        unsafe { *(self.shadow.splits() as *mut u16).add(index as usize) = (key >> 20) as u16 }
    }
}
