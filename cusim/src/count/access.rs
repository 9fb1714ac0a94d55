//! Counting memory accesses: bytes, sectors, bank conflicts.

use crate::machine::access::{AccessKind, Seen};
use crate::machine::listing::Listing;
use crate::machine::{LANES, Mask};

/// Bytes of a sector, the unit in which device memory is moved.
pub const SECTOR: u64 = 32;

/// What one memory instruction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteCounts {
    /// Bytes that lanes asked for in device memory.
    pub global_bytes: u64,
    /// Sectors of device memory touched.
    pub sectors: u64,
    /// Bytes that lanes asked for in shared memory.
    pub shared_bytes: u64,
    /// Passes over the banks of shared memory.
    pub wavefronts: u64,
    /// Passes that would have been enough without conflicts.
    pub ideal_wavefronts: u64,
    /// Bytes of local memory.
    pub local_bytes: u64,
    /// Lanes that did an atomic.
    pub atomics: u64,
}

impl SiteCounts {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.global_bytes += other.global_bytes;
        self.sectors += other.sectors;
        self.shared_bytes += other.shared_bytes;
        self.wavefronts += other.wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
        self.local_bytes += other.local_bytes;
        self.atomics += other.atomics;
    }
}

/// Counts of all memory instructions of a program, for the blocks of one thread.
#[derive(Clone, Debug, Default)]
pub struct AccessCounts {
    sites: Vec<SiteCounts>,
    patterns: Vec<Pattern>,
}

/// A site's last access and what it took: the next is often the same, some way off.
#[derive(Clone, Debug, Default)]
struct Pattern {
    addresses: [u64; LANES],
    mask: Mask,
    /// Addresses may move by multiples of this.
    unit: u64,
    /// Sectors; or wavefronts, and how many would have been enough.
    result: (u64, u64),
}

impl Pattern {
    /// What the access takes, which `compute` tells where it is not the same as the last one.
    #[inline]
    fn result(
        &mut self,
        addresses: &[u64; LANES],
        mask: Mask,
        unit: u64,
        compute: impl FnOnce() -> (u64, u64),
    ) -> (u64, u64) {
        // SAFETY: accesses are counted only where the processor has AVX2.
        let same = self.mask == mask && self.unit == unit && unsafe { self.is_moved(addresses) };
        if !same {
            *self = Self { addresses: *addresses, mask, unit, result: compute() };
        }
        self.result
    }

    /// Whether all addresses are as far from the last ones, by a multiple of the unit, a power of two.
    #[target_feature(enable = "avx2")]
    fn is_moved(&self, addresses: &[u64; LANES]) -> bool {
        let distance = addresses[0].wrapping_sub(self.addresses[0]);
        let mut other = distance & (self.unit - 1);
        for lane in 0..LANES {
            other |= addresses[lane].wrapping_sub(self.addresses[lane]) ^ distance;
        }
        other == 0
    }
}

impl AccessCounts {
    /// Counts by memory instruction.
    pub fn sites(&self) -> &[SiteCounts] {
        &self.sites
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        if self.sites.len() < other.sites.len() {
            self.sites.resize(other.sites.len(), SiteCounts::default());
        }
        self.sites.iter_mut().zip(&other.sites).for_each(|(site, other)| site.add(other));
    }

    /// Back to nothing.
    pub fn clear(&mut self) {
        self.sites.fill(SiteCounts::default());
    }

    fn site(&mut self, listing: &Listing, seen: &Seen, mask: Mask) -> (&mut SiteCounts, &mut Pattern) {
        if self.sites.len() < listing.sites.len() {
            self.sites.resize(listing.sites.len(), SiteCounts::default());
            self.patterns.resize(listing.sites.len(), Pattern::default());
        }
        let site = &mut self.sites[seen.index as usize];
        if seen.site.access == AccessKind::Atomic {
            site.atomics += u64::from(mask.count_ones());
        }
        (site, &mut self.patterns[seen.index as usize])
    }

    /// An access to device memory.
    pub fn global(&mut self, listing: &Listing, seen: &Seen, mask: Mask) {
        let (site, pattern) = self.site(listing, seen, mask);
        let bytes = u64::from(seen.bytes);
        site.global_bytes += bytes * u64::from(mask.count_ones());
        site.sectors += pattern.result(seen.addresses, mask, SECTOR, || (sectors(seen.addresses, mask, bytes), 0)).0;
    }

