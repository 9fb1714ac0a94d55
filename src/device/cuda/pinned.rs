//! Host memory that the device copies from and to by itself, while the host goes on.

use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use bytemuck::Pod;
use cudarc::driver::{CudaContext, DriverError, result, sys};

use super::{DeviceBuffer, Gpu, Ptr};
use crate::error::{Error, Result};

/// Page-locked bytes. Whoever owns them knows when the device is done with them.
pub(super) struct PageLocked {
    at: *mut u8,
    /// Where a device finds them.
    address: u64,
    bytes: usize,
    context: Arc<CudaContext>,
}

// SAFETY: the pointer is to memory that this value alone owns; any thread may use it.
unsafe impl Send for PageLocked {}
// SAFETY: a shared reference gives atomics alone.
unsafe impl Sync for PageLocked {}

impl PageLocked {
    /// Zeros.
    pub fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<PageLocked, DriverError> {
        context.bind_to_thread()?;
        let bytes = bytes.max(1);
        let mut address = 0;
        // SAFETY: the driver gives `bytes` bytes, which are zeroed before anything reads them, and their address for devices.
        let at = unsafe {
            let at = result::malloc_host(bytes, sys::CU_MEMHOSTALLOC_DEVICEMAP)?.cast::<u8>();
            std::ptr::write_bytes(at, 0, bytes);
            sys::cuMemHostGetDevicePointer_v2(&mut address, at.cast(), 0).result()?;
            at
        };
        Ok(PageLocked { at, address, bytes, context: context.clone() })
    }

    /// Number of bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where a device finds them.
    pub fn address(&self) -> Ptr {
        Ptr(self.address)
    }

    /// Eight of the bytes, by their number: what a kernel reads and writes meanwhile.
    pub fn number(&self, eight: usize) -> &AtomicU64 {
        assert!((eight + 1) * size_of::<AtomicU64>() <= self.bytes, "bytes {eight} times 8 of {}", self.bytes);
        // SAFETY: the bytes are there and aligned, since the first begins a page; while this value is shared, nobody accesses
        // them but as atomics.
        unsafe { &*self.at.cast::<AtomicU64>().add(eight) }
    }

    /// The bytes, which begin at a page.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `bytes` bytes are there, and they are borrowed with this value.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.bytes) }
    }
}

impl Drop for PageLocked {
    fn drop(&mut self) {
        let _ = self.context.bind_to_thread();
        // SAFETY: the memory is the driver's, given back once.
        let _ = unsafe { result::free_host(self.at.cast()) };
    }
}

/// A page-locked array in the host's memory.
pub struct Pinned<T: Pod> {
    /// Held while the host reads or writes.
    memory: Mutex<PageLocked>,
    len: usize,
    gpu: Gpu,
    values: PhantomData<T>,
}

impl<T: Pod> std::fmt::Debug for Pinned<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} page-locked values for {:?}", self.len, self.gpu)
    }
}

impl Gpu {
    /// Zeros in page-locked memory.
    pub fn pinned<T: Pod>(&self, len: usize) -> Result<Pinned<T>> {
        self.notice();
        let memory = PageLocked::new(&self.0.context, len * size_of::<T>());
        let memory = memory.map_err(|e| self.error("allocating page-locked memory", e))?;
        Ok(Pinned { memory: Mutex::new(memory), len, gpu: self.clone(), values: PhantomData })
    }
}

impl<T: Pod> Drop for Pinned<T> {
    fn drop(&mut self) {
        // A device that failed neither copies any more nor has anything to be told.
        let _ = self.gpu.synchronize();
    }
}

impl<T: Pod> Pinned<T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn lock(&self) -> MutexGuard<'_, PageLocked> {
        self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Where a kernel finds the values. What it writes there the host reads by [`Pinned::with`].
    pub fn ptr(&self) -> Ptr {
        self.lock().address()
    }

    /// Reads and writes the values, once all copies that were queued from or to them are done.
    pub fn with<R>(&self, work: impl FnOnce(&mut [T]) -> R) -> Result<R> {
        let mut memory = self.lock();
        self.gpu.synchronize()?;
        Ok(work(bytemuck::cast_slice_mut(&mut memory.as_mut_slice()[..self.len * size_of::<T>()])))
    }

    fn fits(&self, buffer: &DeviceBuffer<T>) -> Result<()> {
        match buffer.len() == self.len && buffer.gpu().is(&self.gpu) {
            true => Ok(()),
            false => Err(Error::shape("page-locked memory", format!("{self:?} beside {buffer:?}"))),
        }
    }

    /// Queues a copy to the device, of what is there when the copy's turn comes.
    pub fn copy_to(&self, buffer: &DeviceBuffer<T>) -> Result<()> {
        self.fits(buffer)?;
        let mut memory = self.lock();
        let from = &memory.as_mut_slice()[..self.len * size_of::<T>()];
        // SAFETY: both hold `len` values. They outlive the copy: device memory is freed in the stream's order, and this
        // memory when the device is done.
        let queued = unsafe { result::memcpy_htod_async(buffer.ptr().0, from, self.gpu.turn().cu_stream()) };
        queued.map_err(|e| self.gpu.error("copying to the device", e))
    }
}
