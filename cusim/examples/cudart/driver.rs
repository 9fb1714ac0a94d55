//! Functions of the driver whose enumerations a program gives as numbers, which may be any: cudarc's types hold known ones only.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::OnceLock;

/// The code for what the driver does not have.
const NOT_FOUND: u32 = 500;

/// The address of a function, 0 if the driver does not have it.
fn find(name: &CStr) -> usize {
    // SAFETY: the names end with a zero; the driver is loaded already, or it is loaded as cudarc does it.
    unsafe {
        let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY);
        if library.is_null() { 0 } else { libc::dlsym(library, name.as_ptr()) as usize }
    }
}

macro_rules! functions {
    ($($name:ident = $text:literal($($arg:ident: $ty:ty),*);)*) => {$(
        /// The driver's function of this name.
        ///
        /// # Safety
        /// As for that.
        pub unsafe fn $name($($arg: $ty),*) -> Result<(), u32> {
            static ADDRESS: OnceLock<usize> = OnceLock::new();
            match *ADDRESS.get_or_init(|| find($text)) {
                0 => Err(NOT_FOUND),
                address => {
                    // SAFETY: the driver's function of this name has this type; the rest as for this function.
                    let code = unsafe {
                        std::mem::transmute::<usize, unsafe extern "C" fn($($ty),*) -> u32>(address)($($arg),*)
                    };
                    if code == 0 { Ok(()) } else { Err(code) }
                }
            }
        }
    )*};
}

functions! {
    cuGetErrorString = c"cuGetErrorString"(code: u32, text: *mut *const c_char);
    cuGetErrorName = c"cuGetErrorName"(code: u32, text: *mut *const c_char);
    cuDeviceGetAttribute = c"cuDeviceGetAttribute"(value: *mut c_int, attribute: c_int, device: c_int);
    cuFuncGetAttribute = c"cuFuncGetAttribute"(value: *mut c_int, attribute: c_int, function: usize);
    cuFuncSetAttribute = c"cuFuncSetAttribute"(function: usize, attribute: c_int, value: c_int);
    cuCtxGetLimit = c"cuCtxGetLimit"(value: *mut usize, limit: c_uint);
    cuCtxSetLimit = c"cuCtxSetLimit"(limit: c_uint, value: usize);
}