    /// An access to shared memory.
    pub fn shared(&mut self, listing: &Listing, seen: &Seen, mask: Mask) {
        let (site, pattern) = self.site(listing, seen, mask);
        site.shared_bytes += u64::from(seen.bytes) * u64::from(mask.count_ones());
        let (taken, ideal) =
            pattern.result(seen.addresses, mask, unit(seen.bytes), || wavefronts(seen.addresses, mask, seen.bytes));
        site.wavefronts += taken;
        site.ideal_wavefronts += ideal;
    }

    /// An access to local memory.
    pub fn local(&mut self, listing: &Listing, seen: &Seen, mask: Mask) {
        self.site(listing, seen, mask).0.local_bytes += u64::from(seen.bytes) * u64::from(mask.count_ones());
    }
}

/// Whether all lanes run and access the same place, or places that follow each other without gaps.
fn is_even(addresses: &[u64; LANES], mask: Mask, bytes: u64) -> bool {
    let step = addresses[1].wrapping_sub(addresses[0]);
    let mut gap = 0;
    for lane in 0..LANES {
        gap |= addresses[lane] ^ addresses[0].wrapping_add((lane as u64).wrapping_mul(step));
    }
    mask == Mask::MAX && gap == 0 && (step == 0 || step == bytes)
}

/// Different sectors that lanes touch: calls `visit` for each, some perhaps more than once unless `exact`; how many calls.
fn each_sector(addresses: &[u64; LANES], mask: Mask, bytes: u64, exact: bool, mut visit: impl FnMut(u64)) -> u64 {
    if is_even(addresses, mask, bytes) {
        let sectors = addresses[0] / SECTOR..=(addresses[LANES - 1] + bytes - 1) / SECTOR;
        let count = sectors.end() - sectors.start() + 1;
        sectors.for_each(visit);
        return count;
    }
    // Of neighbours that touch the same, the first counts.
    let mut found = [0; 2 * LANES];
    let mut count = 0;
    let mut sorted = true;
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        let address = addresses[lane];
        for sector in address / SECTOR..=(address + bytes - 1) / SECTOR {
            if count > 0 && found[count - 1] == sector {
                continue;
            }
            sorted &= count == 0 || found[count - 1] < sector;
            found[count] = sector;
            count += 1;
        }
    }
    let found = &mut found[..count];
    if sorted || !exact {
        found.iter().for_each(|sector| visit(*sector));
        return count as u64;
    }
    found.sort_unstable();
    let mut count = 0;
    for (index, sector) in found.iter().enumerate() {
        if index == 0 || found[index - 1] != *sector {
            visit(*sector);
            count += 1;
        }
    }
    count
}

/// How many different sectors lanes touch.
fn sectors(addresses: &[u64; LANES], mask: Mask, bytes: u64) -> u64 {
    each_sector(addresses, mask, bytes, true, |_| {})
}

/// Calls `visit` for each sector that lanes touch, for some perhaps more than once.
pub(super) fn visit_sectors(seen: &Seen, mask: Mask, visit: impl FnMut(u64)) {
    each_sector(seen.addresses, mask, u64::from(seen.bytes), false, visit);
}

/// Bytes of the places that banks, or sets of neighbouring banks, are asked for.
fn unit(bytes: u32) -> u64 {
    u64::from(bytes.clamp(4, 16))
}

/// Passes over the banks: lanes are served in groups of at most 128 bytes; within a group, different places of one bank
/// (for wider accesses, of one set of neighbouring banks) take turns.
fn wavefronts(addresses: &[u64; LANES], mask: Mask, bytes: u32) -> (u64, u64) {
    let unit = unit(bytes);
    let banks = (128 / unit) as usize;
    let (mut taken, mut ideal) = (0, 0);
    for group in 0..LANES / banks {
        let lanes = group * banks..(group + 1) * banks;
        let places: &mut [u64] = &mut [0; LANES][..banks];
        for (place, address) in places.iter_mut().zip(&addresses[lanes.clone()]) {
            *place = address >> unit.trailing_zeros();
        }
        let turns = turns(places, mask >> lanes.start);
        taken += turns;
        ideal += u64::from(turns > 0);
    }
    (taken, ideal)
}

