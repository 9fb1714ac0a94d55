//! Shows memory accesses to the checks and counters, after they were made.

use super::core::Core;
use super::op::{Inst, Op, OpFn, op};
use crate::machine::access::{AccessKind, MemorySite, Seen};
use crate::machine::address::{Site, space};
use crate::machine::{LANES, Mask};

/// Runs a memory instruction, then shows it.
struct Observed;

impl Op for Observed {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        // SAFETY: only memory instructions, which have a site, are observed; the block outlives the run of its warps.
        unsafe {
            let block = &mut *core.block;
            let program = block.launch().program;
            let site = &program.listing.sites[inst.aux as usize];
            let addresses = addresses(core, inst, site);
            let second = (site.access == AccessKind::AsyncCopy).then(|| {
                let source = &program.listing.sites[inst.aux as usize + 1];
                (source, self::addresses(core, inst, source))
            });
            let races = block.checks.as_ref().is_some_and(|checks| checks.looks_for_races());
            let stored = if races { same_values(core, inst, site, &addresses) } else { None };
            if (inst.inner)(core, inst) {
                return true;
            }
            let warp = core.warp;
            let mask = core.mask & site.lanes;
            let seen = Seen { site, index: inst.aux, warp, mask, addresses: &addresses, bytes: site.bytes };
            core.show(&seen, stored.as_ref());
            if let Some((site, addresses)) = second {
                let read = match site.access {
                    AccessKind::PartialCopy => core.get::<u32>(inst.ops[2]).map(|bytes| bytes.min(site.bytes)),
                    _ => [site.bytes; LANES],
                };
                let mut left = mask;
                while left != 0 {
                    // Lanes that read as much as the first of those left; some read nothing.
                    let bytes = read[left.trailing_zeros() as usize];
                    let alike = (0..LANES).filter(|lane| read[*lane] == bytes).fold(0, |lanes, lane| lanes | 1 << lane);
                    let mask = left & alike;
                    left &= !alike;
                    if bytes != 0 {
                        core.show(&Seen { site, index: inst.aux + 1, warp, mask, addresses: &addresses, bytes }, None);
                    }
                }
            }
        }
        false
    }
}

/// Addresses of an instruction's operand, whatever its width.
#[inline(always)]
unsafe fn addresses(core: &Core, inst: &Inst, site: &MemorySite) -> [u64; LANES] {
    let slot = inst.ops[site.address as usize];
    let offset = match site.access {
        AccessKind::AsyncCopy if site.address == 0 => inst.imm & 0xffff_ffff,
        AccessKind::AsyncCopy | AccessKind::PartialCopy => (inst.imm as i64 >> 32) as u64,
        _ => inst.imm,
    };
    // SAFETY: the site says which register holds the address and how wide it is.
    unsafe {
        if site.wide {
            core.addresses::<{ space::GENERIC }>(slot, offset)
        } else {
            core.addresses::<{ space::SHARED }>(slot, offset)
        }
    }
}

/// Whether some running lanes access the same place, or might.
fn meet(addresses: &[u64; LANES], mask: Mask, bytes: u32) -> bool {
    let mut taken = [0u64; 16];
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        let place = addresses[lane] / u64::from(bytes) % 1024;
        taken[place as usize / 64] |= 1 << (place % 64);
    }
    taken.iter().map(|bits| bits.count_ones()).sum::<u32>() < mask.count_ones()
}

