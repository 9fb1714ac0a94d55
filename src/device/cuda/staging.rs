//! Copies to the device that run beside its kernels: through page-locked memory, on a stream of their own.

use std::sync::{Arc, Mutex};

use bytemuck::Pod;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};

use super::pinned::PageLocked;
use super::{DeviceBuffer, Gpu};
use crate::error::Result;

/// Blocks of page-locked memory that may wait for their copies: those of two batches.
const BLOCKS: usize = 16;

/// The stream of copies and the memory that they pass through.
pub(super) struct Staging {
    stream: Arc<CudaStream>,
    blocks: Mutex<Vec<Block>>,
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
}

impl Arrival {
    /// What is queued on `stream` from now on runs when the content is there.
    pub fn await_on(&self, stream: &CudaStream) -> Result<(), DriverError> {
        stream.wait(&self.event)
    }

    /// The buffer's memory, which goes back in the order of the copies, is free when `stream` has done what it was asked to.
    pub fn end_of_use(&self, stream: &CudaStream) -> Result<(), DriverError> {
        self.stream.join(stream)
    }
}

impl Staging {
    pub fn new(context: &Arc<CudaContext>) -> Result<Staging, DriverError> {
        Ok(Staging { stream: context.new_stream()?, blocks: Mutex::default() })
    }

    /// A block of at least this many bytes that nothing is copied from any more.
    fn take(&self, bytes: usize) -> Result<Block, DriverError> {
        let mut blocks = self.blocks.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let free = |block: &Block| block.memory.bytes() >= bytes && block.copied.is_complete();
        if let Some(at) = blocks.iter().position(free) {
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
        let staging = &self.0.staging;
        let bytes = len * size_of::<T>();
        let failed = |error| self.error("copying to the device", error);
        let mut block = staging.take(bytes).map_err(failed)?;
        let host = &mut block.memory.as_mut_slice()[..bytes];
        fill(bytemuck::cast_slice_mut(host));
        let buffer = self.alloc_on::<T>(&staging.stream, label, len)?;
        // SAFETY: both hold `bytes` bytes. The block is not touched again before its event says that the copy is done, nor
        // freed: see `Staging::take` and its drop.
        let queued = unsafe { result::memcpy_htod_async(buffer.ptr().0, host, staging.stream.cu_stream()) };
        let arrival = queued.and_then(|()| block.copied.record(&staging.stream));
        let event = arrival.and_then(|()| staging.stream.record_event(None)).map_err(failed)?;
        staging.give_back(block);
        Ok(buffer.arriving(Arrival { stream: staging.stream.clone(), event }))
    }
}
