//! Modules and functions.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::{api, put, string};
use crate::driver::code::{Code, FILE_NOT_FOUND, INVALID_IMAGE, INVALID_VALUE, NO_BINARY_FOR_GPU};
use crate::driver::kernel::Refused;
use crate::driver::{say, with};
use crate::module::binary_kind;

/// Where the caller wants to read why an image was refused.
struct Log {
    text: *mut u8,
    /// How many bytes there is room for; says how many were written afterwards.
    bytes: *mut usize,
}

/// `CUjit_option`.
mod option {
    pub const ERROR_LOG_BUFFER: u32 = 5;
    pub const ERROR_LOG_BUFFER_SIZE: u32 = 6;
}

impl Log {
    /// The buffer among the options of a call, if there is one.
    ///
    /// # Safety
    /// There must be as many options and values as `count` says.
    unsafe fn among(count: c_uint, options: *const c_uint, values: *mut usize) -> Option<Self> {
        if options.is_null() || values.is_null() {
            return None;
        }
        let find = |wanted: u32| {
            // SAFETY: there are so many options and values by the caller's promise.
            (0..count as usize)
                .find(|index| unsafe { *options.add(*index) } == wanted)
                .map(|index| unsafe { values.add(index) })
        };
        let (text, bytes) = (find(option::ERROR_LOG_BUFFER)?, find(option::ERROR_LOG_BUFFER_SIZE)?);
        // SAFETY: the value of the option is the buffer's address.
        Some(Self { text: unsafe { *text } as *mut u8, bytes })
    }

    /// Writes a line as far as there is room, and a zero.
    ///
    /// # Safety
    /// The buffer must be as large as its option says.
    unsafe fn write(&self, line: &str) {
        // SAFETY: the value of an option is valid by the promise of `among`, the buffer's size by that of this function.
        unsafe {
            let room = *self.bytes;
            if self.text.is_null() || room == 0 {
                return;
            }
            let length = line.len().min(room - 1);
            self.text.copy_from_nonoverlapping(line.as_ptr(), length);
            self.text.add(length).write(0);
            *self.bytes = length + 1;
        }
    }
}

/// Loads PTX, and says why not.
fn load_text(call: &str, text: &str, log: Option<Log>) -> Result<u64, Code> {
    let loaded = with(|d| Ok(d.load_module(text)))?;
    loaded.map_err(|Refused { code, log: why }| {
        if !why.is_empty() {
            say(&format!("{call}: {why}"));
        }
        if let Some(log) = log {
            // SAFETY: the caller of the function gives a buffer of the size that it says.
            unsafe { log.write(&why) };
        }
        code
    })
}

/// Loads an image that ends with a zero, as PTX does.
unsafe fn load(call: &str, module: *mut u64, image: *const c_void, log: Option<Log>) -> Result<(), Code> {
    if image.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: images are at least four bytes long.
    let magic = unsafe { *image.cast::<[u8; 4]>() };
    if let Some(kind) = binary_kind(&magic) {
        say(&format!("{call}: {kind}: cusim runs PTX only; compile with nvcc -ptx and load that"));
        return Err(NO_BINARY_FOR_GPU);
    }
    // SAFETY: what is not binary is text that ends with a zero.
    let text = unsafe { CStr::from_ptr(image.cast::<c_char>()) }.to_str().map_err(|_| INVALID_IMAGE)?;
    let loaded = load_text(call, text, log)?;
    // SAFETY: the caller gives a valid pointer.
    unsafe { put(module, loaded) }
}

api! {
    /// Loads PTX.
    fn cuModuleLoadData(module: *mut u64, image: *const c_void) {
        // SAFETY: as for this function.
        unsafe { load("cuModuleLoadData", module, image, None) }
    }

    /// Loads PTX; of the options, which are for a real compiler, the log of errors is filled.
    fn cuModuleLoadDataEx(module: *mut u64, image: *const c_void, count: c_uint, options: *const c_uint, values: *mut usize) {
        // SAFETY: as for this function.
        unsafe { load("cuModuleLoadDataEx", module, image, Log::among(count, options, values)) }
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
        let loaded = load_text("cuModuleLoad", text.trim_end_matches('\0'), None)?;
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
