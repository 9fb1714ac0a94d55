//! What is remembered of every byte of memory: whether it was written, and who accessed it last.

use super::{Arena, DEVICE_BASE, DEVICE_SPACE, HOST_SPACE};

/// Bytes of the cell of a byte.
const CELL: u64 = 32;

/// Arenas beside device and host memory.
pub struct Shadow {
    host_start: u64,
    written: Option<Arena>,
    races: Option<Races>,
}

struct Races {
    writes: Arena,
    reads: Arena,
    write_origins: Arena,
    read_origins: Arena,
    write_others: Arena,
    read_others: Arena,
    bytes: Arena,
}

impl Races {
    /// The arenas, with their bytes for four bytes of memory.
    fn all(&self) -> [(&Arena, u64); 7] {
        let Self { writes, reads, write_origins, read_origins, write_others, read_others, bytes } = self;
        let words = [write_origins, read_origins, write_others, read_others].map(|arena| (arena, 4));
        let [write_origins, read_origins, write_others, read_others] = words;
        [(writes, 8), (reads, 8), write_origins, read_origins, write_others, read_others, (bytes, 4 * CELL)]
    }
}

/// Where the arenas for races begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct RaceArenas {
    /// Stamps of words' last writes.
    pub writes: u64,
    /// Stamps of words' reads.
    pub reads: u64,
    /// Instructions that wrote words.
    pub write_origins: u64,
    /// Instructions that read words.
    pub read_origins: u64,
    /// Others that wrote words.
    pub write_others: u64,
    /// Others that read words.
    pub read_others: u64,
    /// Cells of bytes.
    pub bytes: u64,
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
            self.races = (|| {
                Some(Races {
                    writes: Arena::new(space * 2)?,
                    reads: Arena::new(space * 2)?,
                    write_origins: Arena::new(space)?,
                    read_origins: Arena::new(space)?,
                    write_others: Arena::new(space)?,
                    read_others: Arena::new(space)?,
                    bytes: Arena::new(space * CELL)?,
                })
            })();
        }
        self.written.is_some() == init && self.races.is_some() == race
    }

    /// An address as an offset into the shadow.
    #[inline]
    pub fn offset(&self, address: u64) -> u64 {
        let on_device = address.wrapping_sub(DEVICE_BASE);
        if on_device < DEVICE_SPACE { on_device } else { DEVICE_SPACE + address.wrapping_sub(self.host_start) }
    }

    /// Whether anything is remembered of an address: it is not the host program's own.
    #[inline]
    pub fn covers(&self, address: u64) -> bool {
        address.wrapping_sub(DEVICE_BASE) < DEVICE_SPACE || address.wrapping_sub(self.host_start) < HOST_SPACE
    }

    /// Bytes that say of each byte of memory whether it was written, if that is tracked.
    pub fn written(&self, address: u64) -> Option<*mut u8> {
        let arena = self.written.as_ref().filter(|_| self.covers(address))?;
        Some((arena.start() + self.offset(address)) as *mut u8)
    }

    /// Where to look for earlier accesses.
    #[inline]
    pub fn races(&self) -> RaceArenas {
        let Some(races) = &self.races else {
            return RaceArenas::default();
        };
        let [writes, reads, write_origins, read_origins, write_others, read_others, bytes] =
            races.all().map(|(arena, _)| arena.start());
        RaceArenas { writes, reads, write_origins, read_origins, write_others, read_others, bytes }
    }

    /// Forgets all accesses, before the numbers of launches repeat.
    pub fn forget(&self) {
        if let Some(races) = &self.races {
            for (arena, _) in races.all() {
                arena.release(arena.start() as *mut u8, arena.size());
            }
        }
    }

    /// Forgets what is known of a range, which another allocation takes.
    pub fn forget_range(&self, address: u64, bytes: u64) {
        let offset = self.offset(address);
        // SAFETY: the arenas have room for all of memory, and the range begins at a whole word.
        unsafe {
            if let Some(arena) = &self.written {
                ((arena.start() + offset) as *mut u8).write_bytes(0, bytes as usize);
            }
            for (arena, width) in self.races.iter().flat_map(Races::all) {
                let words = bytes.div_ceil(4);
                ((arena.start() + offset / 4 * width) as *mut u8).write_bytes(0, (words * width) as usize);
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
            for (arena, width) in races.all() {
                arena.release((arena.start() + offset / 4 * width) as *mut u8, bytes / 4 * width);
            }
        }
    }
}