/// Where running lanes store to one place, for each lane the first that stores the same value: these do not race.
unsafe fn same_values(core: &Core, inst: &Inst, site: &MemorySite, addresses: &[u64; LANES]) -> Option<[u32; LANES]> {
    let stores = matches!(site.access, AccessKind::Store | AccessKind::MatrixStore);
    if !stores || !meet(addresses, core.mask & site.lanes, site.bytes) {
        return None;
    }
    let mut first = std::array::from_fn(|lane| lane as u32);
    // The rows of matrices come from many lanes, no two of which should write the same.
    if site.access == AccessKind::MatrixStore {
        return Some(first);
    }
    let mut values = [[0u64; 4]; LANES];
    for part in 0..usize::from(site.values) {
        let slot = inst.ops[1 + part];
        // SAFETY: a store's operands after the address are its values.
        let all: [u64; LANES] = unsafe {
            match site.bytes / u32::from(site.values) {
                1 => core.get::<u16>(slot).map(|value| u64::from(value as u8)),
                2 => core.get::<u16>(slot).map(u64::from),
                4 => core.get::<u32>(slot).map(u64::from),
                _ => core.get(slot),
            }
        };
        for lane in 0..LANES {
            values[lane][part] = all[lane];
        }
    }
    for lane in 0..LANES {
        let same = (0..lane).find(|other| core.mask >> other & 1 != 0 && values[*other] == values[lane]);
        first[lane] = same.unwrap_or(lane) as u32;
    }
    Some(first)
}

impl Core {
    fn show(&mut self, seen: &Seen, stored: Option<&[u32; LANES]>) {
        // SAFETY: the block outlives the run of its warps.
        let block = unsafe { &mut *self.block };
        let Some(mut checks) = block.checks.take() else {
            return;
        };
        checks.accessed(&block.launch().watch, seen, stored);
        block.checks = Some(checks);
    }

    /// Shows the elements that a matrix instruction accessed, one set of lanes after the other.
    pub fn observe_elements(&mut self, inst: &Inst, elements: &[[u64; LANES]]) {
        // SAFETY: matrix instructions have a site; the block outlives the run of its warps.
        let block = unsafe { &mut *self.block };
        if block.checks.is_none() {
            return;
        }
        let program = block.launch().program;
        let site = &program.listing.sites[inst.aux as usize];
        for addresses in elements {
            let seen = Seen { site, index: inst.aux, warp: self.warp, mask: self.mask, addresses, bytes: site.bytes };
            self.show(&seen, None);
        }
    }

    /// Shows a piece of what these lanes copied, at one end of the copy.
    pub fn observe_piece(&mut self, index: u32, lanes: Mask, addresses: &[u64; LANES]) {
        // SAFETY: the block outlives the run of its warps, and the instruction has this site.
        let block = unsafe { &mut *self.block };
        if block.checks.is_none() {
            return;
        }
        let site = &block.launch().program.listing.sites[index as usize];
        let mask = self.mask & lanes;
        self.show(&Seen { site, index, warp: self.warp, mask, addresses, bytes: site.bytes }, None);
    }

    /// The host's address for one lane's access, if it is valid.
    pub fn checked<const SPACE: u8>(&self, lane: usize, address: u64, bytes: u64, write: bool) -> Option<u64> {
        if !address.is_multiple_of(bytes) {
            return None;
        }
        let site: Site = self.bounds::<SPACE>(address, bytes, write).ok()?;
        let (base, stride) = self.base::<SPACE>(site.place);
        Some(base.wrapping_add(address).wrapping_add(lane as u64 * stride))
    }

    /// The host's address for a generic one as a lane sees it.
    pub fn host_address(&self, lane: usize, address: u64, bytes: u64) -> Option<u64> {
        let site = self.bounds::<{ space::GENERIC }>(address, bytes, false).ok()?;
        let (base, stride) = self.base::<{ space::GENERIC }>(site.place);
        Some(base.wrapping_add(address).wrapping_add(lane as u64 * stride))
    }
}

/// Applies the guard, then does what [`Observed`] does.
struct GuardedObserved;

impl Op for GuardedObserved {
    #[inline(always)]
    unsafe fn run(core: &mut Core, inst: &Inst) -> bool {
        let all = core.mask;
        // SAFETY: the instruction has a guard.
        unsafe {
            core.mask = all & core.guard(inst);
            let left = core.mask != 0 && Observed::run(core, inst);
            if !left {
                core.mask = all;
            }
            left
        }
    }
}

/// A memory instruction that is shown.
pub fn observed() -> OpFn {
    op::<Observed>()
}

/// A guarded memory instruction that is shown.
pub fn guarded_observed() -> OpFn {
    op::<GuardedObserved>()
}
