//! Device memory: allocated and given back in the stream's order, counted, copied to and fro.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytemuck::Pod;
use cudarc::driver::{DriverError, result, sys};

use super::cache::{Block, size_of_block};
use super::gate::Runs;
use super::staging::Arrival;
use super::{Gpu, Ptr};
use crate::bytes::Bytes;
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
}

/// Bytes of a device's memory, by who uses them.
pub(super) enum Memory {
    /// The kernels.
    Ordered(Block),
    /// The kernels of a graph that runs often: nobody else as long as there is the graph.
    Recorded(Block),
    /// The copies, and then the kernels.
    Staged(Box<Staged>),
    /// Another array's, of which this is a part.
    Part { whole: Arc<DeviceBuffer<u8>>, first: usize },
}

/// Memory that the stream of copies fills.
pub(super) struct Staged {
    pub block: Block,
    pub bytes: usize,
    pub arrival: Arrival,
}

impl Memory {
    fn at(&self) -> u64 {
        match self {
            Memory::Ordered(block) | Memory::Recorded(block) => block.at,
            Memory::Staged(staged) => staged.block.at,
            Memory::Part { whole, first } => whole.ptr().0 + *first as u64,
        }
    }
}

/// An array in a device's memory.
pub struct DeviceBuffer<T> {
    /// `None` only while it is dropped.
    memory: Option<Memory>,
    len: usize,
    label: &'static str,
    gpu: Gpu,
    /// Whether its bytes are in the account: those of a part are another array's.
    counted: bool,
    values: PhantomData<T>,
}

impl<T> std::fmt::Debug for DeviceBuffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} values of {} on {:?}", self.len, self.label, self.gpu)
    }
}

impl<T> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        if self.counted {
            self.gpu.0.ledger.give(self.label, bytes_of::<T>(self.len));
        }
        if let Some(memory) = self.memory.take() {
            self.gpu.give_back(memory);
        }
    }
}

/// Bytes of an array; an empty one still has a place.
fn bytes_of<T>(len: usize) -> usize {
    (len * size_of::<T>()).max(1)
}

impl Gpu {
    /// Memory of any content; `label` names it where memory runs out.
    pub fn alloc<T: Pod>(&self, label: &'static str, len: usize) -> Result<DeviceBuffer<T>> {
        let bytes = bytes_of::<T>(len);
        self.bind()?;
        let memory = match self.0.gate.recording() {
            None => self.with_reclaimed(|| self.0.cache.take(bytes)).map(Memory::Ordered),
            Some(Runs::Once) => self.0.cache.take(bytes).map(Memory::Ordered),
            Some(Runs::Often) => self.take_recorded(bytes).map(Memory::Recorded),
        };
        memory.map(|memory| self.buffer(memory, label, len)).map_err(|e| self.no_memory(label, bytes, e))
    }

    /// A block for the recording under way: one that it gave back itself, or one that becomes its own.
    fn take_recorded(&self, bytes: usize) -> Result<Block, DriverError> {
        let bytes = size_of_block(bytes);
        let mut spare = self.spare();
        let fits = |block: &Block| (bytes..=bytes + bytes / 4).contains(&block.bytes);
        let smallest = spare.iter().enumerate().filter(|(_, block)| fits(block)).min_by_key(|(_, block)| block.bytes);
        match smallest.map(|(at, _)| at) {
            Some(at) => Ok(spare.swap_remove(at)),
            None => self.0.cache.take(bytes),
        }
    }

