//! Which sectors of device memory a launch touches: each counted once, which is what must be moved however well caches
//! work; and once for each wave of blocks that run at a time, which is what must be moved if a cache keeps what a wave
//! loads, but nothing from one wave to the next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::access::{SECTOR, visit_sectors};
use crate::machine::Mask;
use crate::machine::access::Seen;

/// Words of 64 sectors in a page, and its sectors: 2 MiB of memory.
const WORDS: usize = 1024;
const PAGE: u64 = 64 * WORDS as u64;

/// Sectors of a page, a bit each.
type Page = [AtomicU64; WORDS];

/// A set of sectors that threads add to.
#[derive(Default)]
struct Sectors(RwLock<HashMap<u64, Arc<Page>>>);

/// Sectors that a launch loads from and stores to.
pub struct Touched {
    /// Loads, and what else reads.
    loads: Sectors,
    /// The same of each wave, if there is more than one.
    waves: RwLock<HashMap<u64, Arc<Sectors>>>,
    stores: Sectors,
    /// Blocks of a wave.
    wave: u64,
    several_waves: bool,
}

impl Touched {
    /// Nothing yet of a launch of so many blocks, of which `wave` run at a time.
    pub fn new(blocks: u64, wave: u64) -> Self {
        let wave = wave.max(1);
        Self {
            loads: Sectors::default(),
            waves: RwLock::default(),
            stores: Sectors::default(),
            wave,
            several_waves: blocks > wave,
        }
    }

    fn wave(&self, number: u64) -> Arc<Sectors> {
        if let Some(known) = self.waves.read().unwrap_or_else(PoisonError::into_inner).get(&number) {
            return known.clone();
        }
        self.waves.write().unwrap_or_else(PoisonError::into_inner).entry(number).or_default().clone()
    }

    /// Bytes loaded, each sector once.
    pub fn loaded(&self) -> u64 {
        self.loads.bytes()
    }

    /// Bytes loaded, each sector once a wave.
    pub fn loaded_by_wave(&self) -> u64 {
        if !self.several_waves {
            return self.loaded();
        }
        self.waves.read().unwrap_or_else(PoisonError::into_inner).values().map(|wave| wave.bytes()).sum()
    }

    /// Bytes stored, each sector once.
    pub fn stored(&self) -> u64 {
        self.stores.bytes()
    }
}

/// What blocks of one thread touched last: most accesses touch no sector anew, and few another page.
#[derive(Default)]
pub struct Recent {
    launch: u64,
    loads: Pages,
    stores: Pages,
    /// Of the wave with this number.
    wave: Option<(u64, Arc<Sectors>, Pages)>,
    /// The sectors that each memory instruction touched last, by this block.
    sites: Vec<Last>,
    block: u64,
}

/// Sectors that lanes of one instruction touched, if these are few.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Last {
    sectors: [u64; 8],
    count: u8,
}

/// Pages of a set, by the lowest bits of their numbers.
#[derive(Default)]
struct Pages([Option<(u64, Arc<Page>)>; 16]);

impl Recent {
    /// A block of a launch begins.
    pub fn start(&mut self, launch: u64) {
        if self.launch != launch {
            *self = Self { launch, ..Self::default() };
        }
    }

    /// Adds the sectors of an access of a block.
    pub fn add(&mut self, all: &Touched, block: u64, seen: &Seen, mask: Mask) {
        if self.block != block {
            self.block = block;
            self.sites.clear();
        }
        let index = seen.index as usize;
        if self.sites.len() <= index {
            self.sites.resize(index + 1, Last::default());
        }
        let mut now = Last::default();
        let mut many = false;
        visit_sectors(seen, mask, |sector| match now.sectors.get_mut(usize::from(now.count)) {
            Some(place) => {
                *place = sector;
                now.count += 1;
            }
            None => many = true,
        });
        if !many && self.sites[index] == now {
            return;
        }
        self.sites[index] = if many { Last::default() } else { now };
        let each = |add: &mut dyn FnMut(u64)| match many {
            true => visit_sectors(seen, mask, add),
            false => now.sectors[..usize::from(now.count)].iter().for_each(|sector| add(*sector)),
        };
        if seen.site.access.stores() {
            return each(&mut |sector| self.stores.insert(&all.stores, sector));
        }
        each(&mut |sector| self.loads.insert(&all.loads, sector));
        if all.several_waves {
            let number = block / all.wave;
            if self.wave.as_ref().is_none_or(|(known, ..)| *known != number) {
                self.wave = Some((number, all.wave(number), Pages::default()));
            }
            if let Some((_, wave, pages)) = &mut self.wave {
                each(&mut |sector| pages.insert(wave, sector));
            }
        }
    }
}

impl Pages {
    fn insert(&mut self, all: &Sectors, sector: u64) {
        let number = sector / PAGE;
        let slot = &mut self.0[number as usize % 16];
        let page = match slot {
            Some((known, page)) if *known == number => page,
            slot => &slot.insert((number, all.page(number))).1,
        };
        let (word, bit) = (&page[(sector % PAGE) as usize / 64], 1 << (sector % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }
}

impl Sectors {
    /// A page, made if it is not there.
    fn page(&self, number: u64) -> Arc<Page> {
        if let Some(page) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&number) {
            return page.clone();
        }
        let mut pages = self.0.write().unwrap_or_else(PoisonError::into_inner);
        pages.entry(number).or_insert_with(|| Arc::new([const { AtomicU64::new(0) }; WORDS])).clone()
    }

    /// Bytes of all sectors.
    fn bytes(&self) -> u64 {
        let pages = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let words = pages.values().flat_map(|page| page.iter());
        words.map(|word| SECTOR * u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_counts_once() {
        let sectors = Sectors::default();
        let (mut pages, mut others) = (Pages::default(), Pages::default());
        [5, 6, 5, PAGE + 5, 16 * PAGE + 5].into_iter().for_each(|sector| pages.insert(&sectors, sector));
        [1 << 40, 5, PAGE + 5].into_iter().for_each(|sector| others.insert(&sectors, sector));
        assert_eq!(sectors.bytes(), 5 * SECTOR);
    }
}
