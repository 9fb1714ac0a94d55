//! Times of kernels by the device's events, as nvbench measures them: cold, with what the caches held thrown out, and hot, back
//! to back.
//!
//! Before each measured launch a kernel keeps the device busy until the host has queued everything (kernels/clock.cu), so that
//! no time between events is the host's. Measured kernels run several times: what they compute is worthless.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytemuck::{Pod, Zeroable};
use cudarc::driver::{CudaFunction, sys};

use super::{DeviceBuffer, Gpu, Grid, Mark, Ptr};
use crate::error::{Error, Result};

/// Launches back to back of which the hot time is the mean.
const HOT: usize = 5;

/// Rounds of about a microsecond that the delay takes: queueing what is measured takes less.
const DELAY: usize = 100;

/// The kernel that delays, which is not measured.
pub(super) const DELAY_KERNEL: &str = "delay";

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Delay {
    out: Ptr,
    rounds: i32,
    padding: i32,
}

/// What one launch took.
#[derive(Clone, Copy, Debug)]
pub struct KernelTime {
    /// The kernel.
    pub kernel: &'static str,
    /// Blocks, threads and dynamic shared memory.
    pub grid: Grid,
    /// Seconds with an empty second-level cache.
    pub cold: f64,
    /// Seconds back to back with itself.
    pub hot: f64,
    /// The multiprocessors' clock just before, where the device's timer says.
    pub clock_mhz: Option<f64>,
    /// Registers of a thread.
    pub registers: u32,
    /// Shared memory of a block in bytes, static and dynamic.
    pub shared_bytes: u32,
    /// Share of a multiprocessor's threads that can be resident.
    pub occupancy: f64,
}

/// Launches that are being measured, only while somebody asks: a launch takes microseconds.
#[derive(Default)]
pub(super) struct Timed {
    wanted: AtomicBool,
    samples: Mutex<Vec<Sample>>,
}

/// A launch whose events may not have come to pass yet.
struct Sample {
    time: KernelTime,
    cold: [Mark; 2],
    hot: [Mark; 2],
    clock: DeviceBuffer<u64>,
}

impl Timed {
    fn samples(&self) -> MutexGuard<'_, Vec<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether launches are measured.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
}

impl Gpu {
    /// Runs `work` with each launch measured; what its kernels compute is worthless. One at a time, and not of recorded work.
    pub fn kernel_times<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<Vec<KernelTime>> {
        let timed = &self.0.timed;
        timed.samples().clear();
        timed.wanted.store(true, Ordering::Relaxed);
        let done = work();
        timed.wanted.store(false, Ordering::Relaxed);
        let samples = std::mem::take(&mut *timed.samples());
        done?;
        samples.into_iter().map(Sample::finish).collect()
    }

    /// Measures a launch, which `launch` queues.
    pub(super) fn time_launch(
        &self,
        kernel: &'static str,
        grid: Grid,
        function: &CudaFunction,
        launch: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let mark =
            || self.mark()?.ok_or_else(|| Error::device(format!("{self:?}"), "timing", "a graph is being recorded"));
        // As many bytes as the second-level cache has push everything else out of it.
        let l2 = self.asked(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?;
        let flush = self.zeros::<u8>("second-level cache", l2.max(1))?;
        let clock = self.delay()?;
        let cold = [mark()?, launch().and_then(|()| mark())?];
        drop(flush);
        self.delay()?;
        let begun = mark()?;
        (0..HOT).try_for_each(|_| launch())?;
        let hot = [begun, mark()?];
        let attribute = |attribute| function.get_attribute(attribute).map_err(|e| self.error("asking", e));
        let registers = attribute(sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_NUM_REGS)? as u32;
        let fixed = attribute(sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)? as u32;
        let blocks = function.occupancy_max_active_blocks_per_multiprocessor(grid.threads, grid.shared as usize, None);
        let resident = blocks.map_err(|e| self.error("asking", e))? * grid.threads;
        let most = self.asked(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?;
        let time = KernelTime {
            kernel,
            grid,
            cold: 0.0,
            hot: 0.0,
            clock_mhz: None,
            registers,
            shared_bytes: fixed + grid.shared,
            occupancy: f64::from(resident) / most as f64,
        };
        self.0.timed.samples().push(Sample { time, cold, hot, clock });
        Ok(())
    }

    fn asked(&self, attribute: sys::CUdevice_attribute) -> Result<usize> {
        self.0.context.attribute(attribute).map(|value| value as usize).map_err(|e| self.error("asking", e))
    }

    /// Queues a delay; what it gives will hold its cycles and nanoseconds.
    pub fn delay(&self) -> Result<DeviceBuffer<u64>> {
        let out = self.alloc::<u64>("clock", 2)?;
        self.launch(DELAY_KERNEL, Grid::line(1, 32), &Delay { out: out.ptr(), rounds: DELAY as i32, padding: 0 })?;
        Ok(out)
    }
}

impl Sample {
    /// Waits for the events.
    fn finish(self) -> Result<KernelTime> {
        let mut clock = [0u64; 2];
        self.clock.read(&mut clock)?;
        let [cycles, nanoseconds] = clock.map(|count| count as f64);
        let cold = self.cold[1].since(&self.cold[0])?;
        let hot = self.hot[1].since(&self.hot[0])? / HOT as f64;
        let clock_mhz = (nanoseconds > 0.0).then(|| 1e3 * cycles / nanoseconds);
        Ok(KernelTime { cold, hot, clock_mhz, ..self.time })
    }
}