    /// Tries again with the memory that is kept for recorded work, if there was not enough without.
    pub(super) fn with_reclaimed<R>(&self, allocate: impl Fn() -> Result<R, DriverError>) -> Result<R, DriverError> {
        match allocate() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) if self.free_blocks() > 0 => {
                // If it fails, the second attempt says what there is to say.
                let _ = self.reclaim();
                allocate()
            }
            result => result,
        }
    }

    /// An array in this memory.
    pub(super) fn buffer<T>(&self, memory: Memory, label: &'static str, len: usize) -> DeviceBuffer<T> {
        self.0.ledger.take(label, bytes_of::<T>(len));
        DeviceBuffer { memory: Some(memory), len, label, gpu: self.clone(), counted: true, values: PhantomData }
    }

    /// Gives memory back when what was asked for is done.
    pub(super) fn give_back(&self, memory: Memory) {
        let keeps = self.0.cache.keeps();
        match (memory, self.0.gate.recording()) {
            (Memory::Recorded(block), Some(Runs::Often)) if keeps => self.spare().push(block),
            // Whatever uses it next is queued behind what is queued or recorded now.
            (Memory::Ordered(block), Some(Runs::Once)) if keeps => drop(block),
            (Memory::Ordered(block), None) => drop(block),
            // What is recorded may work on it.
            (memory, Some(_)) => self.kept().push(memory),
            (memory, None) => {
                if let Memory::Staged(staged) = &memory {
                    // A device that failed does not use it any more.
                    let _ = staged.arrival.end_of_use(&self.turn());
                }
                drop(memory);
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Memory>> {
        self.0.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Block>> {
        self.0.spare.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What was given back while this thread recorded, which is to be done when the recording is ended, and the blocks that
    /// the recording has for itself.
    pub(super) fn take_kept(&self) -> Vec<Memory> {
        let mut kept = std::mem::take(&mut *self.kept());
        kept.extend(std::mem::take(&mut *self.spare()).into_iter().map(Memory::Recorded));
        kept
    }

    /// Bytes of the blocks that nobody uses.
    fn free_blocks(&self) -> usize {
        self.0.cache.free_bytes() + self.0.staging.free_blocks()
    }

    /// A copy of host memory.
    pub fn upload<T: Pod>(&self, label: &'static str, values: &[T]) -> Result<DeviceBuffer<T>> {
        let mut buffer = self.alloc(label, values.len())?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    /// Bytes that can still be allocated, what is kept of memory that was given back included.
    pub fn available(&self) -> Result<usize> {
        let (free, total) = self.memory()?;
        Ok(total.min(free + self.free_blocks()))
    }

    pub(super) fn no_memory(&self, label: &str, asked: usize, error: DriverError) -> Error {
        let doing = format!("allocating {} for {label}", Bytes::of(asked));
        if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return self.error(doing, error);
        }
        let free = self.memory().map(|(free, total)| format!("{} of {} are free", Bytes::of(free), Bytes::of(total)));
        let for_graphs = match self.free_blocks() {
            0 => String::new(),
            bytes => format!(", and {} that are free in its caches", Bytes::of(bytes)),
        };
        let account = self.0.ledger.account();
        let mut largest: Vec<_> = account.by_label.iter().filter(|(_, bytes)| **bytes > 0).collect();
        largest.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
        let largest: Vec<String> =
            largest.iter().take(5).map(|(label, bytes)| format!("{label} {}", Bytes::of(**bytes))).collect();
        let reason = format!(
            "out of memory: {}; this process holds {}, at its peak {}, most of it in {}{for_graphs}; take a smaller batch or shorter \
             inputs, or use --device cpu",
            free.unwrap_or_else(|_| "what is free is unknown".into()),
            Bytes::of(account.live),
            Bytes::of(account.peak),
            if largest.is_empty() { "nothing".into() } else { largest.join(", ") },
        );
        Error::no_memory(format!("{self:?}"), doing, reason)
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
        self.memory.as_ref().map_or(Ptr::NULL, |memory| Ptr(memory.at()))
    }

    /// Kernels that are queued from now on run when what [`Gpu::stage`] put here has arrived.
    pub fn arrive(&self) -> Result<()> {
        match &self.memory {
            Some(Memory::Staged(staged)) => staged.arrival.wait(&self.gpu),
            Some(Memory::Part { whole, .. }) => whole.arrive(),
            _ => Ok(()),
        }
    }

    /// Fails while this thread records: what a copy finds in the host's memory when it is recorded is not what it finds when
    /// it runs.
    fn not_recording(&self, doing: &str) -> Result<()> {
        match self.gpu.0.gate.recording() {
            None => Ok(()),
            Some(_) => {
                let reason = "work that is recorded must find its input on the device; stage it before";
                Err(Error::device(format!("{:?}", self.gpu), format!("{doing} {}", self.label), reason))
            }
        }
    }

    /// Copies host values to places from `start` on.
    pub fn write(&mut self, start: usize, values: &[T]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        self.not_recording("copying to the device:")?;
        if start + values.len() > self.len {
            return Err(Error::shape("device memory", format!("{} values from {start} of {}", values.len(), self.len)));
        }
        let (at, bytes): (_, &[u8]) = (self.ptr().offset::<T>(start).0, bytemuck::cast_slice(values));
        self.gpu.bind()?;
        let stream = self.gpu.turn();
        // SAFETY: the array holds these places, and the values are borrowed until the device has read them.
        let copied = unsafe { result::memcpy_htod_async(at, bytes, stream.cu_stream()) };
        // A driver that cannot read pageable memory in place has read it now; another may do so when the copy's turn comes.
        let read = copied.and_then(|()| if self.gpu.0.reads_pageable { stream.synchronize() } else { Ok(()) });
        read.map_err(|e| self.gpu.error("copying to the device", e))
    }

    /// Copies all values to the host, once everything queued before is done.
    pub fn read(&self, values: &mut [T]) -> Result<()> {
        if values.len() != self.len {
            return Err(Error::shape("device memory", format!("{} values into {}", self.len, values.len())));
        }
        if values.is_empty() {
            return Ok(());
        }
        self.not_recording("copying to the host:")?;
        self.gpu.bind()?;
        let (at, bytes): (_, &mut [u8]) = (self.ptr().0, bytemuck::cast_slice_mut(values));
        let stream = self.gpu.turn();
        // SAFETY: both hold as many bytes, and the copy is done before they are looked at.
        let copied = unsafe { result::memcpy_dtoh_async(bytes, at, stream.cu_stream()) };
        copied.and_then(|()| stream.synchronize()).map_err(|e| self.gpu.error("running kernels", e))
    }

    /// Queues a copy of some values to places of another array on the same device, from `start` on.
    pub fn copy_to(&self, values: Range<usize>, to: &mut DeviceBuffer<T>, start: usize) -> Result<()> {
        let ends = [values.end <= self.len, start.checked_add(values.len()).is_some_and(|end| end <= to.len)];
        if ends.contains(&false) || values.start > values.end || !to.gpu.is(&self.gpu) {
            let reason = format!("values {values:?} of {self:?} to {start} of {to:?}");
            return Err(Error::shape("device memory", reason));
        }
        if values.is_empty() {
            return Ok(());
        }
        self.gpu.bind()?;
        let (from, to) = (self.ptr().offset::<T>(values.start).0, to.ptr().offset::<T>(start).0);
        let bytes = values.len() * size_of::<T>();
        // SAFETY: both arrays hold these places, and memory is freed in the stream's order.
        let queued = unsafe { result::memcpy_dtod_async(to, from, bytes, self.gpu.turn().cu_stream()) };
        queued.map_err(|e| self.gpu.error("copying", e))
    }

    /// An array of `len` bytes that lies in another's memory from byte `first` on, which stays as long as this one does.
    pub fn part(whole: &Arc<DeviceBuffer<u8>>, first: usize, len: usize) -> Result<DeviceBuffer<u8>> {
        if first.checked_add(len).is_none_or(|end| end > whole.len) {
            return Err(Error::shape("device memory", format!("{len} bytes from {first} on of {whole:?}")));
        }
        let (memory, gpu) = (Memory::Part { whole: whole.clone(), first }, whole.gpu.clone());
        Ok(DeviceBuffer { memory: Some(memory), len, label: whole.label, gpu, counted: false, values: PhantomData })
    }

    /// The same memory as bytes.
    pub fn into_bytes(mut self) -> DeviceBuffer<u8> {
        let (memory, len, label, gpu) = (self.memory.take(), self.len * size_of::<T>(), self.label, self.gpu.clone());
        let counted = self.counted;
        // Only one of both is in the account at a time, so that its peak is right.
        drop(self);
        if counted {
            gpu.0.ledger.take(label, bytes_of::<u8>(len));
        }
        DeviceBuffer { memory, len, label, gpu, counted, values: PhantomData }
    }

    /// A copy on the same device.
    pub fn duplicate(&self) -> Result<DeviceBuffer<T>> {
        let mut copy = self.gpu.alloc(self.label, self.len)?;
        self.copy_to(0..self.len, &mut copy, 0)?;
        Ok(copy)
    }
}
