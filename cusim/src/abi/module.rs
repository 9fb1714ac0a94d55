//! Modules and functions.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::{api, put, string};
use crate::driver::code::{Code, FILE_NOT_FOUND, INVALID_IMAGE, INVALID_VALUE, NO_BINARY_FOR_GPU};
use crate::driver::{say, with};
use crate::module::binary_kind;

/// Loads an image that ends with a zero, as PTX does.
unsafe fn load(module: *mut u64, image: *const c_void) -> Result<(), Code> {
    if image.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: images are at least four bytes long.
    let magic = unsafe { *image.cast::<[u8; 4]>() };
    if let Some(kind) = binary_kind(&magic) {
        say(&format!("cuModuleLoadData: {kind}: cusim runs PTX only; compile with nvcc -ptx and load that"));
        return Err(NO_BINARY_FOR_GPU);
    }
    // SAFETY: what is not binary is text that ends with a zero.
    let text = unsafe { CStr::from_ptr(image.cast::<c_char>()) }.to_str().map_err(|_| INVALID_IMAGE)?;
    let loaded = with(|d| d.load_module(text))?;
    // SAFETY: the caller gives a valid pointer.
    unsafe { put(module, loaded) }
}

api! {
    /// Loads PTX.
    fn cuModuleLoadData(module: *mut u64, image: *const c_void) {
        // SAFETY: as for this function.
        unsafe { load(module, image) }
    }

    /// Loads PTX; the options are for a real compiler.
    fn cuModuleLoadDataEx(module: *mut u64, image: *const c_void, count: c_uint, options: *const c_void, values: *const c_void) {
        let _ = (count, options, values);
        // SAFETY: as for this function.
        unsafe { load(module, image) }
    }

    /// Fat binaries are not supported.
    fn cuModuleLoadFatBinary(module: *mut u64, image: *const c_void) {
        let _ = (module, image);
        say("cuModuleLoadFatBinary: cusim runs PTX only; compile with nvcc -ptx and load that");
        Err(NO_BINARY_FOR_GPU)
    }

    /// Loads a file of PTX.
    fn cuModuleLoad(module: *mut u64, path: *const c_char) {
        // SAFETY: as for this function.
        let path = unsafe { string(path)? };
        let bytes = std::fs::read(path).map_err(|error| {
            say(&format!("cuModuleLoad: {path}: {error}"));
            FILE_NOT_FOUND
        })?;
        if let Some(kind) = binary_kind(&bytes) {
            say(&format!("cuModuleLoad: {path}: {kind}: cusim runs PTX only; compile with nvcc -ptx and load that"));
            return Err(NO_BINARY_FOR_GPU);
        }
        let text = String::from_utf8(bytes).map_err(|_| INVALID_IMAGE)?;
        let loaded = with(|d| d.load_module(text.trim_end_matches('\0')))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(module, loaded) }
    }

    /// Ends a module.
    fn cuModuleUnload(module: u64) {
        with(|d| d.unload_module(module))
    }

    /// A kernel of a module.
    fn cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char) {
        // SAFETY: as for this function.
        let name = unsafe { string(name)? };
        let found = with(|d| d.function(module, name))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(function, found) }
    }

    /// A variable of a module.
    fn cuModuleGetGlobal_v2(address: *mut u64, bytes: *mut usize, module: u64, name: *const c_char) {
        // SAFETY: as for this function.
        let name = unsafe { string(name)? };
        let (start, size) = with(|d| d.variable(module, name))?;
        // SAFETY: the caller gives null or valid pointers.
        unsafe {
            if !address.is_null() {
                put(address, start)?;
            }
            if !bytes.is_null() {
                put(bytes, size as usize)?;
            }
        }
        Ok(())
    }

    /// Functions are lowered when they are asked for, whatever the loading mode.
    fn cuModuleGetLoadingMode(mode: *mut c_uint) {
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(mode, 2) }
    }

    /// An attribute of a kernel.
    fn cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: u64) {
        let found = with(|d| d.function_attribute(function, attribute))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(value, found) }
    }

    /// Sets an attribute of a kernel.
    fn cuFuncSetAttribute(function: u64, attribute: c_uint, value: c_int) {
        with(|d| d.set_function_attribute(function, attribute, value))
    }

    /// The preferred cache configuration, which changes nothing here.
    fn cuFuncSetCacheConfig(function: u64, config: c_uint) {
        if config > 3 {
            return Err(INVALID_VALUE);
        }
        with(|d| d.functions.get(function).map(|_| ()))
    }

    /// A kernel's module.
    fn cuFuncGetModule(module: *mut u64, function: u64) {
        let found = with(|d| Ok(d.functions.get(function)?.module))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(module, found) }
    }
}
