//! NVTX's ranges of a thread, by which launches are counted: a library of the name `libnvToolsExt.so.1` may be this one, as a link
//! to the same file as `libcuda.so.1`.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int};
use std::sync::Arc;

/// What NVTX gives where there is no range.
const NONE: c_int = -1;

thread_local! {
    /// Ranges that this thread has begun and not ended, the innermost last.
    static OPEN: RefCell<Vec<Arc<str>>> = const { RefCell::new(Vec::new()) };
}

/// The innermost range of this thread.
pub fn innermost() -> Option<Arc<str>> {
    OPEN.with_borrow(|open| open.last().cloned())
}

/// Begins a range within those that the thread has begun; gives how many these are.
///
/// # Safety
/// As NVTX's function of this name: the message ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvtxRangePushA(message: *const c_char) -> c_int {
    if message.is_null() {
        return NONE;
    }
    // SAFETY: the caller gives a text that ends with a zero.
    let name = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    OPEN.with_borrow_mut(|open| {
        open.push(name.into());
        open.len() as c_int - 1
    })
}

/// Ends the range that the thread began last; gives how many it lay within.
#[unsafe(no_mangle)]
pub extern "C" fn nvtxRangePop() -> c_int {
    OPEN.with_borrow_mut(|open| match open.pop() {
        Some(_) => open.len() as c_int,
        None => NONE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_nest_and_belong_to_a_thread() {
        // SAFETY: texts that end with a zero.
        let push = |name: &CStr| unsafe { nvtxRangePushA(name.as_ptr()) };
        assert_eq!((nvtxRangePop(), innermost()), (NONE, None));
        assert_eq!((push(c"outer"), push(c"inner")), (0, 1));
        assert_eq!(innermost().as_deref(), Some("inner"));
        assert_eq!(std::thread::spawn(innermost).join().unwrap(), None);
        assert_eq!((nvtxRangePop(), innermost().as_deref()), (1, Some("outer")));
        assert_eq!((nvtxRangePop(), innermost()), (0, None));
        // SAFETY: it is allowed to give no message.
        assert_eq!(unsafe { nvtxRangePushA(std::ptr::null()) }, NONE);
    }
}
