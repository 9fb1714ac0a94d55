//! What is remembered of every byte of memory: whether it was written, and who accessed it last.

use super::{Arena, DEVICE_BASE, DEVICE_SPACE, HOST_SPACE};

/// Bytes of a race cell.
const CELL: u64 = 24;

/// Arenas beside device and host memory.
pub struct Shadow {
    host_start: u64,
    written: Option<Arena>,
    races: Option<Races>,
}

struct Races {
    words: Arena,
    bytes: Arena,
    splits: Arena,
}

impl Shadow {
    /// No arenas yet.
    pub fn new(host_start: u64) -> Self {
        Self { host_start, written: None, races: None }
    }

    /// Reserves what the checks need; whether that worked.
    pub fn enable(&mut self, init: bool, race: bool) -> bool {
        let space = DEVICE_SPACE + HOST_SPACE;
        if init {
            self.written = Arena::new(space);
        }
        if race {
            self.races = Arena::new(space / 4 * CELL).and_then(|words| {
                Some(Races { words, bytes: Arena::new(space * CELL)?, splits: Arena::new(space / 2)? })
            });
        }
        self.written.is_some() == init && self.races.is_some() == race
    }

    /// An address as an offset into the shadow.
    #[inline]
    pub fn offset(&self, address: u64) -> u64 {
        let on_device = address.wrapping_sub(DEVICE_BASE);
        if on_device < DEVICE_SPACE { on_device } else { DEVICE_SPACE + address.wrapping_sub(self.host_start) }
    }

    /// Bytes that say of each byte of memory whether it was written, if that is tracked.
    pub fn written(&self, address: u64) -> Option<*mut u8> {
        let arena = self.written.as_ref()?;
        Some((arena.start() + self.offset(address)) as *mut u8)
    }

    /// Cells of words.
    pub fn words(&self) -> u64 {
        self.races.as_ref().map_or(0, |races| races.words.start())
    }

    /// Cells of bytes.
    pub fn bytes(&self) -> u64 {
        self.races.as_ref().map_or(0, |races| races.bytes.start())
    }

    /// Launches in which words were split.
    pub fn splits(&self) -> u64 {
        self.races.as_ref().map_or(0, |races| races.splits.start())
    }

    /// Forgets all accesses, before the numbers of launches repeat.
    pub fn forget(&self) {
        if let Some(races) = &self.races {
            for arena in [&races.words, &races.bytes, &races.splits] {
                arena.release(arena.start() as *mut u8, arena.size());
            }
        }
    }

    /// Gives back the shadow of freed memory.
    pub fn release(&self, address: u64, bytes: u64) {
        let offset = self.offset(address);
        if let Some(arena) = &self.written {
            arena.release((arena.start() + offset) as *mut u8, bytes);
        }
        if let Some(races) = &self.races {
            races.words.release((races.words.start() + offset / 4 * CELL) as *mut u8, bytes / 4 * CELL);
            races.bytes.release((races.bytes.start() + offset * CELL) as *mut u8, bytes * CELL);
            races.splits.release((races.splits.start() + offset / 2) as *mut u8, bytes / 2);
        }
    }
}
