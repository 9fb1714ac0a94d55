//! Address spaces, and the check that every access passes.
//!
//! Each memory instruction remembers the bounds of the allocation that it touched last: as long as it stays inside,
//! checking costs two comparisons.

use std::arch::x86_64::{
    _mm_loadu_si128, _mm256_add_epi64, _mm256_and_si256, _mm256_castsi256_pd, _mm256_cvtepu32_epi64,
    _mm256_loadu_si256, _mm256_movemask_pd, _mm256_or_si256, _mm256_set_epi64x, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_storeu_si256, _mm256_sub_epi64, _mm256_testz_si256, _mm256_xor_si256,
};

use super::core::Core;
use super::event::Event;
use super::op::Inst;
use crate::machine::address::{
    FIRST_OFFSET, Invalid, LOCAL_WINDOW, PARAM_WINDOW, Place, SHARED_WINDOW, Site, WINDOW_SIZE, space,
};
use crate::machine::fault::{Access, Fault, FaultKind};
use crate::machine::{LANES, Mask};
use crate::ptx::Space;

/// A checked access of a warp.
pub struct Located {
    /// Address of lane i's data on the host is `base + addresses[i] + i * stride`.
    pub base: u64,
    /// See there.
    pub stride: u64,
    /// Whether the lanes' addresses follow each other without gaps, all lanes running.
    pub dense: bool,
}

impl Located {
    /// Addresses of the lanes' data on the host.
    #[inline(always)]
    pub fn hosts(&self, addresses: &[u64; LANES]) -> [u64; LANES] {
        let mut hosts = [0; LANES];
        for lane in 0..LANES {
            hosts[lane] = addresses[lane].wrapping_add(self.base);
        }
        if self.stride != 0 {
            for (lane, host) in hosts.iter_mut().enumerate() {
                *host = host.wrapping_add(lane as u64 * self.stride);
            }
        }
        hosts
    }
}

/// Lanes that do not run repeat the first one that does.
#[inline(never)]
fn repeat_first(addresses: &mut [u64; LANES], mask: Mask) {
    let first = addresses[mask.trailing_zeros() as usize & 31];
    for (lane, address) in addresses.iter_mut().enumerate() {
        *address = if mask >> lane & 1 != 0 { *address } else { first };
    }
}

impl Core {
    /// Addresses of the lanes; inactive lanes repeat the first active one's.
    ///
    /// # Safety
    /// `slot` must be a register of the width that `SPACE` uses.
    #[inline(always)]
    pub unsafe fn addresses<const SPACE: u8>(&self, slot: u32, offset: u64) -> [u64; LANES] {
        let mut addresses = [0; LANES];
        // SAFETY: as for this function; operations run only where the processor has AVX2.
        unsafe {
            let distance = _mm256_set1_epi64x(offset as i64);
            for four in 0..LANES / 4 {
                let value = if SPACE == space::SHARED || SPACE == space::LOCAL {
                    let narrow = self.regs.add(slot as usize).cast::<u32>().add(4 * four);
                    _mm256_cvtepu32_epi64(_mm_loadu_si128(narrow.cast()))
                } else {
                    _mm256_loadu_si256(self.regs.add(slot as usize).cast::<u64>().add(4 * four).cast())
                };
                let address = _mm256_add_epi64(value, distance);
                _mm256_storeu_si256(addresses.as_mut_ptr().add(4 * four).cast(), address);
            }
        }
        if self.mask != Mask::MAX {
            repeat_first(&mut addresses, self.mask);
        }
        addresses
    }

    /// Where lane 0's addresses of a place are on the host, and the distance between lanes.
    #[inline(always)]
    pub fn base<const SPACE: u8>(&self, place: Place) -> (u64, u64) {
        match place {
            Place::Fixed(base) if SPACE == space::GLOBAL || SPACE == space::GENERIC => (base, 0),
            Place::Shared(window) if SPACE == space::SHARED || SPACE == space::GENERIC => {
                ((self.shared as u64).wrapping_sub(window), 0)
            }
            Place::Local(window) if SPACE == space::LOCAL || SPACE == space::GENERIC => {
                ((self.local as u64).wrapping_sub(window), self.local_stride as u64)
            }
            // A site of one space never holds a place of another.
            _ => (0, 0),
        }
    }

    /// Checks the running lanes' accesses of `bytes` each; `None` means that the fault was raised.
    ///
    /// # Safety
    /// The instruction's `aux` must be the index of its site.
    #[inline(always)]
    pub unsafe fn locate<const SPACE: u8>(
        &mut self,
        inst: &Inst,
        addresses: &[u64; LANES],
        bytes: u64,
        write: bool,
    ) -> Option<Located> {
        // SAFETY: every memory instruction has a site of its own.
        let site = unsafe { *self.sites.add(inst.aux as usize) };
        let first = addresses[0];
        // An address is inside if neither its distance from the first valid one nor that from the last has its top bit
        // set: no valid range is as long as half the address space.
        let span = site.high.wrapping_sub(site.low).wrapping_sub(bytes);
        // SAFETY: operations run only where the processor has AVX2.
        let (outside, gap, unaligned_lanes) = unsafe {
            let [low, span] = [site.low, span].map(|value| _mm256_set1_epi64x(value as i64));
            let step = _mm256_set1_epi64x(4 * bytes as i64);
            let bytes = bytes as i64;
            let lanes = _mm256_set_epi64x(3 * bytes, 2 * bytes, bytes, 0);
            let mut next = _mm256_add_epi64(_mm256_set1_epi64x(first as i64), lanes);
            let mut outside = span;
            let mut gap = _mm256_setzero_si256();
            let mut bits = _mm256_setzero_si256();
            for four in 0..LANES / 4 {
                let address = _mm256_loadu_si256(addresses.as_ptr().add(4 * four).cast());
                let inside = _mm256_sub_epi64(address, low);
                outside = _mm256_or_si256(outside, _mm256_or_si256(inside, _mm256_sub_epi64(span, inside)));
                gap = _mm256_or_si256(gap, _mm256_xor_si256(address, next));
                bits = _mm256_or_si256(bits, address);
                next = _mm256_add_epi64(next, step);
            }
            let unaligned = _mm256_and_si256(bits, _mm256_set1_epi64x(bytes - 1));
            let outside = _mm256_movemask_pd(_mm256_castsi256_pd(outside)) != 0;
            (outside, _mm256_testz_si256(gap, gap) == 0, _mm256_testz_si256(unaligned, unaligned) == 0)
        };
        let dense = !gap && self.mask == Mask::MAX;
        if !outside && !unaligned_lanes {
            let (base, stride) = self.base::<SPACE>(site.place);
            return Some(Located { base, stride, dense: dense && stride == 0 });
        }
        self.locate_slowly::<SPACE>(inst, addresses, bytes, write)
    }

