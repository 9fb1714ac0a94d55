//! Address space that takes real memory only where it is touched.

/// A reserved range of the host's address space.
pub struct Arena {
    start: u64,
    len: u64,
}

impl Arena {
    /// Reserves this many bytes, all zero; `None` if the host refuses.
    pub fn new(len: u64) -> Option<Self> {
        // SAFETY: a new anonymous mapping touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        (start != libc::MAP_FAILED).then_some(Self { start: start as u64, len })
    }

    /// First address.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Size.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Gives the memory of a range back; it reads as zero afterwards.
    pub fn release(&self, from: *mut u8, bytes: u64) {
        const PAGE: u64 = 4096;
        let first = (from as u64).next_multiple_of(PAGE);
        let end = (from as u64 + bytes) / PAGE * PAGE;
        if first < end && first >= self.start && end <= self.start + self.len {
            // SAFETY: whole pages inside this mapping, which nothing refers to any more. That the advice fails would
            // only mean that the memory stays.
            unsafe { libc::madvise(first as *mut libc::c_void, (end - first) as usize, libc::MADV_DONTNEED) };
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping is this arena's own.
        unsafe { libc::munmap(self.start as *mut libc::c_void, self.len as usize) };
    }
}
