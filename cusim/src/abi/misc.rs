//! Errors, pointers, profilers.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::{api, put};
use crate::driver::code::{INVALID_VALUE, name, text};
use crate::driver::{say, with};
use crate::mem::AllocationKind;

api! {
    /// The name of an error code.
    fn cuGetErrorName(code: c_uint, to: *mut *const c_char) {
        let found = name(code);
        // SAFETY: the caller gives a valid pointer; the texts end with a zero and live for ever.
        unsafe { put(to, found.map_or(std::ptr::null(), |name| name.as_ptr().cast()))? };
        found.map(|_| ()).ok_or(INVALID_VALUE)
    }

    /// The description of an error code.
    fn cuGetErrorString(code: c_uint, to: *mut *const c_char) {
        let found = text(code);
        // SAFETY: as above.
        unsafe { put(to, found.map_or(std::ptr::null(), |text| text.as_ptr().cast()))? };
        found.map(|_| ()).ok_or(INVALID_VALUE)
    }

    /// Tells a profiler to begin; there is none.
    fn cuProfilerStart() {
        with(|_| Ok(()))
    }

    /// Tells a profiler to stop; there is none.
    fn cuProfilerStop() {
        with(|_| Ok(()))
    }

    /// What is known of a pointer: its context, kind of memory, device, and so on.
    fn cuPointerGetAttribute(to: *mut c_void, attribute: c_uint, address: u64) {
        let (allocation, context) = with(|d| {
            let allocation = d.memory.find(address).filter(|allocation| !allocation.freed).cloned().ok_or(INVALID_VALUE)?;
            let context = d.devices[allocation.device as usize].primary.unwrap_or(0);
            Ok((allocation, context))
        })?;
        let on_host = matches!(allocation.kind, AllocationKind::Pinned | AllocationKind::Registered);
        // SAFETY: the caller gives a pointer to a value of the attribute's type.
        unsafe {
            match attribute {
                1 => put(to.cast::<u64>(), context),
                2 => put(to.cast::<c_uint>(), if on_host { 1 } else { 2 }),
                3 | 4 => put(to.cast::<u64>(), address),
                7 => put(to.cast::<u64>(), allocation.number),
                8 => put(to.cast::<c_uint>(), c_uint::from(allocation.kind == AllocationKind::Managed)),
                9 => put(to.cast::<c_int>(), allocation.device as c_int),
                11 => put(to.cast::<u64>(), allocation.start),
                12 => put(to.cast::<usize>(), allocation.bytes as usize),
                _ => {
                    say(&format!("cuPointerGetAttribute: attribute {attribute} is not supported"));
                    Err(crate::driver::code::NOT_SUPPORTED)
                }
            }
        }
    }
}
