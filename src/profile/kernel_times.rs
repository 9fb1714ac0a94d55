//! Times of the kernels of a training step on a device.

use indexmap::IndexMap;
use serde_json::Map;

use super::counts::KernelCount;
use super::measurement::Measurement;
use super::step::TrainingStep;
use super::timing::Timing;
use crate::device::cuda::KernelTime;
use crate::device::{Ceilings, Gpu};
use crate::error::Result;

/// A step whose multiprocessors ran below this share of the fastest step's clock does not count: the card was throttled.
const LEAST_CLOCK: f64 = 0.75;

/// The part that is back to back; the whole is cold.
pub const HOT: &str = "hot";

/// All launches of a kernel in a step.
#[derive(Default)]
struct OfStep {
    launches: usize,
    cold: f64,
    hot: f64,
    registers: u32,
    shared_bytes: u32,
    /// The least of its launches.
    occupancy: Option<f64>,
}

/// Measures `steps` steps, kernel by kernel, all launches of a kernel together: seconds cold, and hot as a part. With `counts` of
/// cusim, of one such step, also rates and shares of the roofline. Gives the rows and how many steps did not count.
pub fn kernel_times(
    gpu: &Gpu,
    step: &mut TrainingStep,
    steps: usize,
    counts: &[KernelCount],
    ceilings: Option<Ceilings>,
) -> Result<(Vec<Measurement>, usize)> {
    step.run()?;
    let measured = (0..steps).map(|_| gpu.kernel_times(|| step.run())).collect::<Result<Vec<_>>>()?;
    let clocks: Vec<Option<f64>> = measured.iter().map(|times| median_clock(times)).collect();
    let fastest = clocks.iter().flatten().copied().fold(0.0, f64::max);
    let counts_as = |clock: &Option<f64>| clock.is_none_or(|clock| clock >= LEAST_CLOCK * fastest);
    let discarded = clocks.iter().filter(|clock| !counts_as(clock)).count();
    let mut all: IndexMap<&str, (Vec<OfStep>, Vec<Option<f64>>)> = IndexMap::new();
    for (times, clock) in measured.iter().zip(&clocks).filter(|(_, clock)| counts_as(clock)) {
        for (kernel, of_step) in by_kernel(times) {
            let (steps, clocks) = all.entry(kernel).or_default();
            steps.push(of_step);
            clocks.push(*clock);
        }
    }
    let rows = all.into_iter().map(|(kernel, (steps, clocks))| {
        let timing = |of: fn(&OfStep) -> f64| Timing::new(steps.iter().map(of).collect());
        let mut row = Measurement { clocks_mhz: Some(clocks), ..Measurement::new(kernel, Map::new()) };
        row.seconds = Some(timing(|step| step.cold)?);
        row.parts.insert(HOT.into(), timing(|step| step.hot)?);
        let one = &steps[0];
        row = row.with("launches", one.launches as f64).with("registers", f64::from(one.registers));
        row = row.with("shared_bytes", f64::from(one.shared_bytes));
        row = row.with("occupancy_share", one.occupancy.unwrap_or(f64::NAN)).with("clock_mhz", fastest);
        let Some(count) = counts.iter().find(|count| count.kernel == kernel) else { return Ok(row) };
        let (flops, bytes) = (count.work.flops as f64, count.once_bytes() as f64);
        let row = row.with_rate("flops", flops).with("tensor_flops", count.tensor_flops() as f64);
        let row = row.with_rate("bytes", bytes).with("intensity", flops / bytes);
        Ok(row.with_roofline(ceilings))
    });
    Ok((rows.collect::<Result<_>>()?, discarded))
}

fn median_clock(times: &[KernelTime]) -> Option<f64> {
    let clocks = times.iter().filter_map(|time| time.clock_mhz).collect();
    Timing::new(clocks).ok().map(|clocks| clocks.p50())
}

fn by_kernel(times: &[KernelTime]) -> IndexMap<&'static str, OfStep> {
    let mut kernels: IndexMap<&'static str, OfStep> = IndexMap::new();
    for time in times {
        let kernel = kernels.entry(time.kernel).or_default();
        kernel.launches += 1;
        kernel.cold += time.cold;
        kernel.hot += time.hot;
        kernel.registers = kernel.registers.max(time.registers);
        kernel.shared_bytes = kernel.shared_bytes.max(time.shared_bytes);
        kernel.occupancy = Some(kernel.occupancy.map_or(time.occupancy, |least| least.min(time.occupancy)));
    }
    kernels
}
