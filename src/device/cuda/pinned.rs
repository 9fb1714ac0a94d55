//! Host memory that the device copies from and to by itself, while the host goes on.

use std::sync::{Mutex, MutexGuard};

use bytemuck::Pod;
use cudarc::driver::result;

use super::{DeviceBuffer, Gpu};
use crate::error::{Error, Result};

/// A page-locked array in the host's memory.
pub struct Pinned<T: Pod> {
    /// Held while the host reads or writes.
    values: Mutex<Values<T>>,
    len: usize,
    gpu: Gpu,
}

struct Values<T>(*mut T);

// SAFETY: the pointer is to memory that this value alone owns; any thread may use it.
unsafe impl<T: Pod + Send> Send for Values<T> {}

impl<T: Pod> std::fmt::Debug for Pinned<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} page-locked values for {:?}", self.len, self.gpu)
    }
}

impl Gpu {
    /// Zeros in page-locked memory.
    pub fn pinned<T: Pod>(&self, len: usize) -> Result<Pinned<T>> {
        self.0.context.bind_to_thread().map_err(|e| self.error("binding", e))?;
        let bytes = (len * size_of::<T>()).max(1);
        // SAFETY: the driver gives `bytes` bytes, aligned to pages, which are zeroed before anything reads them; a T is
        // Pod, so zeros are one.
        let values = unsafe {
            let at = result::malloc_host(bytes, 0).map_err(|e| self.error("allocating page-locked memory", e))?;
            std::ptr::write_bytes(at.cast::<u8>(), 0, bytes);
            at.cast::<T>()
        };
        Ok(Pinned { values: Mutex::new(Values(values)), len, gpu: self.clone() })
    }
}

impl<T: Pod> Drop for Pinned<T> {
    fn drop(&mut self) {
        // A device that failed neither copies any more nor has anything to be told.
        let _ = self.gpu.synchronize();
        // SAFETY: the memory is the driver's, given back once; the device is done with it.
        let _ = unsafe { result::free_host(self.lock().0.cast()) };
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

    fn lock(&self) -> MutexGuard<'_, Values<T>> {
        self.values.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reads and writes the values, once all copies that were queued from or to them are done.
    pub fn with<R>(&self, work: impl FnOnce(&mut [T]) -> R) -> Result<R> {
        let values = self.lock();
        self.gpu.synchronize()?;
        // SAFETY: `len` values are there; the lock keeps the host's other threads from them, and the device has done what
        // it was asked to.
        Ok(work(unsafe { std::slice::from_raw_parts_mut(values.0, self.len) }))
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
        let values = self.lock();
        // SAFETY: both hold `len` values. They outlive the copy: device memory is freed in the stream's order, and this
        // memory when the device is done.
        let queued = unsafe {
            let from = std::slice::from_raw_parts(values.0, self.len);
            result::memcpy_htod_async(buffer.ptr().0, from, self.gpu.0.stream.cu_stream())
        };
        queued.map_err(|e| self.gpu.error("copying to the device", e))
    }

    /// Queues a copy from the device.
    pub fn copy_from(&self, buffer: &DeviceBuffer<T>) -> Result<()> {
        self.fits(buffer)?;
        let values = self.lock();
        // SAFETY: as for `copy_to`; the host looks at the values again when the device is done.
        let queued = unsafe {
            let to = std::slice::from_raw_parts_mut(values.0, self.len);
            result::memcpy_dtoh_async(to, buffer.ptr().0, self.gpu.0.stream.cu_stream())
        };
        queued.map_err(|e| self.gpu.error("copying from the device", e))
    }
}
