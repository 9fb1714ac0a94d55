//! What a device does at most: the ceilings that kernels are measured against.

use std::time::Instant;

use bytemuck::{Pod, Zeroable, cast_slice};
use half::bf16;
use rand::Rng;

use super::{DeviceBuffer, Gpu, Grid, Ptr};
use crate::device::Ceilings;
use crate::error::{Error, Result};
use crate::random::{Purpose, generator};

/// Bytes that the copy moves, and how often.
const COPY_BYTES: usize = 256 << 20;
const COPIES: usize = 10;

/// Rounds of each warp, and FLOPs of a round.
const ROUNDS: usize = 4096;
const FLOPS: usize = 4 * 4096;

/// Threads of a block, and values that the products of all of them take: of each, four registers of A and two of B.
const THREADS: usize = 256;
pub const MMA_OPERANDS: usize = THREADS * 12;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MmaCeiling {
    operands: Ptr,
    out: Ptr,
    rounds: i32,
    padding: i32,
}

impl Gpu {
    /// Measures the ceilings; takes a second at most on real hardware.
    pub fn ceilings(&self) -> Result<Ceilings> {
        let from = self.zeros::<u8>("copy", COPY_BYTES)?;
        let timed = |work: &dyn Fn() -> Result<()>| -> Result<f64> {
            work()?;
            self.synchronize()?;
            let start = Instant::now();
            work()?;
            self.synchronize()?;
            Ok(start.elapsed().as_secs_f64())
        };
        let seconds = timed(&|| (0..COPIES).try_for_each(|_| from.duplicate().map(drop)))?;
        let blocks = 16 * self.multiprocessors();
        // From -1 to 1, as activations and weights are about: the sums stay finite, and all bits of the products change.
        let mut rng = generator(0, Purpose::Benchmark, 5);
        let operands: Vec<bf16> = (0..MMA_OPERANDS).map(|_| bf16::from_f32(rng.random_range(-1.0..1.0))).collect();
        let operands = self.upload("operands", cast_slice::<bf16, u16>(&operands))?;
        let out = self.alloc::<f32>("ceiling", blocks * THREADS)?;
        let mma = timed(&|| self.multiply_registers(&operands, &out, ROUNDS))?;
        Ok(Ceilings {
            bytes_per_second: (2 * COPIES * COPY_BYTES) as f64 / seconds,
            flops_per_second: (blocks * 8 * ROUNDS * FLOPS) as f64 / mma,
        })
    }

    /// Queues rounds of products of `MMA_OPERANDS` values, in a block for each `THREADS` sums of `out`.
    fn multiply_registers(&self, operands: &DeviceBuffer<u16>, out: &DeviceBuffer<f32>, rounds: usize) -> Result<()> {
        let args = MmaCeiling { operands: operands.ptr(), out: out.ptr(), rounds: rounds as i32, padding: 0 };
        self.launch("mma_ceiling", Grid::line(out.len() / THREADS, THREADS as u32), &args)
    }

    /// What the products sum to whose rate is measured, a value of each thread: of `MMA_OPERANDS` values, in so many blocks
    /// and rounds.
    pub fn mma_sums(&self, operands: &[bf16], blocks: usize, rounds: usize) -> Result<Vec<f32>> {
        if operands.len() != MMA_OPERANDS {
            return Err(Error::shape("mma_ceiling", format!("{} operands, needs {MMA_OPERANDS}", operands.len())));
        }
        let operands = self.upload("operands", cast_slice::<bf16, u16>(operands))?;
        let out = self.alloc::<f32>("ceiling", blocks * THREADS)?;
        self.multiply_registers(&operands, &out, rounds)?;
        let mut sums = vec![0.0; out.len()];
        out.read(&mut sums)?;
        Ok(sums)
    }
}
