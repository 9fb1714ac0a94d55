//! Libraries and their kernels.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::module::{Log, read_file, read_image, said};
use super::{api, put, string};
use crate::driver::code::{Code, INVALID_DEVICE, INVALID_VALUE, NOT_FOUND};
use crate::driver::kernel::Refused;
use crate::driver::{Driver, say, with};

/// Takes PTX in, and says why not.
fn load(call: &str, text: &str, log: Option<Log>) -> Result<u64, Code> {
    let loaded = with(|d| Ok(d.load_library(text)))?;
    loaded.map_err(|refused: Refused| said(call, refused, log))
}

/// A kernel's function, on the device that a call names, which must be the current one.
fn on_device(d: &mut Driver, kernel: u64, device: c_int) -> Result<u64, Code> {
    d.kernels.get(kernel)?;
    d.device(device)?;
    if d.current_device()? as c_int != device {
        say("attributes of a library's kernel can be had and set for the current device only");
        return Err(INVALID_DEVICE);
    }
    d.launchable(kernel)
}

/// Offset and size of a parameter.
unsafe fn parameter(function: u64, index: usize, offset: *mut usize, size: *mut usize) -> Result<(), Code> {
    let slot = with(|d| {
        let function = d.launchable(function)?;
        d.functions.get(function)?.program.params.get(index).copied().ok_or(INVALID_VALUE)
    })?;
    // SAFETY: the caller gives a valid pointer, and null or a valid one for the size.
    unsafe {
        put(offset, slot.offset as usize)?;
        if size.is_null() { Ok(()) } else { put(size, slot.bytes as usize) }
    }
}

/// How many parameters there are.
unsafe fn parameter_count(function: u64, count: *mut usize) -> Result<(), Code> {
    let found = with(|d| {
        let function = d.launchable(function)?;
        Ok(d.functions.get(function)?.program.params.len())
    })?;
    // SAFETY: the caller gives a valid pointer.
    unsafe { put(count, found) }
}

/// Address and size of a library's variable in the current context.
unsafe fn variable(address: *mut u64, bytes: *mut usize, library: u64, name: *const c_char) -> Result<(), Code> {
    // SAFETY: as for the functions below.
    let name = unsafe { string(name)? };
    let (start, size) = with(|d| {
        let module = d.library_module(library)?;
        d.variable(module, name)
    })?;
    // SAFETY: the caller gives null or valid pointers.
    unsafe {
        if !address.is_null() {
            put(address, start)?;
        }
        if bytes.is_null() { Ok(()) } else { put(bytes, size as usize) }
    }
}

