//! Memory: allocation, copies, advice.

use std::ffi::{c_int, c_uint, c_void};

use super::{api, put};
use crate::driver::code::{Code, INVALID_VALUE};
use crate::driver::work::{Place, Work};
use crate::driver::{Driver, with};
use crate::mem::AllocationKind;

/// Where an address that a copy names is.
fn place(d: &Driver, address: u64) -> Place {
    if d.is_known(address) { Place::Device(address) } else { Place::Host(address) }
}

/// A copy that is done when the call returns. It goes through the legacy stream, after all blocking work.
fn copy_now(
    to: impl Fn(&Driver) -> Place,
    from: impl Fn(&Driver) -> Place,
    bytes: usize,
    call: &'static str,
) -> Result<(), Code> {
    with(|d| {
        d.healthy()?;
        d.refuse_unsafe()?;
        let stream = d.resolve_stream(0)?;
        let work = Work::Copy { to: to(d), from: from(d), bytes: bytes as u64, call };
        d.submit_and_finish(stream, work)
    })
}

/// A copy in stream order.
fn copy_later(to: Place, from: Place, bytes: usize, stream: u64, call: &'static str) -> Result<(), Code> {
    with(|d| {
        d.healthy()?;
        let stream = d.resolve_stream(stream)?;
        let bytes = bytes as u64;
        // What is wrong now will not be right later.
        for (end, verb) in [(from, "reads"), (to, "writes")] {
            if let Place::Device(address) = end {
                d.check_range(address, bytes, call, verb)?;
            }
        }
        let captured = d.streams.get(stream)?.capture.is_some();
        match (to, from) {
            // Pageable memory is read before the call returns, except that a graph reads it when it runs.
            (Place::Device(to), Place::Host(from)) if !captured && bytes > 0 => {
                if from == 0 {
                    return Err(INVALID_VALUE);
                }
                // SAFETY: the caller promises that the source is valid.
                let data = unsafe { std::slice::from_raw_parts(from as *const u8, bytes as usize) }.to_vec();
                d.submit(stream, Work::Write { to, data: data.into(), call })
            }
            // Into pageable memory the call waits.
            (Place::Host(_), _) if !captured => d.submit_and_finish(stream, Work::Copy { to, from, bytes, call }),
            _ => d.submit(stream, Work::Copy { to, from, bytes, call }),
        }
    })
}

fn fill(to: u64, value: u32, width: u64, count: usize, stream: Option<u64>) -> Result<(), Code> {
    with(|d| {
        d.healthy()?;
        let handle = d.resolve_stream(stream.unwrap_or(0))?;
        if stream.is_none() {
            d.refuse_unsafe()?;
        }
        d.submit_fill(handle, to, 0, value, width, count as u64, 1)
    })
}

/// Place of a host address, which may be pinned.
fn host(address: *const c_void) -> Result<Place, Code> {
    with(|d| Ok(place(d, address as u64)))
}

fn allocate(to: *mut u64, bytes: usize, kind: AllocationKind, call: &str) -> Result<(), Code> {
    if bytes == 0 || to.is_null() {
        return Err(INVALID_VALUE);
    }
    let address = with(|d| {
        d.refuse_unsafe()?;
        d.allocate(bytes as u64, kind, call)
    })?;
    // SAFETY: the caller gives a valid pointer.
    unsafe { put(to, address) }
}

