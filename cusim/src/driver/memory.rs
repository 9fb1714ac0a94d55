//! Allocations and pools.

use std::sync::Arc;

use super::code::*;
use super::handles::Kind;
use super::work::Work;
use super::{Driver, say};
use crate::mem::AllocationKind;

/// A memory pool. It limits and counts; memory is the device's.
pub struct Pool {
    /// Its device.
    pub device: u32,
    /// Attributes that were set.
    pub attributes: std::collections::HashMap<u32, u64>,
}

impl Pool {
    /// An empty pool.
    pub fn new(device: u32) -> Self {
        Self { device, attributes: std::collections::HashMap::new() }
    }
}

impl Kind for Pool {
    const TAG: u64 = 0x58;
}

/// Of the flags of registered memory: it is another device's.
const IO_MEMORY: u32 = 4;

/// Attributes of pools: how memory is reused, when it is given back, and how much there is.
mod attribute {
    pub const REUSE: std::ops::RangeInclusive<u32> = 1..=3;
    pub const THRESHOLD: u32 = 4;
    pub const AMOUNTS: std::ops::RangeInclusive<u32> = 5..=8;
}

impl Driver {
    /// Allocates memory of the current device.
    pub fn allocate(&mut self, bytes: u64, kind: AllocationKind, call: &str) -> Result<u64, Code> {
        let device = self.current_device()?;
        self.allocate_on(device, bytes, kind, call)
    }

    fn allocate_on(&mut self, device: u32, bytes: u64, kind: AllocationKind, call: &str) -> Result<u64, Code> {
        self.healthy()?;
        self.allocations += 1;
        if self.config.failures.alloc == Some(self.allocations) {
            say(&format!("{call}: allocation {} fails, as CUSIM_FAIL orders", self.allocations));
            return Err(OUT_OF_MEMORY);
        }
        let owner = &mut self.devices[device as usize];
        let on_device = kind != AllocationKind::Pinned;
        if on_device && owner.memory.saturating_sub(owner.used) < bytes {
            let (used, memory) = (owner.used, owner.memory);
            say(&format!("{call}: {bytes} bytes asked for, {} of {memory} free", memory - used));
            return Err(OUT_OF_MEMORY);
        }
        let context = self.launches;
        let origin = format!(", after {context} launches");
        let address = self.memory.allocate(bytes, kind, device, origin).ok_or(OUT_OF_MEMORY)?;
        if on_device {
            self.devices[device as usize].used += bytes;
        }
        if matches!(kind, AllocationKind::Pinned | AllocationKind::Managed) {
            // The host writes it with plain stores, which nothing here sees.
            self.memory.mark_written(address, bytes);
        }
        Ok(address)
    }

    /// Fails where devices have no memory pools, as every call on pools and in stream order does there.
    pub fn need_pools(&self) -> Result<(), Code> {
        if self.config.pools { Ok(()) } else { Err(NOT_SUPPORTED) }
    }

    /// Allocates in stream order.
    pub fn allocate_in_stream(&mut self, pool: Option<u64>, bytes: u64, stream: u64) -> Result<u64, Code> {
        self.need_pools()?;
        let device = match pool {
            Some(pool) => self.pools.get(pool)?.device,
            None => self.current_device()?,
        };
        if bytes == 0 {
            return Ok(0);
        }
        // Memory that was freed in stream order is there again once those frees are done.
        let owner = &self.devices[device as usize];
        let full = owner.memory.saturating_sub(owner.used) < bytes;
        let captured = self.streams.get(stream)?.capture.as_ref().map(|capture| capture.graph);
        if full && captured.is_none() {
            self.drain_all()?;
        }
        let address = self.allocate_on(device, bytes, AllocationKind::Async, "cuMemAllocAsync")?;
        if let Some(graph) = captured {
            // The memory stays as long as the graph.
            Arc::make_mut(&mut self.graphs.get_mut(graph)?.memory).push(address);
        }
        Ok(address)
    }

