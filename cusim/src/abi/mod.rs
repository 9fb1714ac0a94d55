//! The C interface: every function that a program may look up in `libcuda.so.1`.

mod context;
mod graph;
mod launch;
mod library;
mod lookup;
pub(crate) mod memory;
mod misc;
mod module;
mod pool;
mod rows;
mod stream;
mod unsupported;

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::driver::code::{Code, INVALID_VALUE, NOT_SUPPORTED, UNKNOWN};
use crate::driver::release::{loaded, version_text};
use crate::driver::{calls, say};

/// Runs a call of a function that CUDA has had since a version; a bug in cusim becomes an error code, since a panic must not
/// leave the library.
fn call(name: &'static str, since: u32, f: impl FnOnce() -> Result<(), Code>) -> u32 {
    calls::note(name);
    if !loaded().has(since) {
        let (since, release) = (version_text(since), loaded());
        say(&format!("{name} came with CUDA {since}; driver {} has CUDA {}", release.key, release.cuda_text()));
        return NOT_SUPPORTED.0;
    }
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(())) => 0,
        Ok(Err(Code(code))) => code,
        Err(_) => {
            say(&format!("{name}: internal error; please report it with the message above"));
            UNKNOWN.0
        }
    }
}

/// Defines exported functions whose bodies return `Result<(), Code>`.
macro_rules! api {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        ///
        /// # Safety
        /// As CUDA's function of this name: pointers must be valid for what the call reads and writes.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "CUDA's names")]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> u32 {
            const SINCE: u32 = $crate::driver::release::since(stringify!($name));
            $crate::abi::call(stringify!($name), SINCE, || $body)
        }
    )*};
}
use api;

/// Writes through a pointer that the caller gave.
///
/// # Safety
/// It must be null or valid.
unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Code> {
    if to.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not null, so valid by the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}

/// Reads a C string.
///
/// # Safety
/// The pointer must be null or point to a string that ends with a zero.
unsafe fn string<'a>(text: *const c_char) -> Result<&'a str, Code> {
    if text.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: not null, so valid by the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| INVALID_VALUE)
}
