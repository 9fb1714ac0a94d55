//! Launches that do the work of several instances.

use bytemuck::{Pod, bytes_of, cast_slice_mut};

use super::{Gpu, Grid, Ptr};
use crate::error::Result;

/// Bytes that an argument has beside its instances: their number, filled up.
const REST: usize = 8;

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
    of: Vec<A>,
}

/// What one launch does.
struct Batch<A> {
    of: Vec<A>,
    first: Vec<i32>,
    next: Vec<i32>,
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
        self.chains.push(Chain { blocks, writes: writes.to_vec(), of: vec![instance] });
        Ok(())
    }

    /// Runs those that did not yet.
    pub fn run(mut self) -> Result<()> {
        self.launch()
    }

    fn launch(&mut self) -> Result<()> {
        let mut batch = Batch::new();
        for Chain { blocks, of, .. } in std::mem::take(&mut self.chains) {
            // What follows the instances of a full launch waits for it in the stream.
            for part in of.chunks(self.room) {
                if batch.of.len() + part.len() > self.room {
                    self.launch_batch(std::mem::replace(&mut batch, Batch::new()))?;
                }
                batch.add(blocks, part);
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
        let grid = Grid { shared: self.shared, ..Grid::line(batch.blocks, self.threads) };
        self.gpu.launch_bytes(self.kernel, grid, args)
    }
}

impl<A: Pod> Batch<A> {
    fn new() -> Batch<A> {
        Batch { of: vec![], first: vec![], next: vec![], blocks: 0 }
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
