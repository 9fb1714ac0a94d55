//! Device memory that the host hands out by itself.
//!
//! A step asks for hundreds of arrays, and asking the driver for each takes as long as launching a kernel. In a stream that is
//! recorded they would become allocation nodes of the graph besides, and graphs that allocate cannot take new parameters.
//! Blocks are allocated outside of any stream instead, and stay here: one that is given back may be handed out at once, since
//! all that uses the blocks of a cache runs in the order of one stream.
//!
//! What checks a program's use of memory (compute-sanitizer, cusim) knows nothing of that: it takes a block's old content for
//! the new array's. `FISSFUSE_MEMORY_CACHE=off` asks the driver for each array, and gives it back at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, DriverError, result, sys};

use crate::device::switch::is_on;
use crate::error::Result;

/// Whether blocks are kept: `on`, as where it is not set, or `off`.
const VARIABLE: &str = "FISSFUSE_MEMORY_CACHE";

/// Sizes are multiples of this, and of an eighth of the power of two below them: batches differ a little in size.
const SMALLEST: usize = 512;

/// A block of a device's memory, which goes back to its cache when it is dropped.
pub(super) struct Block {
    pub at: u64,
    pub bytes: usize,
    cache: Arc<Cache>,
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.cache.keeps {
            self.cache.shelves().free.entry(self.bytes).or_default().push(self.at);
        } else {
            // The driver waits for what uses it; a device that failed has nothing to be given back.
            let _ = self.cache.free(vec![self.at]);
        }
    }
}

/// The blocks that are not in use.
pub(super) struct Cache {
    context: Arc<CudaContext>,
    /// Whether there are any: see the module's comment.
    keeps: bool,
    shelves: Mutex<Shelves>,
}

#[derive(Default)]
struct Shelves {
    /// Where free blocks lie, by their size.
    free: BTreeMap<usize, Vec<u64>>,
    /// Whether there was no memory for a block since somebody asked.
    starved: bool,
}

/// The largest step between the sizes of blocks: what a table of gigabytes wastes at most.
const LARGEST_STEP: usize = 32 << 20;

/// The size of a block for this many bytes, at most an eighth or 511 bytes more.
pub(super) fn size_of_block(bytes: usize) -> usize {
    bytes.next_multiple_of((bytes.next_power_of_two() / 16).clamp(SMALLEST, LARGEST_STEP))
}

/// Whether blocks are to be kept, by the environment.
pub(super) fn keeps_blocks() -> Result<bool> {
    is_on(VARIABLE, true)
}

impl Cache {
    pub fn new(context: &Arc<CudaContext>, keeps: bool) -> Arc<Cache> {
        Arc::new(Cache { context: context.clone(), keeps, shelves: Mutex::default() })
    }

    /// Whether a block that is given back may be handed out again at once.
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of at least this many bytes: the smallest free one, unless it is larger by a quarter, or a new one, which has just
    /// as many where blocks are not kept, so that what lies beyond an array is nobody's. The stream may be recorded meanwhile,
    /// if in relaxed mode.
    pub fn take(self: &Arc<Cache>, bytes: usize) -> std::result::Result<Block, DriverError> {
        let bytes = if self.keeps { size_of_block(bytes) } else { bytes };
        let block = |at, bytes| Block { at, bytes, cache: self.clone() };
        let mut shelves = self.shelves();
        if let Some(shelf) = shelves.free.range_mut(bytes..=bytes + bytes / 4).next()
            && let Some(at) = shelf.1.pop()
        {
            let bytes = *shelf.0;
            if shelf.1.is_empty() {
                shelves.free.remove(&bytes);
            }
            return Ok(block(at, bytes));
        }
        self.context.bind_to_thread()?;
        // SAFETY: kernels and memsets write all of it before anything reads it.
        let allocated = unsafe { result::malloc_sync(bytes) };
        shelves.starved |= allocated == Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        Ok(block(allocated?, bytes))
    }

    /// Whether there was no memory for a block since this was last asked.
    pub fn was_starved(&self) -> bool {
        std::mem::take(&mut self.shelves().starved)
    }

    /// Bytes of free blocks.
    pub fn free_bytes(&self) -> usize {
        self.shelves().free.iter().map(|(bytes, blocks)| bytes * blocks.len()).sum()
    }

    /// The places of all free blocks, which nobody gets any more.
    pub fn take_free(&self) -> Vec<u64> {
        std::mem::take(&mut self.shelves().free).into_values().flatten().collect()
    }

    /// Gives what [`Cache::take_free`] took to the driver, once nothing that uses it is queued or recorded any more.
    pub fn free(&self, blocks: Vec<u64>) -> std::result::Result<(), DriverError> {
        self.context.bind_to_thread()?;
        // SAFETY: these blocks are ours, nobody has them, and the caller has waited for what had them.
        blocks.into_iter().try_for_each(|at| unsafe { result::free_sync(at) })
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // A device that failed has nothing to be given back.
        let _ = self.free(self.take_free());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_little_larger_than_asked_for() {
        assert_eq!([1, 512, 513, 8192].map(size_of_block), [512, 512, 1024, 8192]);
        for bytes in (1..100_000).step_by(37).chain([(1 << 30) + 1, (13 << 30) + 5]) {
            let block = size_of_block(bytes);
            assert!(block >= bytes && block.is_multiple_of(SMALLEST), "{bytes}: {block}");
            assert!(block - bytes < SMALLEST.max(bytes / 8 + 1).min(LARGEST_STEP), "{bytes}: {block}");
            assert_eq!(size_of_block(block), block);
        }
    }
}
