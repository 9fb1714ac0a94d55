//! What nvcc's code calls to register a program's kernels, and launches.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;

use cudarc::driver::sys;

use crate::state::{self, CONFIGURATIONS, Dim3};
use crate::{Failure, INVALID_CONFIGURATION, INVALID_VALUE, UNKNOWN, api, check, put};

/// What wraps a fat binary in a program.
#[repr(C)]
pub struct Wrapper {
    magic: u32,
    version: u32,
    image: *const c_void,
}

/// A fat binary's handle: its number, from 1 on.
type Handle = *mut *mut c_void;

fn number(handle: Handle) -> usize {
    (handle as usize).wrapping_sub(1)
}

/// A name that the program gave.
///
/// # Safety
/// It must be null or end with a zero.
unsafe fn name(text: *const c_char) -> CString {
    // SAFETY: not null, so a string by the caller's promise.
    if text.is_null() { CString::default() } else { unsafe { CStr::from_ptr(text) }.to_owned() }
}

/// A fat binary of the program.
///
/// # Safety
/// The wrapper must be one that nvcc made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cudaRegisterFatBinary(wrapper: *const Wrapper) -> Handle {
    // SAFETY: as for this function.
    let image = unsafe { (*wrapper).image };
    (state::add_binary(image as usize) + 1) as Handle
}

/// All of a fat binary is registered.
#[unsafe(no_mangle)]
pub extern "C" fn __cudaRegisterFatBinaryEnd(_handle: Handle) {}

/// The program ends.
#[unsafe(no_mangle)]
pub extern "C" fn __cudaUnregisterFatBinary(handle: Handle) {
    state::remove_binary(number(handle));
}

/// Modules are loaded when something of them is asked for.
#[unsafe(no_mangle)]
pub extern "C" fn __cudaInitModule(_handle: Handle) -> c_char {
    1
}

/// A kernel.
///
/// # Safety
/// As nvcc's code calls it.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "these are nvcc's")]
pub unsafe extern "C" fn __cudaRegisterFunction(
    handle: Handle,
    host: *const c_void,
    _device: *mut c_char,
    device_name: *const c_char,
    _limit: c_int,
    _thread: *mut c_void,
    _block: *mut c_void,
    _block_size: *mut c_void,
    _grid_size: *mut c_void,
    _warp: *mut c_int,
) {
    // SAFETY: as for this function.
    state::add_kernel(number(handle), host as usize, unsafe { name(device_name) });
}

/// A variable.
///
/// # Safety
/// As nvcc's code calls it.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "these are nvcc's")]
pub unsafe extern "C" fn __cudaRegisterVar(
    handle: Handle,
    host: *const c_void,
    _device: *mut c_char,
    device_name: *const c_char,
    _external: c_int,
    bytes: usize,
    _constant: c_int,
    _global: c_int,
) {
    // SAFETY: as for this function.
    state::add_variable(number(handle), host as usize, unsafe { name(device_name) }, bytes);
}

/// What `<<<...>>>` says.
#[unsafe(no_mangle)]
pub extern "C" fn __cudaPushCallConfiguration(grid: Dim3, block: Dim3, shared: usize, stream: *mut c_void) -> c_uint {
    CONFIGURATIONS.with_borrow_mut(|all| all.push((grid, block, shared, stream as usize)));
    0
}

/// Launches a kernel, whose blocks may wait for each other if `cooperative`.
unsafe fn launch(
    kernel: sys::CUkernel,
    (grid, block): (Dim3, Dim3),
    arguments: *mut *mut c_void,
    shared: usize,
    stream: *mut c_void,
    cooperative: bool,
) -> Result<(), Failure> {
    let shared = c_uint::try_from(shared).map_err(|_| INVALID_VALUE)?;
    let (function, stream) = (kernel.cast(), stream.cast());
    let (Dim3 { x, y, z }, Dim3 { x: bx, y: by, z: bz }) = (grid, block);
    // SAFETY: as for the functions below.
    let code = unsafe {
        match cooperative {
            true => sys::cuLaunchCooperativeKernel(function, x, y, z, bx, by, bz, shared, stream, arguments),
            false => sys::cuLaunchKernel(function, x, y, z, bx, by, bz, shared, stream, arguments, null_mut()),
        }
    };
    // The runtime has a code of its own for grids and blocks that cannot be.
    check(code).map_err(|code| if code == INVALID_VALUE { INVALID_CONFIGURATION } else { code })
}

api! {
    /// Takes what `<<<...>>>` said.
    fn __cudaPopCallConfiguration(grid: *mut Dim3, block: *mut Dim3, shared: *mut usize, stream: *mut usize) {
        let last = CONFIGURATIONS.with_borrow_mut(Vec::pop).ok_or(UNKNOWN)?;
        // SAFETY: the caller gives valid pointers.
        unsafe {
            put(grid, last.0)?;
            put(block, last.1)?;
            put(shared, last.2)?;
            put(stream, last.3)
        }
    }

    /// A kernel's handle.
    fn __cudaGetKernel(kernel: *mut sys::CUkernel, host: *const c_void) {
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(kernel, state::kernel(host as usize)?) }
    }

    /// Launches a kernel by its handle, which is null where that could not be had.
    fn __cudaLaunchKernel(kernel: sys::CUkernel, grid: Dim3, block: Dim3, arguments: *mut *mut c_void, shared: usize, stream: *mut c_void) {
        if kernel.is_null() {
            let why = state::LAST_ERROR.get();
            return Err(if why == 0 { crate::INVALID_DEVICE_FUNCTION } else { why });
        }
        // SAFETY: as for this function.
        unsafe { launch(kernel, (grid, block), arguments, shared, stream, false) }
    }

    /// Launches a kernel.
    fn cudaLaunchKernel(host: *const c_void, grid: Dim3, block: Dim3, arguments: *mut *mut c_void, shared: usize, stream: *mut c_void) {
        // SAFETY: as for this function.
        unsafe { launch(state::kernel(host as usize)?, (grid, block), arguments, shared, stream, false) }
    }

    /// Launches a kernel whose blocks wait for each other.
    fn cudaLaunchCooperativeKernel(host: *const c_void, grid: Dim3, block: Dim3, arguments: *mut *mut c_void, shared: usize, stream: *mut c_void) {
        // SAFETY: as for this function.
        unsafe { launch(state::kernel(host as usize)?, (grid, block), arguments, shared, stream, true) }
    }

    /// Blocks of a kernel that fit a multiprocessor at once.
    fn cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, host: *const c_void, threads: c_int, shared: usize) {
        // SAFETY: as for this function.
        unsafe {
            let function = state::function(host as usize)?;
            check(sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, threads, shared))
        }
    }

    /// Blocks of a kernel that fit a multiprocessor at once.
    fn cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks: *mut c_int, host: *const c_void, threads: c_int, shared: usize, flags: c_uint) {
        // SAFETY: as for this function.
        unsafe {
            let function = state::function(host as usize)?;
            check(sys::cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, flags))
        }
    }
}
