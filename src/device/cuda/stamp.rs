//! At which clock a device's multiprocessors ran while it worked: cycles and nanoseconds that passed between two moments, as
//! nvbench measures them. The clock that the driver names is the highest, not that of the work.

use bytemuck::{Pod, Zeroable};

use super::{DeviceBuffer, Gpu, Grid, Ptr};
use crate::error::Result;

/// The kernel that says how many cycles and nanoseconds have passed.
const STAMP_KERNEL: &str = "stamp";

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Arguments {
    out: Ptr,
}

/// The moment at which a device has done what was queued before, in its own cycles and nanoseconds.
#[derive(Debug)]
pub struct Stamp(DeviceBuffer<u64>);

impl Gpu {
    /// Queues a stamp, which takes the device a few microseconds and waits for nothing.
    pub fn stamp(&self) -> Result<Stamp> {
        let out = self.zeros::<u64>("clock", 3)?;
        self.launch(STAMP_KERNEL, Grid::line(self.multiprocessors()?, 32), &Arguments { out: out.ptr() })?;
        Ok(Stamp(out))
    }
}

impl Stamp {
    /// The clock in MHz from an earlier stamp of the same device to this one; waits for both. `None` if nobody said it, or the
    /// device's timer stood still.
    pub fn clock_mhz_since(&self, earlier: &Stamp) -> Result<Option<f64>> {
        let [mut then, mut now] = [[0u64; 3]; 2];
        earlier.0.read(&mut then)?;
        self.0.read(&mut now)?;
        Ok(clock_mhz(then, now))
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
