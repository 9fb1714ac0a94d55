//! Launches that do the work of several instances.

use std::collections::VecDeque;

use bytemuck::{Pod, bytes_of, cast_slice_mut};

use super::{Gpu, Grid, Ptr};
use crate::error::Result;

/// Bytes that an argument has beside its instances: their number, and which of them take turns.
const REST: usize = 8;

/// Of so many instances an argument says whether they take turns.
const BITS: usize = 32;

/// Bytes that it has of each beside what the kernel works on: its first block, and the instance that follows it.
const LINKS: usize = 8;

/// Instances of a kernel's work, none of which reads what another writes: one launch of them all, or of as many as the kernel's
/// argument has room for. Those that write to the same places are done by the same blocks, one after the other as they came.
///
/// The kernel takes the `Instances` of kernels/common.cuh.
pub struct Launches<'a, A> {
    gpu: &'a Gpu,
    kernel: &'static str,
    room: usize,
    threads: u32,
    shared: u32,
    chains: Vec<Chain<A>>,
}

/// Instances that write to the same places.
struct Chain<A> {
    blocks: usize,
    writes: Vec<Ptr>,
    /// What another may read too, so that their blocks take turns; of those that write nothing that another writes.
    reads: Ptr,
    of: Vec<A>,
}

impl<A> Chain<A> {
    /// Whether both read the same and have about as many blocks.
    fn takes_turns_with(&self, other: &Chain<A>) -> bool {
        let [fewer, more] = [self.blocks.min(other.blocks), self.blocks.max(other.blocks)];
        self.reads != Ptr::NULL && self.reads == other.reads && more <= 2 * fewer
    }
}

/// What one launch does.
struct Batch<A> {
    of: Vec<A>,
    first: Vec<i32>,
    next: Vec<i32>,
    alternating: u32,
    blocks: usize,
}

impl Gpu {
    /// None yet, of a kernel that takes up to `room` of them, and has blocks of so many threads.
    pub fn launches<A: Pod>(&self, kernel: &'static str, room: usize, threads: u32) -> Launches<'_, A> {
        Launches { gpu: self, kernel, room, threads, shared: 0, chains: vec![] }
    }
}

impl<A: Pod> Launches<'_, A> {
    /// Blocks have so many bytes of dynamic shared memory.
    pub fn shared(self, shared: u32) -> Self {
        Launches { shared, ..self }
    }

    /// And an instance of so many blocks. `writes` are the arrays of which another may write the same; where it does, blocks of
    /// the same number write the same values of them. What it reads and writes is kept until [`Launches::run`].
    pub fn push(&mut self, blocks: usize, instance: A, writes: &[Ptr]) -> Result<()> {
        if blocks == 0 {
            return Ok(());
        }
        let meets = |chain: &Chain<A>| writes.iter().any(|at| *at != Ptr::NULL && chain.writes.contains(at));
        if self.chains.iter().any(meets) {
            match self.chains.iter_mut().find(|chain| chain.blocks == blocks && chain.writes == writes) {
                Some(chain) => {
                    chain.of.push(instance);
                    return Ok(());
                }
                None => self.launch()?,
            }
        }
        self.chains.push(Chain { blocks, writes: writes.to_vec(), reads: Ptr::NULL, of: vec![instance] });
        Ok(())
    }

    /// And an instance of so many blocks that writes nothing which another writes. Its blocks take turns with those of another
    /// that reads the array `reads`, if there is one of about as many: what the one has read is still near when the other reads it.
    /// The kernel passes over block numbers beyond an instance's own.
    pub fn push_reading(&mut self, blocks: usize, instance: A, reads: Ptr) {
        if blocks > 0 {
            self.chains.push(Chain { blocks, writes: vec![], reads, of: vec![instance] });
        }
    }

    /// Runs those that did not yet.
    pub fn run(mut self) -> Result<()> {
        self.launch()
    }

    fn launch(&mut self) -> Result<()> {
        let mut batch = Batch::new();
        let mut chains = VecDeque::from(std::mem::take(&mut self.chains));
        while let Some(chain) = chains.pop_front() {
            let other = chains.iter().position(|other| chain.takes_turns_with(other)).and_then(|at| chains.remove(at));
            let blocks = chain.blocks.max(other.as_ref().map_or(0, |other| other.blocks));
            // What follows the instances of a full launch waits for it in the stream.
            if let ([one], Some([other])) = (&chain.of[..], other.as_ref().map(|other| &other.of[..])) {
                if batch.of.len() + 2 > self.room.min(BITS) {
                    self.launch_batch(std::mem::replace(&mut batch, Batch::new()))?;
                }
                batch.add_alternating(blocks, [one, other]);
                continue;
            }
            for part in chain.of.chunks(self.room) {
                if batch.of.len() + part.len() > self.room {
                    self.launch_batch(std::mem::replace(&mut batch, Batch::new()))?;
                }
                batch.add(chain.blocks, part);
            }
        }
        self.launch_batch(batch)
    }

    fn launch_batch(&self, batch: Batch<A>) -> Result<()> {
        let bytes = self.room * (size_of::<A>() + LINKS) + REST;
        // Of u64, which is aligned as a kernel's pointers are.
        let mut args = vec![0u64; bytes.div_ceil(8)];
        let args = &mut cast_slice_mut::<u64, u8>(&mut args)[..bytes];
        let mut put = |at: usize, part: &[u8]| args[at..at + part.len()].copy_from_slice(part);
        for (i, instance) in batch.of.iter().enumerate() {
            put(i * size_of::<A>(), bytes_of(instance));
            put(self.room * size_of::<A>() + i * 4, bytes_of(&batch.first[i]));
            put(self.room * (size_of::<A>() + 4) + i * 4, bytes_of(&batch.next[i]));
        }
        put(bytes - REST, bytes_of(&(batch.of.len() as i32)));
        put(bytes - REST + 4, bytes_of(&batch.alternating));
        let grid = Grid { shared: self.shared, ..Grid::line(batch.blocks, self.threads) };
        self.gpu.launch_bytes(self.kernel, grid, args)
    }
}

impl<A: Pod> Batch<A> {
    fn new() -> Batch<A> {
        Batch { of: vec![], first: vec![], next: vec![], alternating: 0, blocks: 0 }
    }

    /// And two instances of up to so many blocks each, which take turns.
    fn add_alternating(&mut self, blocks: usize, of: [&A; 2]) {
        let begin = self.blocks;
        for instance in of {
            self.blocks = begin;
            self.add(2 * blocks, std::slice::from_ref(instance));
        }
        self.alternating |= 1 << (self.of.len() - 1);
    }

    /// And instances of the same blocks.
    fn add(&mut self, blocks: usize, chain: &[A]) {
        for (i, instance) in chain.iter().enumerate() {
            let follows = if i + 1 == chain.len() { -1 } else { self.of.len() as i32 + 1 };
            self.of.push(*instance);
            // Grids of so many blocks are refused.
            self.first.push(if i == 0 { self.blocks.min(i32::MAX as usize) as i32 } else { i32::MAX });
            self.next.push(follows);
        }
        self.blocks += blocks;
    }
}