    /// The path for accesses that leave the remembered bounds.
    #[cold]
    #[inline(never)]
    fn locate_slowly<const SPACE: u8>(
        &mut self,
        inst: &Inst,
        addresses: &[u64; LANES],
        bytes: u64,
        write: bool,
    ) -> Option<Located> {
        let mut found: Option<Site> = None;
        for lane in (0..LANES).filter(|lane| self.mask >> lane & 1 != 0) {
            let address = addresses[lane];
            if address & (bytes - 1) != 0 {
                let detail = format!("the address is no multiple of {bytes}");
                return self.refuse::<SPACE>(inst, lane, address, bytes, write, FaultKind::Misaligned, detail);
            }
            if let Some(site) = found
                && address >= site.low
                && address < site.high
                && site.high - address >= bytes
            {
                continue;
            }
            match self.bounds::<SPACE>(address, bytes, write) {
                // Lanes in different allocations: each has its own place, which one base cannot say.
                Ok(site) if found.is_some_and(|found| found.place != site.place) => {
                    return self.locate_apart::<SPACE>(inst, lane, address, bytes, write);
                }
                Ok(site) => found = Some(site),
                Err(invalid) => {
                    return self.refuse::<SPACE>(inst, lane, address, bytes, write, invalid.kind, invalid.detail);
                }
            }
        }
        let site = found?;
        // SAFETY: the block outlives the run of its warps; every memory instruction has a site of its own.
        unsafe {
            // What a kernel allocated it may free at any time, so nothing of that is remembered.
            if (*self.block).launch().memory.heap_around(site.low).is_none() {
                *self.sites.add(inst.aux as usize) = site;
            }
        }
        let (base, stride) = self.base::<SPACE>(site.place);
        Some(Located { base, stride, dense: false })
    }

    /// One instruction that reaches shared memory in some lanes and device memory in others.
    fn locate_apart<const SPACE: u8>(
        &mut self,
        inst: &Inst,
        lane: usize,
        address: u64,
        bytes: u64,
        write: bool,
    ) -> Option<Located> {
        if self.mask.count_ones() == 1 {
            return self.refuse::<SPACE>(
                inst,
                lane,
                address,
                bytes,
                write,
                FaultKind::BadOperand,
                "the access lies in two places at once".into(),
            );
        }
        self.event = Event::Apart;
        None
    }

    #[allow(clippy::too_many_arguments, reason = "these are the parts of one report")]
    fn refuse<const SPACE: u8>(
        &mut self,
        inst: &Inst,
        lane: usize,
        address: u64,
        bytes: u64,
        write: bool,
        kind: FaultKind,
        detail: String,
    ) -> Option<Located> {
        let space = match SPACE {
            space::SHARED => Space::Shared,
            space::LOCAL => Space::Local,
            space::GLOBAL => Space::Global,
            _ => Space::Generic,
        };
        self.event = Event::Fault(Box::new(Fault {
            kind,
            origin: inst.origin,
            lane: lane as u32,
            block: 0,
            access: Some(Access { address, bytes: bytes as u32, space, write }),
            detail,
        }));
        None
    }

    /// The valid range around an address.
    pub fn bounds<const SPACE: u8>(&self, address: u64, bytes: u64, write: bool) -> Result<Site, Invalid> {
        // SAFETY: the block outlives the run of its warps.
        let block = unsafe { &*self.block };
        let in_window = |window: u64| (window..window + WINDOW_SIZE).contains(&address);
        match SPACE {
            space::SHARED => block.shared_bounds(address, bytes, 0),
            space::LOCAL => self.local_bounds(address, bytes, 0),
            space::GENERIC if in_window(SHARED_WINDOW) => block.shared_bounds(address, bytes, SHARED_WINDOW),
            space::GENERIC if in_window(LOCAL_WINDOW) => self.local_bounds(address, bytes, LOCAL_WINDOW),
            space::GENERIC if in_window(PARAM_WINDOW) => block.param_bounds(address, bytes, write),
            _ => block.launch().memory.bounds(address, bytes),
        }
    }

    /// The current stack of local memory. It changes with calls, so it is not remembered beyond them.
    fn local_bounds(&self, address: u64, bytes: u64, window: u64) -> Result<Site, Invalid> {
        let low = window + u64::from(FIRST_OFFSET);
        let high = window + u64::from(self.local_base + self.local_size);
        if address >= low && address < high && high - address >= bytes {
            return Ok(Site { low, high, place: Place::Local(window + u64::from(FIRST_OFFSET)) });
        }
        Err(Invalid {
            kind: FaultKind::OutOfBounds,
            detail: format!("the thread's stack spans {:#x}..{:#x} of local memory", low - window, high - window),
        })
    }
}
