//! Memory, copies and symbols.

use std::ffi::{c_int, c_uint, c_void};

use cudarc::driver::sys;

use crate::{Failure, INVALID_VALUE, api, check, put, state};

/// `cudaMemcpyKind`.
mod kind {
    pub const HOST_TO_DEVICE: i32 = 1;
    pub const DEVICE_TO_HOST: i32 = 2;
    pub const DEVICE_TO_DEVICE: i32 = 3;
}

/// Copies, now or in a stream.
unsafe fn copy(
    to: *mut c_void,
    from: *const c_void,
    bytes: usize,
    kind: c_int,
    stream: Option<*mut c_void>,
) -> Result<(), Failure> {
    let (there, here) = (to as u64, from as u64);
    // SAFETY: as for the functions below.
    check(unsafe {
        match (kind, stream.map(|stream| stream.cast())) {
            (kind::HOST_TO_DEVICE, None) => sys::cuMemcpyHtoD_v2(there, from, bytes),
            (kind::DEVICE_TO_HOST, None) => sys::cuMemcpyDtoH_v2(to, here, bytes),
            (kind::DEVICE_TO_DEVICE, None) => sys::cuMemcpyDtoD_v2(there, here, bytes),
            (_, None) => sys::cuMemcpy(there, here, bytes),
            (kind::HOST_TO_DEVICE, Some(stream)) => sys::cuMemcpyHtoDAsync_v2(there, from, bytes, stream),
            (kind::DEVICE_TO_HOST, Some(stream)) => sys::cuMemcpyDtoHAsync_v2(to, here, bytes, stream),
            (kind::DEVICE_TO_DEVICE, Some(stream)) => sys::cuMemcpyDtoDAsync_v2(there, here, bytes, stream),
            (_, Some(stream)) => sys::cuMemcpyAsync(there, here, bytes, stream),
        }
    })
}

/// A copy of rows; where each end is, the driver sees by its address.
fn rows(
    to: *mut c_void,
    to_pitch: usize,
    from: *const c_void,
    from_pitch: usize,
    width: usize,
    height: usize,
) -> sys::CUDA_MEMCPY2D {
    sys::CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_UNIFIED,
        srcHost: from,
        srcDevice: from as u64,
        srcArray: std::ptr::null_mut(),
        srcPitch: from_pitch,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_UNIFIED,
        dstHost: to,
        dstDevice: to as u64,
        dstArray: std::ptr::null_mut(),
        dstPitch: to_pitch,
        WidthInBytes: width,
        Height: height,
    }
}

/// Where a part of a variable is; it must lie within.
fn part(symbol: *const c_void, offset: usize, bytes: usize) -> Result<*mut c_void, Failure> {
    let (address, size) = state::variable(symbol as usize)?;
    match offset.checked_add(bytes) {
        Some(end) if end <= size => Ok((address + offset as u64) as *mut c_void),
        _ => Err(INVALID_VALUE),
    }
}

