//! Copies to the device that run beside its kernels: through page-locked memory, on a stream of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};

use super::cache::Cache;
use super::memory::{Memory, Staged};
use super::pinned::PageLocked;
use super::{DeviceBuffer, Gpu};
use crate::error::{Error, Result};

/// Blocks of page-locked memory that may wait for their copies: those of two batches, each of eight tables of features and
/// its row numbers, and two for losses on their way back.
const BLOCKS: usize = 20;

/// The stream of copies and the memory that they pass through.
pub(super) struct Staging {
    stream: Arc<CudaStream>,
    blocks: Mutex<Vec<Block>>,
    /// Device memory, in the order of the copies.
    cache: Arc<Cache>,
}

/// Page-locked memory, free again once `copied`.
struct Block {
    memory: PageLocked,
    copied: CudaEvent,
}

/// Where a buffer's content comes from.
pub(super) struct Arrival {
    stream: Arc<CudaStream>,
    event: CudaEvent,
    /// Whether the kernels' stream has been told to wait: once is enough, since it keeps its order.
    awaited: AtomicBool,
    telling: Mutex<()>,
}

impl Arrival {
    /// What is queued on the device from now on runs when the content is there.
    pub fn wait(&self, gpu: &Gpu) -> Result<()> {
        if self.awaited.load(Ordering::Acquire) {
            return Ok(());
        }
        if gpu.0.gate.recording().is_some() {
            // A graph cannot wait for what is not in it.
            let reason = "an array is still on its way to the device; let the batch arrive before";
            return Err(Error::device(format!("{gpu:?}"), "recording a graph", reason));
        }
        let _telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.awaited.load(Ordering::Acquire) {
            gpu.turn().wait(&self.event).map_err(|e| gpu.error("copying to the device", e))?;
            self.awaited.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The buffer's memory, which goes back in the order of the copies, is free when `stream` has done what it was asked to.
    pub fn end_of_use(&self, stream: &CudaStream) -> Result<(), DriverError> {
        self.stream.join(stream)
    }
}

impl Staging {
    /// `keeps`: whether device memory that was given back is kept.
    pub fn new(context: &Arc<CudaContext>, keeps: bool) -> Result<Staging, DriverError> {
        Ok(Staging { stream: context.new_stream()?, blocks: Mutex::default(), cache: Cache::new(context, keeps) })
    }

    /// A block of at least this many bytes that nothing is copied from any more.
    fn take(&self, bytes: usize) -> Result<Block, DriverError> {
        // The thread may be one that never used the device, and a question asked without a context is never answered yes.
        self.stream.context().bind_to_thread()?;
        let mut blocks = self.blocks.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // The smallest: row numbers must not take what the next table of features needs.
        let free = blocks.iter().enumerate().filter(|(_, b)| b.memory.bytes() >= bytes && b.copied.is_complete());
        let smallest = free.min_by_key(|(_, block)| block.memory.bytes());
        if let Some((at, _)) = smallest {
            return Ok(blocks.swap_remove(at));
        }
        // Grown by an eighth: the next batch may be a little larger.
        let context = self.stream.context();
        let block = Block { memory: PageLocked::new(context, bytes + bytes / 8)?, copied: context.new_event(None)? };
        while blocks.len() >= BLOCKS {
            let oldest = blocks.remove(0);
            oldest.copied.synchronize()?;
        }
        Ok(block)
    }

    /// Bytes of device memory that nobody uses.
    pub fn free_blocks(&self) -> usize {
        self.cache.free_bytes()
    }

    /// Gives the driver the device memory that nobody uses, once the copies are done.
    pub fn reclaim(&self) -> Result<(), DriverError> {
        let free = self.cache.take_free();
        self.stream.synchronize()?;
        self.cache.free(free)
    }

    fn give_back(&self, block: Block) {
        self.blocks.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(block);
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A device that failed copies nothing any more.
        let _ = self.stream.synchronize();
    }
}

impl Gpu {
    /// Memory with what `fill` writes, copied while kernels that were queued before run. [`DeviceBuffer::arrive`] says when
    /// kernels shall have it.
    pub fn stage<T: Pod>(
        &self,
        label: &'static str,
        len: usize,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<DeviceBuffer<T>> {
        let staged = self.copy_staged(label, len, fill)?;
        Ok(self.buffer(Memory::Staged(Box::new(staged)), label, len))
    }

    /// The same without an owner.
    pub(super) fn copy_staged<T: Pod>(
        &self,
        label: &'static str,
        len: usize,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<Staged> {
        self.bind()?;
        let staging = &self.0.staging;
        let bytes = len * size_of::<T>();
        let failed = |error| self.error("copying to the device", error);
        let mut block = staging.take(bytes).map_err(failed)?;
        let host = &mut block.memory.as_mut_slice()[..bytes];
        fill(bytemuck::cast_slice_mut(host));
        let target = self.with_reclaimed(|| staging.cache.take(bytes.max(1)));
        let target = target.map_err(|e| self.no_memory(label, bytes, e))?;
        // SAFETY: both hold `bytes` bytes. The block is not touched again before its event says that the copy is done, nor
        // freed: see `Staging::take` and its drop.
        let queued = unsafe { result::memcpy_htod_async(target.at, host, staging.stream.cu_stream()) };
        let arrival = queued.and_then(|()| block.copied.record(&staging.stream));
        let event = arrival.and_then(|()| staging.stream.record_event(None)).map_err(failed)?;
        staging.give_back(block);
        let stream = staging.stream.clone();
        let arrival = Arrival { stream, event, awaited: AtomicBool::new(false), telling: Mutex::default() };
        Ok(Staged { block: target, bytes, arrival })
    }

    /// Queues a copy of the bytes to the host, which goes on meanwhile.
    pub fn read_later(&self, bytes: &DeviceBuffer<u8>) -> Result<Returning> {
        let failed = |error| self.error("copying to the host", error);
        self.bind()?;
        let mut block = self.0.staging.take(bytes.len()).map_err(failed)?;
        let host = &mut block.memory.as_mut_slice()[..bytes.len()];
        let stream = self.turn();
        // SAFETY: both hold as many bytes; the block is looked at when its event says that the copy is done, and the bytes'
        // memory is given back in the stream's order.
        let queued = unsafe { result::memcpy_dtoh_async(host, bytes.ptr().0, stream.cu_stream()) };
        queued.and_then(|()| block.copied.record(&stream)).map_err(failed)?;
        Ok(Returning { block: Some(block), gpu: self.clone(), bytes: bytes.len() })
    }
}

/// Bytes on their way to the host.
pub struct Returning {
    /// `None` only while it is dropped.
    block: Option<Block>,
    bytes: usize,
    gpu: Gpu,
}

impl std::fmt::Debug for Returning {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} bytes from {:?}", self.bytes, self.gpu)
    }
}

impl Returning {
    /// What they are, once they are there. Fails if what computes them failed.
    pub fn wait<T: Pod>(mut self) -> Result<Vec<T>> {
        let Some(block) = &mut self.block else { return Ok(Vec::new()) };
        self.gpu.bind()?;
        block.copied.synchronize().map_err(|e| self.gpu.error("running kernels", e))?;
        Ok(bytemuck::cast_slice(&block.memory.as_mut_slice()[..self.bytes]).to_vec())
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.gpu.0.staging.give_back(block);
        }
    }
}