api! {
    /// Takes PTX in for all contexts; of the options, which are for a real compiler, the log of errors is filled.
    fn cuLibraryLoadData(
        library: *mut u64, code: *const c_void,
        options: *const c_uint, values: *mut usize, count: c_uint,
        library_options: *const c_uint, library_values: *const *const c_void, library_count: c_uint,
    ) {
        let _ = (library_options, library_values, library_count);
        // SAFETY: as for this function.
        let (text, log) = unsafe { (read_image("cuLibraryLoadData", code)?, Log::among(count, options, values)) };
        let loaded = load("cuLibraryLoadData", text, log)?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(library, loaded) }
    }

    /// Takes a file of PTX in for all contexts.
    fn cuLibraryLoadFromFile(
        library: *mut u64, path: *const c_char,
        options: *const c_uint, values: *mut usize, count: c_uint,
        library_options: *const c_uint, library_values: *const *const c_void, library_count: c_uint,
    ) {
        let _ = (library_options, library_values, library_count);
        // SAFETY: as for this function.
        let (path, log) = unsafe { (string(path)?, Log::among(count, options, values)) };
        let loaded = load("cuLibraryLoadFromFile", &read_file("cuLibraryLoadFromFile", path)?, log)?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(library, loaded) }
    }

    /// Ends a library.
    fn cuLibraryUnload(library: u64) {
        with(|d| d.unload_library(library))
    }

    /// A kernel of a library.
    fn cuLibraryGetKernel(kernel: *mut u64, library: u64, name: *const c_char) {
        // SAFETY: as for this function.
        let name = unsafe { string(name)? };
        let found = with(|d| d.library_kernel(library, name))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(kernel, found) }
    }

    /// How many kernels a library has.
    fn cuLibraryGetKernelCount(count: *mut c_uint, library: u64) {
        let found = with(|d| d.library_kernels(library))?.len();
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(count, found as c_uint) }
    }

    /// A library's kernels, as many as there is room for.
    fn cuLibraryEnumerateKernels(kernels: *mut u64, room: c_uint, library: u64) {
        let found = with(|d| d.library_kernels(library))?;
        if kernels.is_null() || room == 0 {
            return Err(INVALID_VALUE);
        }
        for (index, kernel) in found.into_iter().take(room as usize).enumerate() {
            // SAFETY: the caller gives room for so many handles.
            unsafe { put(kernels.add(index), kernel)? };
        }
        Ok(())
    }

    /// A library's module in the current context.
    fn cuLibraryGetModule(module: *mut u64, library: u64) {
        let found = with(|d| d.library_module(library))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(module, found) }
    }

    /// A variable of a library.
    fn cuLibraryGetGlobal(address: *mut u64, bytes: *mut usize, library: u64, name: *const c_char) {
        // SAFETY: as for this function.
        unsafe { variable(address, bytes, library, name) }
    }

    /// A managed variable of a library; PTX does not say which are.
    fn cuLibraryGetManaged(address: *mut u64, bytes: *mut usize, library: u64, name: *const c_char) {
        let _ = (address, bytes, name);
        with(|d| d.libraries.get(library).map(|_| ()))?;
        Err(NOT_FOUND)
    }

    /// A kernel as a function of the current context.
    fn cuKernelGetFunction(function: *mut u64, kernel: u64) {
        let found = with(|d| {
            d.kernels.get(kernel)?;
            d.launchable(kernel)
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(function, found) }
    }

    /// A kernel's library.
    fn cuKernelGetLibrary(library: *mut u64, kernel: u64) {
        let found = with(|d| Ok(d.kernels.get(kernel)?.library))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(library, found) }
    }

    /// A kernel's name, which lives as long as its library.
    fn cuKernelGetName(name: *mut *const c_char, kernel: u64) {
        let found = with(|d| Ok(d.kernels.get(kernel)?.name.as_ptr() as usize))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(name, found as *const c_char) }
    }

    /// An attribute of a kernel on the current device.
    fn cuKernelGetAttribute(value: *mut c_int, attribute: c_uint, kernel: u64, device: c_int) {
        let found = with(|d| {
            let function = on_device(d, kernel, device)?;
            d.function_attribute(function, attribute)
        })?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(value, found) }
    }

    /// Sets an attribute of a kernel on the current device.
    fn cuKernelSetAttribute(attribute: c_uint, value: c_int, kernel: u64, device: c_int) {
        with(|d| {
            let function = on_device(d, kernel, device)?;
            d.set_function_attribute(function, attribute, value)
        })
    }

    /// The preferred cache configuration, which changes nothing here.
    fn cuKernelSetCacheConfig(kernel: u64, config: c_uint, device: c_int) {
        if config > 3 {
            return Err(INVALID_VALUE);
        }
        with(|d| d.device(device).map(|_| ()).and(d.kernels.get(kernel).map(|_| ())))
    }

    /// Offset and size of a kernel's parameter.
    fn cuKernelGetParamInfo(kernel: u64, index: usize, offset: *mut usize, size: *mut usize) {
        // SAFETY: as for this function.
        unsafe { parameter(kernel, index, offset, size) }
    }

    /// How many parameters a kernel has.
    fn cuKernelGetParamCount(kernel: u64, count: *mut usize) {
        // SAFETY: as for this function.
        unsafe { parameter_count(kernel, count) }
    }

    /// Offset and size of a function's parameter.
    fn cuFuncGetParamInfo(function: u64, index: usize, offset: *mut usize, size: *mut usize) {
        // SAFETY: as for this function.
        unsafe { parameter(function, index, offset, size) }
    }

    /// How many parameters a function has.
    fn cuFuncGetParamCount(function: u64, count: *mut usize) {
        // SAFETY: as for this function.
        unsafe { parameter_count(function, count) }
    }

    /// A function's name, which lives as long as its module.
    fn cuFuncGetName(name: *mut *const c_char, function: u64) {
        let found = with(|d| Ok(d.functions.get(function)?.name.as_ptr() as usize))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(name, found as *const c_char) }
    }

    /// Functions are loaded when they are asked for.
    fn cuFuncIsLoaded(state: *mut c_uint, function: u64) {
        with(|d| d.functions.get(function).map(|_| ()))?;
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(state, 1) }
    }

    /// Functions are loaded when they are asked for.
    fn cuFuncLoad(function: u64) {
        with(|d| d.functions.get(function).map(|_| ()))
    }

    /// How many kernels a module has.
    fn cuModuleGetFunctionCount(count: *mut c_uint, module: u64) {
        let found = with(|d| d.kernel_names(module))?.len();
        // SAFETY: the caller gives a valid pointer.
        unsafe { put(count, found as c_uint) }
    }

    /// A module's kernels, as many as there is room for.
    fn cuModuleEnumerateFunctions(functions: *mut u64, room: c_uint, module: u64) {
        if functions.is_null() || room == 0 {
            return Err(INVALID_VALUE);
        }
        let names = with(|d| d.kernel_names(module))?;
        for (index, name) in names.iter().take(room as usize).enumerate() {
            let function = with(|d| d.function(module, name))?;
            // SAFETY: the caller gives room for so many handles.
            unsafe { put(functions.add(index), function)? };
        }
        Ok(())
    }
}