api! {
    /// Allocates device memory; nothing is an address of nothing.
    fn cudaMalloc(address: *mut u64, bytes: usize) {
        // SAFETY: as for this function.
        unsafe {
            put(address, 0)?;
            if bytes == 0 { Ok(()) } else { check(sys::cuMemAlloc_v2(address, bytes)) }
        }
    }

    /// Allocates rows of device memory.
    fn cudaMallocPitch(address: *mut u64, pitch: *mut usize, width: usize, height: usize) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemAllocPitch_v2(address, pitch, width, height, 16) })
    }

    /// Allocates memory that host and device share.
    fn cudaMallocManaged(address: *mut u64, bytes: usize, flags: c_uint) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemAllocManaged(address, bytes, flags) })
    }

    /// Allocates pinned memory.
    fn cudaMallocHost(pointer: *mut *mut c_void, bytes: usize) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemAllocHost_v2(pointer, bytes) })
    }

    /// Allocates pinned memory.
    fn cudaHostAlloc(pointer: *mut *mut c_void, bytes: usize, flags: c_uint) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemHostAlloc(pointer, bytes, flags) })
    }

    /// Allocates in stream order.
    fn cudaMallocAsync(address: *mut u64, bytes: usize, stream: *mut c_void) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemAllocAsync(address, bytes, stream.cast()) })
    }

    /// Frees device memory.
    fn cudaFree(address: u64) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemFree_v2(address) })
    }

    /// Frees pinned memory.
    fn cudaFreeHost(pointer: *mut c_void) {
        // SAFETY: as for this function.
        if pointer.is_null() { Ok(()) } else { check(unsafe { sys::cuMemFreeHost(pointer) }) }
    }

    /// Frees in stream order.
    fn cudaFreeAsync(address: u64, stream: *mut c_void) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemFreeAsync(address, stream.cast()) })
    }

    /// Lets kernels reach memory of the host.
    fn cudaHostRegister(pointer: *mut c_void, bytes: usize, flags: c_uint) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemHostRegister_v2(pointer, bytes, flags) })
    }

    /// Ends that.
    fn cudaHostUnregister(pointer: *mut c_void) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemHostUnregister(pointer) })
    }

    /// The device's address of pinned or registered memory.
    fn cudaHostGetDevicePointer(address: *mut u64, pointer: *mut c_void, flags: c_uint) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemHostGetDevicePointer_v2(address, pointer, flags) })
    }

    /// Free and total memory.
    fn cudaMemGetInfo(free: *mut usize, total: *mut usize) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemGetInfo_v2(free, total) })
    }

    /// Copies.
    fn cudaMemcpy(to: *mut c_void, from: *const c_void, bytes: usize, kind: c_int) {
        // SAFETY: as for this function.
        unsafe { copy(to, from, bytes, kind, None) }
    }

    /// Copies in stream order.
    fn cudaMemcpyAsync(to: *mut c_void, from: *const c_void, bytes: usize, kind: c_int, stream: *mut c_void) {
        // SAFETY: as for this function.
        unsafe { copy(to, from, bytes, kind, Some(stream)) }
    }

    /// Copies rows.
    fn cudaMemcpy2D(to: *mut c_void, to_pitch: usize, from: *const c_void, from_pitch: usize, width: usize, height: usize, kind: c_int) {
        let _ = kind;
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemcpy2DUnaligned_v2(&rows(to, to_pitch, from, from_pitch, width, height)) })
    }

    /// Copies rows in stream order.
    fn cudaMemcpy2DAsync(to: *mut c_void, to_pitch: usize, from: *const c_void, from_pitch: usize, width: usize, height: usize, kind: c_int, stream: *mut c_void) {
        let _ = kind;
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemcpy2DAsync_v2(&rows(to, to_pitch, from, from_pitch, width, height), stream.cast()) })
    }

    /// Copies into a variable.
    fn cudaMemcpyToSymbol(symbol: *const c_void, from: *const c_void, bytes: usize, offset: usize, kind: c_int) {
        // SAFETY: as for this function.
        unsafe { copy(part(symbol, offset, bytes)?, from, bytes, kind, None) }
    }

    /// Copies out of a variable.
    fn cudaMemcpyFromSymbol(to: *mut c_void, symbol: *const c_void, bytes: usize, offset: usize, kind: c_int) {
        // SAFETY: as for this function.
        unsafe { copy(to, part(symbol, offset, bytes)?, bytes, kind, None) }
    }

    /// A variable's address.
    fn cudaGetSymbolAddress(address: *mut u64, symbol: *const c_void) {
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(address, state::variable(symbol as usize)?.0) }
    }

    /// A variable's size.
    fn cudaGetSymbolSize(bytes: *mut usize, symbol: *const c_void) {
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(bytes, state::variable(symbol as usize)?.1) }
    }

    /// Fills with a byte.
    fn cudaMemset(address: u64, value: c_int, bytes: usize) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemsetD8_v2(address, value as u8, bytes) })
    }

    /// Fills with a byte in stream order.
    fn cudaMemsetAsync(address: u64, value: c_int, bytes: usize, stream: *mut c_void) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemsetD8Async(address, value as u8, bytes, stream.cast()) })
    }

    /// Fills rows with a byte.
    fn cudaMemset2D(address: u64, pitch: usize, value: c_int, width: usize, height: usize) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuMemsetD2D8_v2(address, pitch, value as u8, width, height) })
    }
}