/// The most turns that a bank needs for these places, as many as there are banks, a power of two.
fn turns(places: &[u64], mask: Mask) -> u64 {
    let banks = places.len();
    let mut busy: Mask = 0;
    let mut last = None;
    for (lane, place) in places.iter().enumerate() {
        if mask >> lane & 1 == 0 || last == Some(place) {
            continue;
        }
        let bank = 1 << (*place as usize & (banks - 1));
        if busy & bank != 0 {
            return turns_in_conflict(places, mask);
        }
        busy |= bank;
        last = Some(place);
    }
    u64::from(busy != 0)
}

/// [`turns`] where some bank is asked for more than once, perhaps for the same place.
fn turns_in_conflict(places: &[u64], mask: Mask) -> u64 {
    let banks = places.len();
    let mut turns = [0; LANES];
    for (lane, place) in places.iter().enumerate() {
        let is_new = !(0..lane).any(|earlier| mask >> earlier & 1 != 0 && places[earlier] == *place);
        if mask >> lane & 1 != 0 && is_new {
            turns[*place as usize & (banks - 1)] += 1;
        }
    }
    turns.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strided(stride: u64) -> [u64; LANES] {
        std::array::from_fn(|lane| 1024 + lane as u64 * stride)
    }

    #[test]
    fn sectors_of_strides() {
        assert_eq!(sectors(&strided(4), Mask::MAX, 4), 4);
        assert_eq!(sectors(&strided(32), Mask::MAX, 4), 32);
        assert_eq!(sectors(&strided(0), Mask::MAX, 4), 1);
        assert_eq!(sectors(&strided(16), Mask::MAX, 16), 16);
        let mut reversed = strided(4);
        reversed.reverse();
        assert_eq!(sectors(&reversed, Mask::MAX, 4), 4);
        assert_eq!(sectors(&strided(4), 0xff, 4), 1);
        assert_eq!(sectors(&strided(8).map(|address| address + 28), Mask::MAX, 8), 9, "from the end of a sector on");
    }

    #[test]
    fn moved_patterns_take_the_same() {
        let mut pattern = Pattern::default();
        let mut take = |addresses: [u64; LANES], mask, bytes: u32| {
            let wanted = wavefronts(&addresses, mask, bytes);
            assert_eq!(pattern.result(&addresses, mask, unit(bytes), || wavefronts(&addresses, mask, bytes)), wanted);
        };
        for stride in [2, 4, 6, 8, 80, 132] {
            for distance in [0, 2, 4, 16, 20, 22] {
                take(strided(stride).map(|address| address + distance), Mask::MAX, 2);
                take(strided(stride * 2).map(|address| address + distance * 2), Mask::MAX, 4);
                take(strided(stride * 8).map(|address| address + distance * 8), 0xffff, 16);
            }
        }
        let mut pattern = Pattern::default();
        for distance in [0, 4, 28, 32, 36] {
            let addresses = strided(8).map(|address| address + distance);
            let wanted = (sectors(&addresses, Mask::MAX, 4), 0);
            assert_eq!(pattern.result(&addresses, Mask::MAX, SECTOR, || wanted), wanted);
        }
    }

    #[test]
    fn bank_conflicts_of_strides() {
        assert_eq!(wavefronts(&strided(4), Mask::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&strided(8), Mask::MAX, 4), (2, 1));
        assert_eq!(wavefronts(&strided(128), Mask::MAX, 4), (32, 1));
        assert_eq!(wavefronts(&strided(132), Mask::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&strided(0), Mask::MAX, 4), (1, 1), "broadcast");
        let halves = std::array::from_fn(|lane| 1024 + lane as u64 % 2 * 4);
        assert_eq!(wavefronts(&halves, Mask::MAX, 4), (1, 1), "two places in turn");
        assert_eq!(wavefronts(&strided(16), Mask::MAX, 16), (4, 4));
        assert_eq!(wavefronts(&strided(128), Mask::MAX, 16), (32, 4));
        assert_eq!(wavefronts(&strided(144), Mask::MAX, 16), (4, 4), "padded rows");
    }
}
