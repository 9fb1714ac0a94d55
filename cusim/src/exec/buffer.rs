//! Zeroed memory aligned to cache lines.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// A block of memory aligned to 64 bytes that grows and keeps its size.
pub struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the buffer owns its memory and gives out only raw pointers.
unsafe impl Send for Buffer {}

fn layout(bytes: usize) -> Layout {
    // Sizes come from limits checked at launch, far below the maximum of a layout.
    Layout::from_size_align(bytes.max(64), 64).unwrap_or(Layout::new::<[u64; 8]>())
}

impl Buffer {
    /// Memory of this many bytes, all zero.
    pub fn new(bytes: usize) -> Self {
        let layout = layout(bytes);
        // SAFETY: the layout is never of size zero.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Self { start, layout },
            None => handle_alloc_error(layout),
        }
    }

    /// Makes it at least this large. What it held is lost if it grows.
    pub fn reserve(&mut self, bytes: usize) {
        if bytes > self.layout.size() {
            *self = Self::new(bytes);
        }
    }

    fn size(&self) -> usize {
        self.layout.size()
    }

    /// Its first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Sets the first `bytes` bytes.
    pub fn fill(&mut self, bytes: usize, value: u8) {
        // SAFETY: clipped to the buffer.
        unsafe { self.start.as_ptr().write_bytes(value, bytes.min(self.size())) };
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
