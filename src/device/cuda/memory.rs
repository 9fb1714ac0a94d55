//! Device memory: allocated and given back in the stream's order, counted, copied to and fro.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard};

use bytemuck::Pod;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DriverError, result, sys};

use super::staging::Arrival;
use super::{Gpu, Ptr};
use crate::error::{Error, Result};

/// What is allocated, by what it is for.
#[derive(Default)]
pub(super) struct Ledger(Mutex<Account>);

#[derive(Default)]
struct Account {
    live: usize,
    peak: usize,
    by_label: BTreeMap<&'static str, usize>,
}

impl Ledger {
    fn account(&self) -> MutexGuard<'_, Account> {
        // A panic elsewhere cannot leave the counts half-changed.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn take(&self, label: &'static str, bytes: usize) {
        let mut account = self.account();
        account.live += bytes;
        account.peak = account.peak.max(account.live);
        *account.by_label.entry(label).or_default() += bytes;
    }

    fn give(&self, label: &'static str, bytes: usize) {
        let mut account = self.account();
        account.live -= bytes;
        if let Some(of_label) = account.by_label.get_mut(label) {
            *of_label -= bytes;
        }
    }

    pub fn peak(&self) -> usize {
        self.account().peak
    }

    /// Bytes that were given back, and that the driver keeps for this process.
    fn kept(&self) -> usize {
        let account = self.account();
        account.peak - account.live
    }
}

/// Tells the driver not to return freed memory to the system: a step allocates what the last one freed.
pub(super) fn keep_freed_memory(context: &Arc<CudaContext>) -> Result<(), DriverError> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut threshold = u64::MAX;
    // SAFETY: the device is open, the attribute takes a u64, which the driver reads before the call returns.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, std::ptr::from_mut(&mut threshold).cast()).result()
    }
}

/// An array in a device's memory.
pub struct DeviceBuffer<T> {
    bytes: CudaSlice<u8>,
    len: usize,
    label: &'static str,
    gpu: Gpu,
    /// Set if the memory is the copies', not the kernels'.
    arrival: Option<Arrival>,
    values: PhantomData<T>,
}

impl<T> std::fmt::Debug for DeviceBuffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} values of {} on {:?}", self.len, self.label, self.gpu)
    }
}

impl<T> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        self.gpu.0.ledger.give(self.label, self.bytes.len());
        if let Some(arrival) = &self.arrival {
            // A device that failed does not use it any more.
            let _ = arrival.end_of_use(&self.gpu.0.stream);
        }
    }
}

const MB: usize = 1 << 20;

impl Gpu {
    /// Memory of any content; `label` names it where memory runs out.
    pub fn alloc<T: Pod>(&self, label: &'static str, len: usize) -> Result<DeviceBuffer<T>> {
        self.alloc_on(&self.0.stream, label, len)
    }

    /// Memory that is allocated and given back in the order of this stream.
    pub(super) fn alloc_on<T: Pod>(
        &self,
        stream: &Arc<CudaStream>,
        label: &'static str,
        len: usize,
    ) -> Result<DeviceBuffer<T>> {
        // An empty array still has a place.
        let size = (len * size_of::<T>()).max(1);
        // SAFETY: kernels and copies write all of it before anything reads it, which cusim's init check verifies.
        let bytes = unsafe { stream.alloc::<u8>(size) }.map_err(|e| self.no_memory(label, size, e))?;
        self.0.ledger.take(label, size);
        Ok(DeviceBuffer { bytes, len, label, gpu: self.clone(), arrival: None, values: PhantomData })
    }

    /// Zeros.
    pub fn zeros<T: Pod>(&self, label: &'static str, len: usize) -> Result<DeviceBuffer<T>> {
        let mut buffer = self.alloc(label, len)?;
        self.0.stream.memset_zeros(&mut buffer.bytes).map_err(|e| self.error("clearing memory", e))?;
        Ok(buffer)
    }