    /// Frees in stream order.
    pub fn free_in_stream(&mut self, start: u64, stream: u64) -> Result<(), Code> {
        self.need_pools()?;
        if start == 0 {
            return Ok(());
        }
        if let Some(graph) = self.streams.get(stream)?.capture.as_ref().map(|capture| capture.graph) {
            // A free node frees what an allocation node of a graph allocated, and that stays as long as the graph.
            if self.graphs.get(graph)?.memory.contains(&start) {
                return Ok(());
            }
            say(&format!("cuMemFreeAsync: {start:#x} was not allocated in the capture that would free it"));
            self.spoil(graph);
            return Err(INVALID_VALUE);
        }
        self.submit(stream, Work::Free(start))
    }

    /// Frees after everything before is done.
    pub fn free(&mut self, start: u64) -> Result<(), Code> {
        self.healthy()?;
        self.refuse_unsafe()?;
        self.drain_all()?;
        self.free_now(start)
    }

    /// Lets kernels and copies reach memory of the host.
    pub fn register_host(&mut self, start: u64, bytes: u64, flags: u32) -> Result<(), Code> {
        self.healthy()?;
        self.refuse_unsafe()?;
        let device = self.current_device()?;
        if flags & IO_MEMORY != 0 {
            say("cuMemHostRegister: there are no devices whose memory could be registered");
            return Err(NOT_SUPPORTED);
        }
        if !self.memory.register(start, bytes, device) {
            say(&format!(
                "cuMemHostRegister: a part of the {bytes} bytes at {start:#x} is registered or pinned already"
            ));
            return Err(HOST_MEMORY_ALREADY_REGISTERED);
        }
        self.host_flags.insert(start, flags);
        Ok(())
    }

    /// Ends what `register_host` began, once everything before is done.
    pub fn unregister_host(&mut self, start: u64) -> Result<(), Code> {
        self.healthy()?;
        self.refuse_unsafe()?;
        self.drain_all()?;
        if !self.memory.unregister(start) {
            say(&format!("cuMemHostUnregister: nothing was registered that begins at {start:#x}"));
            return Err(HOST_MEMORY_NOT_REGISTERED);
        }
        self.host_flags.remove(&start);
        Ok(())
    }

    /// Flags of the pinned or registered memory around an address.
    pub fn host_flags(&self, address: u64) -> Result<u32, Code> {
        let on_host = |kind| matches!(kind, AllocationKind::Pinned | AllocationKind::Registered);
        let around = self.memory.find(address).filter(|allocation| on_host(allocation.kind) && !allocation.freed);
        let start = around.ok_or(INVALID_VALUE)?.start;
        Ok(self.host_flags.get(&start).copied().unwrap_or(0))
    }

    /// A pool's attribute.
    pub fn pool_attribute(&mut self, pool: u64, name: u32) -> Result<(u64, bool), Code> {
        self.need_pools()?;
        let pool = self.pools.get(pool)?;
        let set = pool.attributes.get(&name).copied();
        let used = self.devices[pool.device as usize].used;
        match name {
            _ if attribute::REUSE.contains(&name) => Ok((set.unwrap_or(1), false)),
            attribute::THRESHOLD => Ok((set.unwrap_or(0), true)),
            _ if attribute::AMOUNTS.contains(&name) => Ok((used, true)),
            _ => Err(INVALID_VALUE),
        }
    }

    /// Sets a pool's attribute.
    pub fn set_pool_attribute(&mut self, pool: u64, name: u32, value: u64) -> Result<(), Code> {
        let pool = self.pools.get_mut(pool)?;
        if !attribute::REUSE.contains(&name) && name != attribute::THRESHOLD && !attribute::AMOUNTS.contains(&name) {
            return Err(INVALID_VALUE);
        }
        pool.attributes.insert(name, value);
        Ok(())
    }

    /// Whether an address belongs to memory that the driver gave out.
    pub fn is_known(&self, address: u64) -> bool {
        self.memory.find(address).is_some() || self.memory.heap_around(address).is_some()
    }
}
