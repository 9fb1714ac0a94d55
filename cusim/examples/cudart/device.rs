//! Devices: choosing and waiting for them, and what they and kernels on them are like.

use std::ffi::{c_int, c_uint, c_void};

use cudarc::driver::sys;

use crate::state::{self, DEVICE};
use crate::{Failure, INVALID_VALUE, api, check, driver, put};

/// The version of CUDA whose structures these are.
const RUNTIME: c_int = 13000;

/// `cudaDeviceProp` of CUDA 13; textures and surfaces, which are not supported, are zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Properties {
    name: [u8; 256],
    uuid: [u8; 16],
    luid: [u8; 8],
    luid_mask: c_uint,
    total_memory: usize,
    shared_per_block: usize,
    registers_per_block: c_int,
    warp: c_int,
    pitch: usize,
    threads_per_block: c_int,
    block: [c_int; 3],
    grid: [c_int; 3],
    constant: usize,
    major: c_int,
    minor: c_int,
    texture_alignment: usize,
    texture_pitch: usize,
    multiprocessors: c_int,
    integrated: c_int,
    maps_host: c_int,
    textures: [c_int; 39],
    surface_alignment: usize,
    /// Concurrent kernels to what the L1 cache does for local memory.
    first: [c_int; 15],
    shared_per_multiprocessor: usize,
    /// Registers of a multiprocessor to cooperative launches.
    second: [c_int; 10],
    shared_optin: usize,
    /// Pageable memory by the host's tables to the largest window of an access policy.
    third: [c_int; 4],
    reserved_shared: usize,
    /// Registering host memory to sharing memory between hosts.
    fourth: [c_int; 20],
    reserved: [c_int; 56],
}

/// The attributes of the fields that these arrays hold; 0 where there is none.
const FIRST: [c_int; 15] = [31, 32, 33, 34, 50, 35, 40, 41, 37, 38, 108, 39, 78, 79, 80];
const SECOND: [c_int; 10] = [82, 83, 84, 85, 86, 88, 89, 90, 91, 95];
const THIRD: [c_int; 4] = [100, 101, 106, 109];
const FOURTH: [c_int; 20] = [99, 112, 113, 114, 115, 116, 117, 118, 119, 121, 125, 120, 129, 130, 134, 133, 0, 0, 0, 0];

/// The beginning of `cudaFuncAttributes`.
#[repr(C)]
pub struct Attributes {
    shared: usize,
    constant: usize,
    local: usize,
    /// Threads per block to whether clusters may be of any size.
    rest: [c_int; 13],
    reserved: [c_int; 16],
}

/// An attribute of a device.
fn attribute(attribute: c_int, device: c_int) -> Result<c_int, Failure> {
    let mut value = 0;
    if attribute > 0 {
        // SAFETY: the pointer is valid.
        unsafe { driver::cuDeviceGetAttribute(&mut value, attribute, device)? };
    }
    Ok(value)
}

fn attributes<const N: usize>(numbers: [c_int; N], device: c_int) -> Result<[c_int; N], Failure> {
    let mut values = [0; N];
    for (value, number) in values.iter_mut().zip(numbers) {
        *value = attribute(number, device)?;
    }
    Ok(values)
}

fn properties(device: c_int) -> Result<Properties, Failure> {
    let (mut name, mut uuid, mut total_memory) = ([0u8; 256], [0u8; 16], 0);
    // SAFETY: the pointers are valid for these sizes.
    unsafe {
        check(sys::cuDeviceGetName(name.as_mut_ptr().cast(), 256, device))?;
        check(sys::cuDeviceGetUuid_v2(uuid.as_mut_ptr().cast(), device))?;
        check(sys::cuDeviceTotalMem_v2(&mut total_memory, device))?;
    }
    let of = |number| attribute(number, device);
    let bytes = |number| of(number).map(|value| value as usize);
    Ok(Properties {
        name,
        uuid,
        luid: [0; 8],
        luid_mask: 0,
        total_memory,
        shared_per_block: bytes(8)?,
        registers_per_block: of(12)?,
        warp: of(10)?,
        pitch: bytes(11)?,
        threads_per_block: of(1)?,
        block: attributes([2, 3, 4], device)?,
        grid: attributes([5, 6, 7], device)?,
        constant: bytes(9)?,
        major: of(75)?,
        minor: of(76)?,
        texture_alignment: bytes(14)?,
        texture_pitch: bytes(51)?,
        multiprocessors: of(16)?,
        integrated: of(18)?,
        maps_host: of(19)?,
        textures: [0; 39],
        surface_alignment: bytes(30)?,
        first: attributes(FIRST, device)?,
        shared_per_multiprocessor: bytes(81)?,
        second: attributes(SECOND, device)?,
        shared_optin: bytes(97)?,
        third: attributes(THIRD, device)?,
        reserved_shared: bytes(111)?,
        fourth: attributes(FOURTH, device)?,
        reserved: [0; 56],
    })
}

