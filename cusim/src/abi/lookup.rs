//! Looking functions up by name and version.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use super::{api, put, string};
use crate::driver::code::{Code, INVALID_VALUE, NOT_FOUND};
use crate::driver::release::{loaded, since};

/// `CUdriverProcAddressQueryResult`.
mod outcome {
    pub const FOUND: u32 = 0;
    pub const NOT_FOUND: u32 = 1;
    pub const NEWER: u32 = 2;
}

/// Of the flags: streams of their own for each thread, for which there are no functions here.
const PER_THREAD_STREAM: u64 = 2;

/// An exported function's address, null if the release does not have it.
fn exported(name: &str) -> *mut c_void {
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    let library = *LIBRARY.get_or_init(|| {
        // SAFETY: the address is one of this library's; its name lives as long as the library.
        unsafe {
            let mut info: libc::Dl_info = std::mem::zeroed();
            match libc::dladdr(cuGetProcAddress as *const c_void, &mut info) {
                0 => 0,
                _ => {
                    libc::dlopen(CStr::from_ptr(info.dli_fname).as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) as usize
                }
            }
        }
    });
    let Ok(name) = CString::new(name) else {
        return std::ptr::null_mut();
    };
    if library == 0 {
        return std::ptr::null_mut();
    }
    // SAFETY: the handle is this library's, the name ends with a zero.
    unsafe { libc::dlsym(library as *mut c_void, name.as_ptr()) }
}

/// The newest variant of a function that is no newer than `version`, and how the search ended.
fn find(base: &str, version: u32, flags: u64) -> (*mut c_void, u32) {
    let variants = [format!("{base}_v4"), format!("{base}_v3"), format!("{base}_v2"), base.to_string()];
    let mut outcome = outcome::NOT_FOUND;
    for name in variants.iter().filter(|_| flags & PER_THREAD_STREAM == 0) {
        let address = exported(name);
        if !address.is_null() && since(name) <= version {
            return (address, outcome::FOUND);
        }
        if !address.is_null() {
            outcome = outcome::NEWER;
        }
    }
    (std::ptr::null_mut(), outcome)
}

unsafe fn search(symbol: *const c_char, version: c_int, flags: u64) -> Result<(*mut c_void, u32), Code> {
    // SAFETY: as for the functions below.
    let base = unsafe { string(symbol)? };
    let version = u32::try_from(version).map_err(|_| INVALID_VALUE)?;
    if version > loaded().cuda || flags > PER_THREAD_STREAM {
        return Err(INVALID_VALUE);
    }
    Ok(find(base, version, flags))
}

api! {
    /// The address of a function, as CUDA 11.3 defined it.
    fn cuGetProcAddress(symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: u64) {
        // SAFETY: as for this function.
        let (address, outcome) = unsafe { search(symbol, version, flags)? };
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(function, address)? };
        if outcome == outcome::FOUND { Ok(()) } else { Err(NOT_FOUND) }
    }

    /// The address of a function, null if there is none; `status` says why.
    fn cuGetProcAddress_v2(
        symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: u64, status: *mut c_uint,
    ) {
        // SAFETY: as for this function.
        let (address, outcome) = unsafe { search(symbol, version, flags)? };
        // SAFETY: the caller gives a valid pointer, and null or a valid one for the status.
        unsafe {
            put(function, address)?;
            if status.is_null() { Ok(()) } else { put(status, outcome) }
        }
    }
}
