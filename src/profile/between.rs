//! How values get from one device of a machine to another, and how fast.

use std::time::Instant;

use serde::Serialize;

use crate::device::Gpu;
use crate::device::cuda::Exposed;
use crate::error::Result;

/// Values of a copy whose rate is measured: 64 MiB.
const LARGE: usize = 16 << 20;

/// Copies of one value that are queued, one after the other, to measure what one takes.
const SMALL: usize = 100;

/// How often each is measured; the best counts, since others disturb and nobody helps.
const TURNS: usize = 5;

/// What copies between two devices do.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rate {
    /// Of copies of 64 MiB.
    pub bytes_per_second: f64,
    /// Seconds of a copy of four bytes among many.
    pub latency: f64,
}

/// Copies from one device to another.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Between {
    /// Number of the device that they come from.
    pub from: usize,
    /// Of that which they go to.
    pub to: usize,
    /// As the driver does it where no device reaches the other: through the host.
    pub through_host: Rate,
    /// From memory to memory, if the driver lets the one reach the other.
    pub direct: Option<Rate>,
}

impl Between {
    /// Measures all pairs of these devices, each way. Afterwards each reaches all that it can.
    pub fn all(gpus: &[Gpu]) -> Result<Vec<Between>> {
        let mut found = Vec::new();
        for from in gpus {
            for to in gpus.iter().filter(|to| !to.is(from)) {
                let through_host = rate(from, to)?;
                let direct = if to.reach(from)? { Some(rate(from, to)?) } else { None };
                found.push(Between { from: from.ordinal(), to: to.ordinal(), through_host, direct });
            }
        }
        Ok(found)
    }
}

fn rate(from: &Gpu, to: &Gpu) -> Result<Rate> {
    let (source, target) = (from.expose(LARGE)?, to.expose(LARGE)?);
    // Memory that was never written may lie nowhere.
    let ones = from.filled("copies", LARGE, 1.0)?;
    Exposed::copy_within(from, source.ptr(0, LARGE)?, ones.ptr(), LARGE)?;
    from.synchronize()?;
    let best = |copies: usize, values: usize| -> Result<f64> {
        let mut best = f64::INFINITY;
        // The first turn makes what copies need.
        for turn in 0..=TURNS {
            to.synchronize()?;
            let start = Instant::now();
            (0..copies).try_for_each(|_| target.copy_from(to, 0, &source, 0, values))?;
            to.synchronize()?;
            let seconds = start.elapsed().as_secs_f64() / copies as f64;
            best = if turn == 0 { best } else { best.min(seconds) };
        }
        Ok(best)
    };
    let bytes = (LARGE * size_of::<f32>()) as f64;
    Ok(Rate { bytes_per_second: bytes / best(1, LARGE)?, latency: best(SMALL, 1)? })
}