/// An attribute of a kernel.
fn of_function(function: sys::CUfunction, attribute: c_int) -> Result<c_int, Failure> {
    let mut value = 0;
    // SAFETY: the pointer is valid.
    unsafe { driver::cuFuncGetAttribute(&mut value, attribute, function as usize)? };
    Ok(value)
}

api! {
    /// How many devices there are.
    fn cudaGetDeviceCount(count: *mut c_int) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuDeviceGetCount(count) })
    }

    /// The thread's device.
    fn cudaGetDevice(device: *mut c_int) {
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(device, DEVICE.get()) }
    }

    /// Chooses the thread's device.
    fn cudaSetDevice(device: c_int) {
        state::use_device(device)
    }

    /// Waits for the device.
    fn cudaDeviceSynchronize() {
        // SAFETY: a context is current.
        check(unsafe { sys::cuCtxSynchronize() })
    }

    /// Ends everything on the device.
    fn cudaDeviceReset() {
        state::forget_context();
        // SAFETY: the program uses nothing on the device any more.
        unsafe {
            let reset = check(sys::cuDevicePrimaryCtxReset_v2(DEVICE.get()));
            check(sys::cuCtxSetCurrent(std::ptr::null_mut()))?;
            reset
        }
    }

    /// An attribute of a device.
    fn cudaDeviceGetAttribute(value: *mut c_int, number: c_int, device: c_int) {
        if number <= 0 {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(value, attribute(number, device)?) }
    }

    /// What a device is like.
    fn cudaGetDeviceProperties(to: *mut Properties, device: c_int) {
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(to, properties(device)?) }
    }

    /// The driver's version.
    fn cudaDriverGetVersion(version: *mut c_int) {
        // SAFETY: as for this function.
        check(unsafe { sys::cuDriverGetVersion(version) })
    }

    /// This runtime's version.
    fn cudaRuntimeGetVersion(version: *mut c_int) {
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(version, RUNTIME) }
    }

    /// A limit of the device.
    fn cudaDeviceGetLimit(value: *mut usize, limit: c_uint) {
        // SAFETY: as for this function; limits have the driver's numbers.
        unsafe { driver::cuCtxGetLimit(value, limit) }
    }

    /// Sets a limit of the device.
    fn cudaDeviceSetLimit(limit: c_uint, value: usize) {
        // SAFETY: as for this function; limits have the driver's numbers.
        unsafe { driver::cuCtxSetLimit(limit, value) }
    }

    /// What a kernel is like.
    fn cudaFuncGetAttributes(to: *mut Attributes, host: *const c_void) {
        let function = state::function(host as usize)?;
        let of = |number| of_function(function, number);
        let (shared, constant, local) = (of(1)? as usize, of(2)? as usize, of(3)? as usize);
        let mut rest = [0; 13];
        for (value, number) in rest.iter_mut().zip([0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]) {
            *value = of(number)?;
        }
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(to, Attributes { shared, constant, local, rest, reserved: [0; 16] }) }
    }

    /// Sets an attribute of a kernel.
    fn cudaFuncSetAttribute(host: *const c_void, attribute: c_int, value: c_int) {
        let function = state::function(host as usize)?;
        // SAFETY: attributes have the driver's numbers.
        unsafe { driver::cuFuncSetAttribute(function as usize, attribute, value) }
    }
}
