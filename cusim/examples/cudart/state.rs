//! What the runtime knows: fat binaries, kernels and variables that the program registered, and each thread's device.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys;

use crate::{Failure, INVALID_DEVICE_FUNCTION, INVALID_SYMBOL, check};

thread_local! {
    /// What the thread's last failed call failed with.
    pub static LAST_ERROR: Cell<Failure> = const { Cell::new(0) };
    /// The thread's device.
    pub static DEVICE: Cell<i32> = const { Cell::new(0) };
    /// What `<<<...>>>` said, until the launch takes it.
    pub static CONFIGURATIONS: RefCell<Vec<Configuration>> = const { RefCell::new(vec![]) };
}

/// `dim3`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Dim3 {
    pub x: u32,
    pub y: u32,
    pub z: u32,
}

/// Grid, block, dynamic shared memory and stream of a launch.
pub type Configuration = (Dim3, Dim3, usize, usize);

/// A fat binary, loaded when something of it is asked for.
struct Binary {
    image: usize,
    library: Option<usize>,
}

/// A variable: the fat binary, its name there, and its size.
struct Variable {
    binary: usize,
    name: CString,
    bytes: usize,
}

#[derive(Default)]
struct State {
    binaries: Vec<Binary>,
    /// Kernels by the address of what stands for them on the host.
    kernels: HashMap<usize, (usize, CString)>,
    variables: HashMap<usize, Variable>,
    /// Primary contexts by device.
    contexts: HashMap<i32, usize>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

fn with<T>(f: impl FnOnce(&mut State) -> T) -> T {
    let mut state: MutexGuard<_> = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    f(state.get_or_insert_default())
}

/// A fat binary of the program; gives its number.
pub fn add_binary(image: usize) -> usize {
    with(|state| {
        state.binaries.push(Binary { image, library: None });
        state.binaries.len() - 1
    })
}

/// The program ends.
pub fn remove_binary(binary: usize) {
    let library = with(|state| state.binaries.get_mut(binary).and_then(|binary| binary.library.take()));
    if let Some(library) = library {
        // SAFETY: the library was loaded and is not used any more. At exit the driver may be gone already.
        unsafe { sys::cuLibraryUnload(library as sys::CUlibrary) };
    }
}

/// A kernel of a fat binary.
pub fn add_kernel(binary: usize, host: usize, name: CString) {
    with(|state| state.kernels.insert(host, (binary, name)));
}

/// A variable of a fat binary.
pub fn add_variable(binary: usize, host: usize, name: CString, bytes: usize) {
    with(|state| state.variables.insert(host, Variable { binary, name, bytes }));
}

/// Makes the thread's device's primary context current, unless the program has made one so itself.
pub fn make_current() -> Result<(), Failure> {
    let mut current = null_mut();
    // SAFETY: the pointer is valid.
    unsafe {
        check(sys::cuInit(0))?;
        check(sys::cuCtxGetCurrent(&mut current))?;
    }
    if current.is_null() { use_device(DEVICE.get()) } else { Ok(()) }
}

/// Makes a device's primary context current.
pub fn use_device(device: i32) -> Result<(), Failure> {
    let known = with(|state| state.contexts.get(&device).copied());
    let context = match known {
        Some(context) => context as sys::CUcontext,
        None => {
            let mut context = null_mut();
            // SAFETY: the pointer is valid.
            unsafe { check(sys::cuDevicePrimaryCtxRetain(&mut context, device))? };
            with(|state| state.contexts.insert(device, context as usize));
            context
        }
    };
    DEVICE.set(device);
    // SAFETY: the context was retained.
    unsafe { check(sys::cuCtxSetCurrent(context)) }
}

/// Forgets the primary context of the thread's device, which was reset.
pub fn forget_context() {
    with(|state| state.contexts.remove(&DEVICE.get()));
}

fn library(binary: usize) -> Result<sys::CUlibrary, Failure> {
    with(|state| {
        let binary = state.binaries.get_mut(binary).ok_or(INVALID_DEVICE_FUNCTION)?;
        if let Some(library) = binary.library {
            return Ok(library as sys::CUlibrary);
        }
        let mut library = null_mut();
        let image = binary.image as *const c_void;
        // SAFETY: the image is the program's and lives as long as it; there are no options.
        unsafe {
            check(sys::cuLibraryLoadData(&mut library, image, null_mut(), null_mut(), 0, null_mut(), null_mut(), 0))?;
        }
        binary.library = Some(library as usize);
        Ok(library)
    })
}

/// The kernel that something stands for on the host.
pub fn kernel(host: usize) -> Result<sys::CUkernel, Failure> {
    let (binary, name) = with(|state| state.kernels.get(&host).cloned()).ok_or(INVALID_DEVICE_FUNCTION)?;
    let mut kernel = null_mut();
    // SAFETY: the pointers are valid.
    unsafe { check(sys::cuLibraryGetKernel(&mut kernel, library(binary)?, name.as_ptr()))? };
    Ok(kernel)
}

/// The kernel's function in the current context.
pub fn function(host: usize) -> Result<sys::CUfunction, Failure> {
    let mut function = null_mut();
    // SAFETY: the pointer is valid.
    unsafe { check(sys::cuKernelGetFunction(&mut function, kernel(host)?))? };
    Ok(function)
}

/// Address in the current context, and size, of the variable that something stands for on the host.
pub fn variable(host: usize) -> Result<(u64, usize), Failure> {
    let found = with(|state| state.variables.get(&host).map(|known| (known.binary, known.name.clone(), known.bytes)));
    let (binary, name, bytes) = found.ok_or(INVALID_SYMBOL)?;
    let mut address = 0;
    // SAFETY: the pointers are valid.
    unsafe { check(sys::cuLibraryGetGlobal(&mut address, null_mut(), library(binary)?, name.as_ptr()))? };
    Ok((address, bytes))
}
