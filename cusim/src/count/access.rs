//! Counting memory accesses: bytes, sectors, bank conflicts.

use crate::exec::observe::Seen;
use crate::exec::op::{LANES, Mask};
use crate::exec::program::{AccessKind, Program};

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
}

impl AccessCounts {
    /// Counts by memory instruction.
    pub fn sites(&self) -> &[SiteCounts] {
        &self.sites
    }

    /// Back to nothing.
    pub fn clear(&mut self) {
        self.sites.fill(SiteCounts::default());
    }

    fn site(&mut self, program: &Program, seen: &Seen, mask: Mask) -> &mut SiteCounts {
        if self.sites.len() < program.sites.len() {
            self.sites.resize(program.sites.len(), SiteCounts::default());
        }
        let site = &mut self.sites[seen.index as usize];
        if seen.site.access == AccessKind::Atomic {
            site.atomics += u64::from(mask.count_ones());
        }
        site
    }

    /// An access to device memory.
    pub fn global(&mut self, program: &Program, seen: &Seen, mask: Mask) {
        let site = self.site(program, seen, mask);
        site.global_bytes += u64::from(seen.bytes) * u64::from(mask.count_ones());
        site.sectors += sectors(seen.addresses, mask, u64::from(seen.bytes));
    }

    /// An access to shared memory.
    pub fn shared(&mut self, program: &Program, seen: &Seen, mask: Mask) {
        let site = self.site(program, seen, mask);
        site.shared_bytes += u64::from(seen.bytes) * u64::from(mask.count_ones());
        let (taken, ideal) = wavefronts(seen.addresses, mask, seen.bytes);
        site.wavefronts += taken;
        site.ideal_wavefronts += ideal;
    }

    /// An access to local memory.
    pub fn local(&mut self, program: &Program, seen: &Seen, mask: Mask) {
        self.site(program, seen, mask).local_bytes += u64::from(seen.bytes) * u64::from(mask.count_ones());
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

/// Different sectors that lanes touch.
fn sectors(addresses: &[u64; LANES], mask: Mask, bytes: u64) -> u64 {
    if is_even(addresses, mask, bytes) {
        return (addresses[LANES - 1] + bytes - 1) / SECTOR - addresses[0] / SECTOR + 1;
    }
    let lanes = (0..LANES).filter(|lane| mask >> lane & 1 != 0);
    let mut count = 0;
    let mut next = 0;
    let mut last = 0;
    let mut sorted = true;
    for lane in lanes.clone() {
        let address = addresses[lane];
        sorted &= address >= last;
        last = address;
        let (first, end) = (address / SECTOR, (address + bytes - 1) / SECTOR + 1);
        count += end.saturating_sub(first.max(next));
        next = next.max(end);
    }
    if sorted {
        return count;
    }
    let mut all: Vec<u64> =
        lanes.flat_map(|lane| addresses[lane] / SECTOR..=(addresses[lane] + bytes - 1) / SECTOR).collect();
    all.sort_unstable();
    all.dedup();
    all.len() as u64
}

/// Passes over the banks: lanes are served in groups of at most 128 bytes; within a group, different places of one bank
/// (for wider accesses, of one set of neighbouring banks) take turns.
fn wavefronts(addresses: &[u64; LANES], mask: Mask, bytes: u32) -> (u64, u64) {
    let unit = u64::from(bytes.clamp(4, 16));
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
