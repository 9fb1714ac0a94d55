//! Device memory: where it lies, who owns which part of it, and what became of the rest.
//!
//! Device addresses are not host addresses: a program that follows a device pointer on the host crashes here as it
//! would with a real device. Freed memory is not handed out again, so that every late use is noticed.

mod allocation;
mod arena;
mod heap;
mod shadow;

use std::collections::BTreeMap;

use crate::machine::address::{Invalid, Place, Site};
use crate::machine::fault::FaultKind;
pub use allocation::{Allocation, AllocationKind, FreeError};
pub use arena::Arena;
pub use heap::Heap;
pub use shadow::{RaceArenas, Shadow};

/// Device addresses begin here.
pub const DEVICE_BASE: u64 = 0x7_0000_0000_0000 >> 2;
/// Address space of all devices together.
pub const DEVICE_SPACE: u64 = 1 << 40;
/// Address space for pinned and managed memory.
pub const HOST_SPACE: u64 = 128 << 30;
/// Every allocation begins at a multiple of this, as on a real device.
pub const ALIGNMENT: u64 = 512;
/// At least this many bytes lie between allocations.
pub const REDZONE: u64 = 512;
/// What fresh memory is filled with: NaN as a float, -1 as an integer.
pub const POISON: u8 = 0xff;
/// Allocations beyond this are not filled, as that would take real memory for what may never be touched.
const MAX_POISON: u64 = 64 << 20;
/// Freed allocations that are remembered.
const MAX_FREED: usize = 100_000;

/// All memory that kernels can reach.
pub struct Memory {
    device: Arena,
    host: Arena,
    table: BTreeMap<u64, Allocation>,
    freed: std::collections::VecDeque<u64>,
    next_device: u64,
    next_host: u64,
    count: u64,
    shadow: Shadow,
    /// Heaps of devices whose kernels allocate.
    heaps: BTreeMap<u32, Heap>,
    /// Allocations that are the host program's own.
    registered: usize,
}

impl Memory {
    /// Reserves address space; `None` if the host has not enough.
    pub fn new() -> Option<Self> {
        let device = Arena::new(DEVICE_SPACE).or_else(|| Arena::new(DEVICE_SPACE >> 4))?;
        let host = Arena::new(HOST_SPACE).or_else(|| Arena::new(HOST_SPACE >> 4))?;
        Some(Self {
            next_device: DEVICE_BASE + REDZONE,
            next_host: host.start() + REDZONE,
            shadow: Shadow::new(host.start()),
            device,
            host,
            table: BTreeMap::new(),
            freed: std::collections::VecDeque::new(),
            count: 0,
            heaps: BTreeMap::new(),
            registered: 0,
        })
    }

    fn is_host(&self, address: u64) -> bool {
        address.wrapping_sub(self.host.start()) < self.host.size()
    }

    fn is_device(&self, address: u64) -> bool {
        address.wrapping_sub(DEVICE_BASE) < self.device.size()
    }

    /// Distance from an address to where the host finds it.
    fn distance(&self, address: u64) -> u64 {
        if self.is_device(address) { self.device.start().wrapping_sub(DEVICE_BASE) } else { 0 }
    }

    /// Where the host finds an address of device memory.
    pub fn host_pointer(&self, address: u64) -> *mut u8 {
        address.wrapping_add(self.distance(address)) as *mut u8
    }

    /// Allocates; `None` if the address space is used up.
    pub fn allocate(&mut self, bytes: u64, kind: AllocationKind, device: u32, origin: String) -> Option<u64> {
        let on_host = matches!(kind, AllocationKind::Pinned | AllocationKind::Managed);
        let (next, end) = if on_host {
            (&mut self.next_host, self.host.start() + self.host.size())
        } else {
            (&mut self.next_device, DEVICE_BASE + self.device.size())
        };
        let start = next.next_multiple_of(ALIGNMENT);
        let after = start.checked_add(bytes.max(1))?.checked_add(REDZONE)?;
        if after > end {
            return None;
        }
        *next = after;
        self.count += 1;
        let number = self.count;
        let allocation = Allocation { start, bytes, kind, device, number, origin, read_only: false, freed: false };
        self.table.insert(start, allocation);
        // Pinned memory belongs to the host program, which may count on nothing either.
        if bytes <= MAX_POISON {
            // SAFETY: the range lies inside the arena and belongs to the new allocation alone.
            unsafe { self.host_pointer(start).write_bytes(POISON, bytes as usize) };
        }
        Some(start)
    }