    /// A copy of host memory.
    pub fn upload<T: Pod>(&self, label: &'static str, values: &[T]) -> Result<DeviceBuffer<T>> {
        let mut buffer = self.alloc(label, values.len())?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    /// Bytes that can still be allocated, what the driver keeps of memory that was given back included.
    pub fn available(&self) -> Result<usize> {
        let (free, total) = self.memory()?;
        Ok(total.min(free + self.0.ledger.kept()))
    }

    fn no_memory(&self, label: &str, asked: usize, error: DriverError) -> Error {
        let doing = format!("allocating {} MB for {label}", asked.div_ceil(MB));
        if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return self.error(doing, error);
        }
        let free = self.memory().map(|(free, total)| format!("{} of {} MB are free", free / MB, total / MB));
        let account = self.0.ledger.account();
        let mut largest: Vec<_> = account.by_label.iter().filter(|(_, bytes)| **bytes > 0).collect();
        largest.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
        let largest: Vec<String> =
            largest.iter().take(5).map(|(label, bytes)| format!("{label} {} MB", bytes.div_ceil(MB))).collect();
        let reason = format!(
            "out of memory: {}; this process holds {} MB, at its peak {} MB, most of it in {}; take a smaller batch",
            free.unwrap_or_else(|_| "what is free is unknown".into()),
            account.live.div_ceil(MB),
            account.peak.div_ceil(MB),
            if largest.is_empty() { "nothing".into() } else { largest.join(", ") },
        );
        Error::device(format!("{self:?}"), doing, reason)
    }
}

impl<T: Pod> DeviceBuffer<T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device it lies on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Where it lies.
    pub fn ptr(&self) -> Ptr {
        Ptr(self.bytes.device_ptr(&self.gpu.0.stream).0)
    }

    pub(super) fn arriving(self, arrival: Arrival) -> DeviceBuffer<T> {
        let mut buffer = self;
        buffer.arrival = Some(arrival);
        buffer
    }

    /// Kernels that are queued from now on run when what [`Gpu::stage`] put here has arrived.
    pub fn arrive(&self) -> Result<()> {
        let Some(arrival) = &self.arrival else { return Ok(()) };
        arrival.await_on(&self.gpu.0.stream).map_err(|e| self.gpu.error("copying to the device", e))
    }

    /// Copies host values to places from `start` on.
    pub fn write(&mut self, start: usize, values: &[T]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let range = start * size_of::<T>()..(start + values.len()) * size_of::<T>();
        let gpu = self.gpu.clone();
        let Some(mut to) = self.bytes.try_slice_mut(range) else {
            return Err(Error::shape("device memory", format!("{} values from {start} of {}", values.len(), self.len)));
        };
        let bytes: &[u8] = bytemuck::cast_slice(values);
        gpu.0.stream.memcpy_htod(bytes, &mut to).map_err(|e| gpu.error("copying to the device", e))
    }

    /// Copies all values to the host, once everything queued before is done.
    pub fn read(&self, values: &mut [T]) -> Result<()> {
        if values.len() != self.len {
            return Err(Error::shape("device memory", format!("{} values into {}", self.len, values.len())));
        }
        if values.is_empty() {
            return Ok(());
        }
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        let stream = &self.gpu.0.stream;
        let copied = stream.memcpy_dtoh(&self.bytes, bytes).and_then(|()| stream.synchronize());
        copied.map_err(|e| self.gpu.error("running kernels", e))
    }

    /// Queues a copy to another array of the same length on the same device.
    pub fn copy_to(&self, to: &DeviceBuffer<T>) -> Result<()> {
        if to.len != self.len || !to.gpu.is(&self.gpu) {
            return Err(Error::shape("device memory", format!("{self:?} into {to:?}")));
        }
        let (from, bytes) = (self.ptr().0, self.len * size_of::<T>());
        // SAFETY: both arrays hold as many bytes, and memory is freed in the stream's order.
        let queued = unsafe { result::memcpy_dtod_async(to.ptr().0, from, bytes, self.gpu.0.stream.cu_stream()) };
        queued.map_err(|e| self.gpu.error("copying", e))
    }

    /// A copy on the same device.
    pub fn duplicate(&self) -> Result<DeviceBuffer<T>> {
        let mut copy = self.gpu.alloc(self.label, self.len)?;
        let stream = &self.gpu.0.stream;
        stream.memcpy_dtod(&self.bytes, &mut copy.bytes).map_err(|e| self.gpu.error("copying", e))?;
        Ok(copy)
    }
}
