//! Which sectors of device memory a launch touches: each counted once, which is what must be moved however well caches
//! work; and once for each wave of blocks that run at a time, which is what must be moved if a cache keeps what a wave
//! loads, but nothing from one wave to the next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::access::SECTOR;
use crate::machine::access::Seen;
use crate::machine::{LANES, Mask};

/// Words of 64 sectors in a page, and its sectors: 2 MiB of memory.
const WORDS: usize = 1024;
const PAGE: u64 = 64 * WORDS as u64;

/// Sectors of a page, a bit each.
type Page = [AtomicU64; WORDS];

/// A set of sectors that threads add to.
#[derive(Default)]
struct Sectors(RwLock<HashMap<u64, Box<Page>>>);

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

    /// Adds the sectors of an access of this block.
    pub fn add(&self, block: u64, seen: &Seen, mask: Mask) {
        if seen.site.access.stores() {
            return self.stores.add(seen, mask);
        }
        self.loads.add(seen, mask);
        if self.several_waves {
            self.wave(block / self.wave).add(seen, mask);
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

impl Sectors {
    /// Adds the sectors of an access.
    fn add(&self, seen: &Seen, mask: Mask) {
        let lanes = (0..LANES).filter(|lane| mask >> lane & 1 != 0).map(|lane| seen.addresses[lane]);
        self.insert(lanes.flat_map(|address| address / SECTOR..=(address + u64::from(seen.bytes) - 1) / SECTOR));
    }

    fn insert(&self, sectors: impl Iterator<Item = u64> + Clone) {
        if !self.insert_known(sectors.clone()) {
            let mut pages = self.0.write().unwrap_or_else(PoisonError::into_inner);
            for sector in sectors.clone() {
                pages.entry(sector / PAGE).or_insert_with(|| Box::new([const { AtomicU64::new(0) }; WORDS]));
            }
            drop(pages);
            self.insert_known(sectors);
        }
    }

    /// Adds sectors as long as their pages are there; whether all were.
    fn insert_known(&self, sectors: impl Iterator<Item = u64>) -> bool {
        let pages = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut last = None;
        for sector in sectors {
            let page = match last {
                Some((number, page)) if number == sector / PAGE => page,
                _ => match pages.get(&(sector / PAGE)) {
                    Some(page) => page,
                    None => return false,
                },
            };
            last = Some((sector / PAGE, page));
            let (word, bit) = (&page[(sector % PAGE) as usize / 64], 1 << (sector % 64));
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        true
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
        sectors.insert([5, 6, 5, PAGE + 5].into_iter());
        sectors.insert([1 << 40, 5, PAGE + 5].into_iter());
        assert_eq!(sectors.bytes(), 4 * SECTOR);
    }
}
