//! What a device does at most: the ceilings that kernels are measured against.

use std::time::Instant;

use bytemuck::{Pod, Zeroable};

use super::{Gpu, Grid, Ptr};
use crate::error::Result;

/// Bytes that the copy moves, and how often.
const COPY_BYTES: usize = 256 << 20;
const COPIES: usize = 10;

/// Rounds of each warp, and FLOPs of a round.
const ROUNDS: usize = 4096;
const FLOPS: usize = 4 * 4096;

/// Measured ceilings.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// Bytes read and written per second by a copy within the device's memory.
    pub bytes_per_second: f64,
    /// FLOPs per second of bf16 tensor cores with f32 sums.
    pub tensor_flops: f64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MmaCeiling {
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
        let blocks = 16 * self.multiprocessors()?;
        let out = self.alloc::<f32>("ceiling", blocks * 256)?;
        let args = MmaCeiling { out: out.ptr(), rounds: ROUNDS as i32, padding: 0 };
        let mma = timed(&|| self.launch("mma_ceiling", Grid::line(blocks, 256), &args))?;
        Ok(Ceilings {
            bytes_per_second: (2 * COPIES * COPY_BYTES) as f64 / seconds,
            tensor_flops: (blocks * 8 * ROUNDS * FLOPS) as f64 / mma,
        })
    }
}
