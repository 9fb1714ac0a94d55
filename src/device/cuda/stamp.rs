//! At which clock a device's multiprocessors ran while it worked: cycles and nanoseconds that passed between two moments, as
//! nvbench measures them. The clock that the driver names is the highest, not that of the work.

use bytemuck::{Pod, Zeroable, cast_slice_mut};

use super::{DeviceBuffer, Gpu, Grid, Ptr};
use crate::error::Result;

/// The kernel that says how many cycles and nanoseconds have passed.
const STAMP_KERNEL: &str = "stamp";

/// Numbers of a stamp: cycles, nanoseconds, and whether they were said.
const NUMBERS: usize = 3;

/// Stamps that memory is made ready for at a time, so that most cost the host a launch alone.
const AT_A_TIME: usize = 1024;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Arguments {
    out: Ptr,
}

/// Moments at which a device had done what was queued before, in its own cycles and nanoseconds.
#[derive(Debug)]
pub struct Stamps {
    gpu: Gpu,
    multiprocessors: usize,
    count: usize,
    blocks: Vec<DeviceBuffer<u64>>,
}

impl Gpu {
    /// None yet.
    pub fn stamps(&self) -> Result<Stamps> {
        Ok(Stamps { gpu: self.clone(), multiprocessors: self.multiprocessors(), count: 0, blocks: vec![] })
    }
}

impl Stamps {
    /// Queues one, which takes the device a few microseconds and waits for nothing.
    pub fn push(&mut self) -> Result<()> {
        let at = self.count % AT_A_TIME;
        if at == 0 {
            self.blocks.push(self.gpu.zeros("clock", NUMBERS * AT_A_TIME)?);
        }
        let out = self.blocks[self.count / AT_A_TIME].ptr().offset::<u64>(NUMBERS * at);
        self.gpu.launch(STAMP_KERNEL, Grid::line(self.multiprocessors, 32), &Arguments { out })?;
        self.count += 1;
        Ok(())
    }

    /// The clock in MHz from each stamp to the next; waits for them. `None` where nobody said it, or the device's timer stood
    /// still.
    pub fn clocks_mhz(&self) -> Result<Vec<Option<f64>>> {
        let mut numbers = vec![[0u64; NUMBERS]; self.blocks.len() * AT_A_TIME];
        for (block, numbers) in self.blocks.iter().zip(numbers.chunks_mut(AT_A_TIME)) {
            block.read(cast_slice_mut(numbers))?;
        }
        Ok(numbers[..self.count].windows(2).map(|pair| clock_mhz(pair[0], pair[1])).collect())
    }
}

/// Cycles, nanoseconds and whether they were said, of two moments.
fn clock_mhz(then: [u64; 3], now: [u64; 3]) -> Option<f64> {
    let passed = |at: usize| now[at].checked_sub(then[at]).filter(|passed| *passed > 0);
    let (cycles, nanoseconds) = (passed(0)?, passed(1)?);
    (then[2] == 1 && now[2] == 1).then(|| 1e3 * cycles as f64 / nanoseconds as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_cycles_over_time_or_unknown() {
        assert_eq!(clock_mhz([1_000, 5_000, 1], [1_756_000, 1_005_000, 1]), Some(1755.0));
        for (then, now) in [
            ([0, 0, 0], [1_000, 1_000, 1]),
            ([0, 0, 1], [1_000, 1_000, 0]),
            ([9, 5, 1], [9, 8, 1]),
            ([9, 5, 1], [12, 5, 1]),
            ([9, 5, 1], [3, 8, 1]),
        ] {
            assert_eq!(clock_mhz(then, now), None, "{then:?} {now:?}");
        }
    }
}