    /// Takes the host program's own memory in; whether none of it was known before.
    pub fn register(&mut self, start: u64, bytes: u64, device: u32) -> bool {
        let Some(end) = start.checked_add(bytes) else {
            return false;
        };
        let known = self.find(start).is_some() || self.table.range(start..end).next().is_some();
        let reserved = self.is_device(start) || self.is_host(start) || self.is_device(end) || self.is_host(end);
        if known || reserved {
            return false;
        }
        self.count += 1;
        let (number, kind) = (self.count, AllocationKind::Registered);
        let origin = String::new();
        let allocation = Allocation { start, bytes, kind, device, number, origin, read_only: false, freed: false };
        self.table.insert(start, allocation);
        self.registered += 1;
        true
    }

    /// Forgets memory of the host program's own; whether it was known.
    pub fn unregister(&mut self, start: u64) -> bool {
        if self.table.get(&start).is_none_or(|allocation| allocation.kind != AllocationKind::Registered) {
            return false;
        }
        self.table.remove(&start);
        self.registered -= 1;
        true
    }

    /// Whether some memory is the host program's own, of which nothing is remembered.
    pub fn has_registered(&self) -> bool {
        self.registered > 0
    }

    /// Makes a device's heap, of which kernels may use so many bytes at a time, unless it has one; whether it has one now.
    pub fn make_heap(&mut self, device: u32, limit: u64) -> bool {
        if self.heaps.contains_key(&device) {
            return true;
        }
        let start = self.next_device.next_multiple_of(ALIGNMENT);
        let end = match start.checked_add(Heap::space(limit)) {
            Some(end) if end + REDZONE <= DEVICE_BASE + self.device.size() => end,
            _ => return false,
        };
        self.next_device = end + REDZONE;
        self.heaps.insert(device, Heap::new(start, end, limit));
        true
    }

    /// A device's heap.
    pub fn heap(&self, device: u32) -> Option<&Heap> {
        self.heaps.get(&device)
    }

    /// The heap that an address belongs to.
    pub fn heap_around(&self, address: u64) -> Option<&Heap> {
        self.heaps.values().find(|heap| heap.spans(address))
    }

    /// Allocates from a heap, as a kernel does; `None` if too much is in use.
    pub fn allocate_in(&self, heap: &Heap, bytes: u64) -> Option<u64> {
        let (start, used_before) = heap.allocate(bytes)?;
        // SAFETY: the range lies inside the arena and belongs to the new allocation alone.
        unsafe { self.host_pointer(start).write_bytes(POISON, bytes as usize) };
        if used_before {
            self.shadow.forget_range(start, bytes);
        }
        Some(start)
    }

    /// The allocation that holds an address, in words; `None` if there is none.
    pub fn describe(&self, address: u64) -> Option<String> {
        let (start, text) = match self.find(address) {
            Some(allocation) => (allocation.start, allocation.describe()),
            None => {
                let block = self.heap_around(address)?.before(address).filter(|block| block.holds(address))?;
                (block.start, block.describe())
            }
        };
        Some(format!("{} bytes inside {text}", address - start))
    }

