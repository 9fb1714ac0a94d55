//! NVTX ranges, by which NVIDIA's profilers name stretches of time: where its library is installed, else nothing.

use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use libloading::Library;

/// Name of the library.
pub const LIBRARY: &str = "libnvToolsExt.so.1";

/// The library's two functions for ranges of a thread.
pub struct Ranges {
    push: unsafe extern "C" fn(*const c_char) -> c_int,
    pop: unsafe extern "C" fn() -> c_int,
    /// Holds the functions.
    _library: Library,
}

/// The library, looked for once; `None` where it is not installed.
pub fn ranges() -> Option<&'static Ranges> {
    static RANGES: OnceLock<Option<Ranges>> = OnceLock::new();
    RANGES.get_or_init(load).as_ref()
}

fn load() -> Option<Ranges> {
    // SAFETY: loads NVIDIA's library, whose initialisers are the vendor's; NVTX says what its functions take and give,
    // and they stay as long as the library does.
    unsafe {
        let library = Library::new(LIBRARY).ok()?;
        let push = *library.get::<unsafe extern "C" fn(*const c_char) -> c_int>(b"nvtxRangePushA").ok()?;
        let pop = *library.get::<unsafe extern "C" fn() -> c_int>(b"nvtxRangePop").ok()?;
        Some(Ranges { push, pop, _library: library })
    }
}

impl Ranges {
    /// Begins a range of this thread, within those that it has begun.
    pub fn push(&self, name: &CStr) {
        // SAFETY: the library reads a text that ends with a zero before the call returns.
        unsafe { (self.push)(name.as_ptr()) };
    }

    /// Ends the range that this thread began last.
    pub fn pop(&self) {
        // SAFETY: takes nothing; without a range that was begun, the library gives an error code.
        unsafe { (self.pop)() };
    }
}