api! {
    /// Free and total memory of the current device.
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let (used, memory) = with(|d| {
            let device = d.current_device()?;
            let device = &d.devices[device as usize];
            Ok((device.used, device.memory))
        })?;
        // SAFETY: the caller gives valid pointers.
        unsafe {
            put(free, memory.saturating_sub(used) as usize)?;
            put(total, memory as usize)
        }
    }

    /// Allocates device memory.
    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        allocate(address, bytes, AllocationKind::Device, "cuMemAlloc")
    }

    /// Frees device memory.
    fn cuMemFree_v2(address: u64) {
        with(|d| d.free(address))
    }

    /// Allocates device memory in stream order.
    fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: u64) {
        let start = with(|d| {
            d.healthy()?;
            let stream = d.resolve_stream(stream)?;
            d.allocate_in_stream(None, bytes as u64, stream)
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(address, start) }
    }

    /// Allocates from a pool in stream order.
    fn cuMemAllocFromPoolAsync(address: *mut u64, bytes: usize, pool: u64, stream: u64) {
        let start = with(|d| {
            d.healthy()?;
            let stream = d.resolve_stream(stream)?;
            d.allocate_in_stream(Some(pool), bytes as u64, stream)
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(address, start) }
    }

    /// Frees in stream order.
    fn cuMemFreeAsync(address: u64, stream: u64) {
        with(|d| {
            d.healthy()?;
            let stream = d.resolve_stream(stream)?;
            d.free_in_stream(address, stream)
        })
    }

    /// Allocates pinned memory of the host.
    fn cuMemHostAlloc(pointer: *mut u64, bytes: usize, flags: c_uint) {
        if flags > 7 {
            return Err(INVALID_VALUE);
        }
        allocate(pointer, bytes, AllocationKind::Pinned, "cuMemHostAlloc")?;
        // SAFETY: `allocate` checked and wrote the pointer.
        let start = unsafe { *pointer };
        with(|d| {
            d.host_flags.insert(start, flags);
            Ok(())
        })
    }

    /// Allocates pinned memory of the host.
    fn cuMemAllocHost_v2(pointer: *mut u64, bytes: usize) {
        allocate(pointer, bytes, AllocationKind::Pinned, "cuMemAllocHost")
    }

    /// Frees pinned memory.
    fn cuMemFreeHost(pointer: u64) {
        with(|d| {
            d.free(pointer)?;
            d.host_flags.remove(&pointer);
            Ok(())
        })
    }

    /// The device's address of pinned memory, which is the host's.
    fn cuMemHostGetDevicePointer_v2(address: *mut u64, pointer: u64, flags: c_uint) {
        if flags != 0 || !with(|d| Ok(d.is_known(pointer)))? {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(address, pointer) }
    }

    /// Allocates memory that host and device share.
    fn cuMemAllocManaged(address: *mut u64, bytes: usize, flags: c_uint) {
        if !matches!(flags, 1 | 2 | 4) {
            return Err(INVALID_VALUE);
        }
        allocate(address, bytes, AllocationKind::Managed, "cuMemAllocManaged")?;
        // The host writes it without the driver's knowledge, so all of it counts as written.
        // SAFETY: `allocate` checked and wrote the pointer.
        let start = unsafe { *address };
        with(|d| {
            d.memory.mark_written(start, bytes as u64);
            Ok(())
        })
    }

    /// Where an allocation begins and how large it is.
    fn cuMemGetAddressRange_v2(base: *mut u64, size: *mut usize, address: u64) {
        let (start, bytes) = with(|d| d.memory.find(address).map(|a| (a.start, a.bytes)).ok_or(INVALID_VALUE))?;
        // SAFETY: the caller gives null or valid pointers.
        unsafe {
            if !base.is_null() {
                put(base, start)?;
            }
            if !size.is_null() {
                put(size, bytes as usize)?;
            }
        }
        Ok(())
    }

    /// Copies to the device.
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) {
        copy_now(|_| Place::Device(to), |d| place(d, from as u64), bytes, "cuMemcpyHtoD")
    }

    /// Copies from the device.
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) {
        copy_now(|d| place(d, to as u64), |_| Place::Device(from), bytes, "cuMemcpyDtoH")
    }

    /// Copies within the device.
    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) {
        copy_now(|_| Place::Device(to), |_| Place::Device(from), bytes, "cuMemcpyDtoD")
    }

    /// Copies between any two places.
    fn cuMemcpy(to: u64, from: u64, bytes: usize) {
        copy_now(|d| place(d, to), |d| place(d, from), bytes, "cuMemcpy")
    }

    /// Copies to the device in stream order.
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: u64) {
        copy_later(Place::Device(to), host(from)?, bytes, stream, "cuMemcpyHtoDAsync")
    }

    /// Copies from the device in stream order.
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: u64) {
        copy_later(host(to)?, Place::Device(from), bytes, stream, "cuMemcpyDtoHAsync")
    }

    /// Copies within the device in stream order.
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) {
        copy_later(Place::Device(to), Place::Device(from), bytes, stream, "cuMemcpyDtoDAsync")
    }

    /// Copies between any two places in stream order.
    fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: u64) {
        let (to, from) = with(|d| Ok((place(d, to), place(d, from))))?;
        copy_later(to, from, bytes, stream, "cuMemcpyAsync")
    }

    /// Copies between devices.
    fn cuMemcpyPeer(to: u64, to_context: u64, from: u64, from_context: u64, bytes: usize) {
        with(|d| d.contexts.get(to_context).and(d.contexts.get(from_context)).map(|_| ()))?;
        copy_now(|_| Place::Device(to), |_| Place::Device(from), bytes, "cuMemcpyPeer")
    }

    /// Copies between devices in stream order.
    fn cuMemcpyPeerAsync(to: u64, to_context: u64, from: u64, from_context: u64, bytes: usize, stream: u64) {
        with(|d| d.contexts.get(to_context).and(d.contexts.get(from_context)).map(|_| ()))?;
        copy_later(Place::Device(to), Place::Device(from), bytes, stream, "cuMemcpyPeerAsync")
    }

    /// Fills with a byte.
    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        fill(to, u32::from(value), 1, count, None)
    }

    /// Fills with two bytes.
    fn cuMemsetD16_v2(to: u64, value: u16, count: usize) {
        fill(to, u32::from(value), 2, count, None)
    }

    /// Fills with four bytes.
    fn cuMemsetD32_v2(to: u64, value: c_uint, count: usize) {
        fill(to, value, 4, count, None)
    }

    /// Fills with a byte in stream order.
    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: u64) {
        fill(to, u32::from(value), 1, count, Some(stream))
    }

    /// Fills with two bytes in stream order.
    fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: u64) {
        fill(to, u32::from(value), 2, count, Some(stream))
    }

    /// Fills with four bytes in stream order.
    fn cuMemsetD32Async(to: u64, value: c_uint, count: usize, stream: u64) {
        fill(to, value, 4, count, Some(stream))
    }

    /// Advice about managed memory, which changes nothing here.
    fn cuMemAdvise(address: u64, bytes: usize, advice: c_uint, device: c_int) {
        let _ = (advice, device);
        with(|d| d.check_range(address, bytes as u64, "cuMemAdvise", "names"))
    }

    /// Advice about managed memory, which changes nothing here.
    fn cuMemAdvise_v2(address: u64, bytes: usize, advice: c_uint, location: u64) {
        let _ = (advice, location);
        with(|d| d.check_range(address, bytes as u64, "cuMemAdvise", "names"))
    }

    /// Moves managed memory, which stays where it is here.
    fn cuMemPrefetchAsync(address: u64, bytes: usize, device: c_int, stream: u64) {
        let _ = device;
        with(|d| {
            d.resolve_stream(stream)?;
            d.check_range(address, bytes as u64, "cuMemPrefetchAsync", "names")
        })
    }

    /// Moves managed memory, which stays where it is here.
    fn cuMemPrefetchAsync_v2(address: u64, bytes: usize, location: u64, flags: c_uint, stream: u64) {
        let _ = (location, flags);
        with(|d| {
            d.resolve_stream(stream)?;
            d.check_range(address, bytes as u64, "cuMemPrefetchAsync", "names")
        })
    }

    /// Ties managed memory to a stream, which changes nothing here.
    fn cuStreamAttachMemAsync(stream: u64, address: u64, bytes: usize, flags: c_uint) {
        let _ = (bytes, flags);
        with(|d| {
            let stream = d.resolve_stream(stream)?;
            // No graph has such a node.
            d.refuse_in_capture(stream)?;
            if d.is_known(address) { Ok(()) } else { Err(INVALID_VALUE) }
        })
    }
}
