//! A CUDA runtime over the documented driver API: `libcudart.so` for programs that nvcc built with
//! `-cudart shared --no-compress` and PTX in them. NVIDIA's own runtime needs more of the driver than is documented.
//!
//! It has what small programs call: memory, copies, launches, streams, events, graphs, symbols and what devices are like.

#![allow(non_snake_case, reason = "CUDA's names")]

mod device;
mod driver;
mod launch;
mod memory;
mod state;
mod streams;

use std::ffi::{CStr, c_char};
use std::panic::catch_unwind;

use cudarc::driver::sys::CUresult;

/// What a call fails with; the driver's and the runtime's numbers are the same where both have one.
type Failure = u32;

const INVALID_VALUE: Failure = 1;
const INVALID_CONFIGURATION: Failure = 9;
const INVALID_SYMBOL: Failure = 13;
const INVALID_DEVICE_FUNCTION: Failure = 98;
const UNKNOWN: Failure = 999;

/// A driver call's outcome.
fn check(code: CUresult) -> Result<(), Failure> {
    if code == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(code as Failure) }
}

/// Runs a call and keeps what it failed with for `cudaGetLastError`.
fn call(body: impl FnOnce() -> Result<(), Failure> + std::panic::UnwindSafe) -> u32 {
    // A panic must not leave the library; it says what happened.
    match catch_unwind(body).unwrap_or(Err(UNKNOWN)) {
        Ok(()) => 0,
        Err(code) => {
            state::LAST_ERROR.set(code);
            code
        }
    }
}

/// Defines exported functions whose bodies return `Result<(), Failure>`, after the calling thread got a context.
macro_rules! api {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        ///
        /// # Safety
        /// As CUDA's function of this name: pointers must be valid for what the call reads and writes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> u32 {
            $crate::call(std::panic::AssertUnwindSafe(|| {
                $crate::state::make_current()?;
                $body
            }))
        }
    )*};
}
use api;

/// Writes through a pointer that the caller gave.
///
/// # Safety
/// It must be null or valid.
unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Failure> {
    if to.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not null, so valid by the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}

/// What the thread's last failed call failed with, which is forgotten.
#[unsafe(no_mangle)]
pub extern "C" fn cudaGetLastError() -> u32 {
    state::LAST_ERROR.replace(0)
}

/// What the thread's last failed call failed with.
#[unsafe(no_mangle)]
pub extern "C" fn cudaPeekAtLastError() -> u32 {
    state::LAST_ERROR.get()
}

/// A text of the driver about an error, or one of our own for codes that only the runtime has.
fn text(
    code: u32,
    of_driver: unsafe fn(u32, *mut *const c_char) -> Result<(), u32>,
    own: [&'static CStr; 3],
) -> *const c_char {
    let [configuration, symbol, function] = own;
    match code {
        INVALID_CONFIGURATION => configuration.as_ptr(),
        INVALID_SYMBOL => symbol.as_ptr(),
        INVALID_DEVICE_FUNCTION => function.as_ptr(),
        _ => {
            let mut found = std::ptr::null();
            // SAFETY: the pointer is valid.
            match unsafe { of_driver(code, &mut found) } {
                Ok(()) if !found.is_null() => found,
                _ => c"unrecognized error code".as_ptr(),
            }
        }
    }
}

/// Describes an error.
#[unsafe(no_mangle)]
pub extern "C" fn cudaGetErrorString(code: u32) -> *const c_char {
    text(
        code,
        driver::cuGetErrorString,
        [c"invalid configuration argument", c"invalid device symbol", c"invalid device function"],
    )
}

/// Names an error.
#[unsafe(no_mangle)]
pub extern "C" fn cudaGetErrorName(code: u32) -> *const c_char {
    let own = [c"cudaErrorInvalidConfiguration", c"cudaErrorInvalidSymbol", c"cudaErrorInvalidDeviceFunction"];
    text(code, driver::cuGetErrorName, own)
}