    /// Writes bytes to memory that is allocated; the caller checked that it is.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        // SAFETY: the caller checked the range; nothing runs on the device meanwhile, as this is exclusive.
        unsafe { self.host_pointer(address).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Reads bytes of memory that is allocated; the caller checked that it is.
    pub fn read(&self, address: u64, bytes: &mut [u8]) {
        // SAFETY: the caller checked the range.
        unsafe { self.host_pointer(address).copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Prepares for checks that remember things about memory; whether the host has the address space.
    pub fn enable_checks(&mut self, init: bool, race: bool) -> bool {
        self.shadow.enable(init, race)
    }

    /// What is remembered about memory.
    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// Notes that bytes were written.
    pub fn mark_written(&self, start: u64, bytes: u64) {
        if let Some(written) = self.shadow.written(start) {
            // SAFETY: the caller checked the range, for which there is shadow.
            unsafe { written.write_bytes(1, bytes as usize) };
        }
    }

    /// The first of these bytes that nothing wrote, if that is tracked; the caller checked the range.
    pub fn first_unwritten(&self, start: u64, bytes: u64) -> Option<u64> {
        const PART: usize = 4096;
        let written = self.shadow.written(start)?;
        // SAFETY: the caller checked the range, for which there is shadow.
        let written = unsafe { std::slice::from_raw_parts(written, bytes as usize) };
        let has_unwritten = |bytes: &[u8]| bytes.iter().fold(1, |all, byte| all & byte) == 0;
        // Mostly there is none, which is seen fastest of many bytes at a time.
        let (part, bytes) = written.chunks(PART).enumerate().find(|(_, bytes)| has_unwritten(bytes))?;
        bytes.iter().position(|byte| *byte == 0).map(|at| (part * PART + at) as u64)
    }

    /// Notes that bytes were copied, written or not.
    pub fn copy_written(&self, from: u64, to: u64, bytes: u64) {
        match (self.shadow.written(from), self.shadow.written(to)) {
            // SAFETY: the caller checked the ranges, for which there is shadow.
            (Some(from), Some(to)) => unsafe { std::ptr::copy(from, to, bytes as usize) },
            // From memory of the host program's own, all of which counts as written.
            (None, Some(_)) => self.mark_written(to, bytes),
            (_, None) => {}
        }
    }

    /// Frees what begins at an address.
    pub fn free(&mut self, start: u64) -> Result<Allocation, FreeError> {
        let Some(allocation) = self.table.get_mut(&start) else {
            let near = self.find(start).map_or_else(
                || "no allocation was ever made there".to_string(),
                |near| format!("it lies {} bytes inside {}", start - near.start, near.describe()),
            );
            return Err(FreeError::Unknown(near));
        };
        if allocation.freed {
            return Err(FreeError::Twice(allocation.describe()));
        }
        if allocation.kind == AllocationKind::Registered {
            return Err(FreeError::Unknown(format!("{}, which the host program owns", allocation.describe())));
        }
        allocation.freed = true;
        let result = allocation.clone();
        self.freed.push_back(start);
        if self.freed.len() > MAX_FREED
            && let Some(oldest) = self.freed.pop_front()
        {
            self.table.remove(&oldest);
        }
        let host = self.host_pointer(start);
        let arena = if self.is_host(start) { &self.host } else { &self.device };
        arena.release(host, result.bytes);
        self.shadow.release(start, result.bytes);
        Ok(result)
    }

    /// The allocation that holds an address, freed or not.
    pub fn find(&self, address: u64) -> Option<&Allocation> {
        let (_, allocation) = self.table.range(..=address).next_back()?;
        (address - allocation.start < allocation.bytes.max(1)).then_some(allocation)
    }

    /// The allocation that begins at an address.
    pub fn get(&self, start: u64) -> Option<&Allocation> {
        self.table.get(&start)
    }

    /// Allocations that are not freed.
    pub fn live(&self) -> impl Iterator<Item = &Allocation> {
        self.table.values().filter(|allocation| !allocation.freed)
    }

    /// The valid range around an access.
    pub fn bounds(&self, address: u64, bytes: u64) -> Result<Site, Invalid> {
        let below = self.table.range(..=address).next_back().map(|(_, allocation)| allocation);
        if let Some(allocation) = below {
            let (start, end) = (allocation.start, allocation.start + allocation.bytes);
            if address < end && end - address >= bytes {
                if allocation.freed {
                    let detail = format!("it lies {} bytes inside {}", address - start, allocation.describe());
                    return Err(Invalid { kind: FaultKind::UseAfterFree, detail });
                }
                return Ok(Site { low: start, high: end, place: Place::Fixed(self.distance(address)) });
            }
        }
        if let Some(heap) = self.heap_around(address) {
            return self.heap_bounds(heap, address, bytes);
        }
        Err(Invalid { kind: FaultKind::OutOfBounds, detail: self.explain(address, bytes) })
    }

    fn heap_bounds(&self, heap: &Heap, address: u64, bytes: u64) -> Result<Site, Invalid> {
        let out = |detail| Err(Invalid { kind: FaultKind::OutOfBounds, detail });
        let Some(block) = heap.before(address) else {
            return out("no kernel has allocated memory there".to_string());
        };
        let (start, end) = (block.start, block.start + block.bytes);
        if address >= end || end - address < bytes {
            let over = address.saturating_add(bytes) - end;
            return out(format!("it ends {over} bytes past the end of {}", block.describe()));
        }
        if block.freed {
            let detail = format!("it lies {} bytes inside {}", address - start, block.describe());
            return Err(Invalid { kind: FaultKind::UseAfterFree, detail });
        }
        Ok(Site { low: start, high: end, place: Place::Fixed(self.distance(address)) })
    }

    /// What lies near an address that is not valid.
    pub fn explain(&self, address: u64, bytes: u64) -> String {
        if address < 1 << 16 {
            return "it is a null pointer, or an offset from one".to_string();
        }
        let below = self.table.range(..=address).next_back().map(|(_, allocation)| allocation);
        let above = self.table.range(address.saturating_add(1)..).next().map(|(_, allocation)| allocation);
        let past = below.map(|allocation| {
            let over = address.saturating_add(bytes).saturating_sub(allocation.start + allocation.bytes);
            (over, format!("it ends {over} bytes past the end of {}", allocation.describe()))
        });
        let before = above.map(|allocation| {
            let under = allocation.start - address;
            (under, format!("it begins {under} bytes before {}", allocation.describe()))
        });
        match [past, before].into_iter().flatten().min() {
            Some((distance, text)) if distance < 1 << 20 => text,
            _ => "no allocation is near".to_string(),
        }
    }
}
