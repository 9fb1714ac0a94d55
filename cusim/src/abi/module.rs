//! Modules and functions.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::{api, put, string};
use crate::driver::code::{Code, FILE_NOT_FOUND, INVALID_IMAGE, INVALID_VALUE, NO_BINARY_FOR_GPU};
use crate::driver::kernel::Refused;
use crate::driver::{say, with};
use crate::fatbin;
use crate::module::binary_kind;

/// Where the caller wants to read why an image was refused.
pub(super) struct Log {
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
    pub(super) unsafe fn among(count: c_uint, options: *const c_uint, values: *mut usize) -> Option<Self> {
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

/// Says why an image was refused, to the user and into the caller's log.
pub(super) fn said(call: &str, Refused { code, log: why }: Refused, log: Option<Log>) -> Code {
    if !why.is_empty() {
        say(&format!("{call}: {why}"));
    }
    if let Some(log) = log {
        // SAFETY: the caller of the function gives a buffer of the size that it says.
        unsafe { log.write(&why) };
    }
    code
}

/// Refuses images that are no PTX.
fn refuse_binary(call: &str, image: &[u8]) -> Result<(), Code> {
    let Some(kind) = binary_kind(image) else {
        return Ok(());
    };
    say(&format!("{call}: {kind}: cusim runs PTX only; compile with nvcc -ptx and load that"));
    Err(NO_BINARY_FOR_GPU)
}

/// The PTX of a fat binary for the current device, or for the first where there is no context.
fn unpack<'a>(call: &str, image: &'a [u8]) -> Result<&'a str, Code> {
    let target = with(|d| {
        let device = d.current_device().unwrap_or(0);
        Ok(d.device(device as i32)?.model.target())
    })?;
    fatbin::ptx(image, target).map_err(|why| {
        say(&format!("{call}: the image is {why}"));
        NO_BINARY_FOR_GPU
    })
}

/// The PTX of an image: text that ends with a zero, or a fat binary, which says how long it is.
///
/// # Safety
/// The pointer must be null or point to an image.
pub(super) unsafe fn read_image<'a>(call: &str, image: *const c_void) -> Result<&'a str, Code> {
    if image.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: images are at least four bytes long.
    let magic = unsafe { *image.cast::<[u8; 4]>() };
    refuse_binary(call, &magic)?;
    if magic == fatbin::MAGIC {
        // SAFETY: fat binaries begin with a header, and are as long as that says.
        let bytes = unsafe {
            let header = std::slice::from_raw_parts(image.cast::<u8>(), fatbin::HEADER);
            std::slice::from_raw_parts(image.cast::<u8>(), fatbin::size(header).ok_or(INVALID_IMAGE)?)
        };
        return unpack(call, bytes);
    }
    // SAFETY: what is not binary is text that ends with a zero.
    unsafe { CStr::from_ptr(image.cast::<c_char>()) }.to_str().map_err(|_| INVALID_IMAGE)
}

/// The PTX of a file.
pub(super) fn read_file(call: &str, path: &str) -> Result<String, Code> {
    let bytes = std::fs::read(path).map_err(|error| {
        say(&format!("{call}: {path}: {error}"));
        FILE_NOT_FOUND
    })?;
    let call = format!("{call}: {path}");
    refuse_binary(&call, &bytes)?;
    if bytes.starts_with(&fatbin::MAGIC) {
        return unpack(&call, &bytes).map(str::to_string);
    }
    let text = String::from_utf8(bytes).map_err(|_| INVALID_IMAGE)?;
    Ok(text.trim_end_matches('\0').to_string())
}

/// Loads PTX, and says why not.
fn load(call: &str, text: &str, log: Option<Log>) -> Result<u64, Code> {
    let loaded = with(|d| Ok(d.load_module(text)))?;
    loaded.map_err(|refused| said(call, refused, log))
}

api! {
    /// Loads PTX.
    fn cuModuleLoadData(module: *mut u64, image: *const c_void) {
        // SAFETY: as for this function.
        let text = unsafe { read_image("cuModuleLoadData", image)? };
        let loaded = load("cuModuleLoadData", text, None)?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(module, loaded) }
    }

    /// Loads PTX; of the options, which are for a real compiler, the log of errors is filled.
    fn cuModuleLoadDataEx(module: *mut u64, image: *const c_void, count: c_uint, options: *const c_uint, values: *mut usize) {
        // SAFETY: as for this function.
        let (text, log) = unsafe { (read_image("cuModuleLoadDataEx", image)?, Log::among(count, options, values)) };
        let loaded = load("cuModuleLoadDataEx", text, log)?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(module, loaded) }
    }

    /// Loads the PTX of a fat binary.
    fn cuModuleLoadFatBinary(module: *mut u64, image: *const c_void) {
        // SAFETY: as for this function.
        let text = unsafe { read_image("cuModuleLoadFatBinary", image)? };
        let loaded = load("cuModuleLoadFatBinary", text, None)?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(module, loaded) }
    }

    /// Loads a file of PTX.
    fn cuModuleLoad(module: *mut u64, path: *const c_char) {
        // SAFETY: as for this function.
        let path = unsafe { string(path)? };
        let loaded = load("cuModuleLoad", &read_file("cuModuleLoad", path)?, None)?;
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
