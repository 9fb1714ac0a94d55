//! Where something was measured.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::timing::Timing;
use crate::device::cpu::{has_bf16, has_integers, read_bandwidth};
use crate::device::cuda::driver;
use crate::device::{Ceilings, Gpu};
use crate::error::Result;
use crate::ops::matmul::{Mat, matmul};

/// Side of the square product of f32 whose rate is a CPU's ceiling.
const SIDE: usize = 1024;

/// A machine, as far as it matters to times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Threads that the processor runs at once.
    pub cores: usize,
    /// Threads that computed.
    pub threads: usize,
    /// Instructions that the engine has kernels for, such as `avx512f`.
    pub instructions: Vec<String>,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// The CUDA device that computed, if one did.
    pub gpu: Option<GpuMachine>,
}

/// A CUDA device, as far as it matters to times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuMachine {
    /// Its name.
    pub name: String,
    /// The CUDA version that its driver supports, such as 12.8.
    pub driver: String,
    /// Compute capability, 86 for 8.6.
    pub capability: u32,
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Memory.
    pub memory_bytes: u64,
    /// The highest clock of its multiprocessors.
    pub clock_mhz: u32,
    /// `mixed`, `bf16` or `f32`.
    pub arithmetic: String,
}

impl Machine {
    /// This one, with the device that computes.
    pub fn this(gpu: Option<&Gpu>) -> Result<Machine> {
        let gpu = match gpu {
            Some(gpu) => Some(GpuMachine {
                name: gpu.name().into(),
                driver: format!("{}.{}", driver()?.version.0, driver()?.version.1),
                capability: gpu.capability()?,
                multiprocessors: gpu.multiprocessors(),
                memory_bytes: gpu.memory()?.1 as u64,
                clock_mhz: gpu.clock_mhz()?,
                arithmetic: gpu.arithmetic().name().into(),
            }),
            None => None,
        };
        Ok(Machine {
            processor: of_proc("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads: rayon::current_num_threads(),
            instructions: instructions(),
            memory_bytes: of_proc("/proc/meminfo", "MemTotal")
                .and_then(|kib| kib.trim_end_matches("kB").trim().parse::<u64>().ok())
                .map(|kib| kib << 10),
            gpu,
        })
    }

    /// What differs from another, in words; nothing if times of both can be compared.
    pub fn differs(&self, other: &Machine) -> Option<String> {
        let say = |what: &str, here: String, there: String| Some(format!("{what} {there} then, {here} now"));
        if self.processor != other.processor || self.cores != other.cores {
            let name = |m: &Machine| format!("{} ({} threads at once)", m.processor, m.cores);
            return say("processor", name(self), name(other));
        }
        if self.threads != other.threads {
            return say("threads", self.threads.to_string(), other.threads.to_string());
        }
        let device = |m: &Machine| m.gpu.as_ref().map_or("none".into(), |g| format!("{} ({})", g.name, g.arithmetic));
        match device(self) != device(other) {
            true => say("CUDA device", device(self), device(other)),
            false => None,
        }
    }

    /// In a line.
    pub fn describe(&self) -> String {
        let gpu = self.gpu.as_ref().map(|gpu| {
            let GpuMachine { name, arithmetic, driver, clock_mhz, .. } = gpu;
            format!("{name}, {arithmetic} arithmetic, driver for CUDA {driver}, {clock_mhz} MHz at most, on ")
        });
        let Machine { processor, cores, threads, .. } = self;
        format!("{}{processor}, {threads} threads on {cores} cores", gpu.unwrap_or_default())
    }
}

/// The value of a line `name : value` of a file of /proc, where there is one.
fn of_proc(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Vec<String> {
    let found = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512vnni", has_integers()),
        ("avx512bf16", has_bf16()),
    ];
    found.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.into()).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn instructions() -> Vec<String> {
    let found = [("bf16", has_bf16()), ("integers", has_integers())];
    found.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.into()).collect()
}

/// What the device does at most, or the host: products of f32, which a training step takes, and reading of memory.
pub fn ceilings(gpu: Option<&Gpu>) -> Result<Ceilings> {
    if let Some(gpu) = gpu {
        return gpu.ceilings();
    }
    let (a, b) = (vec![0.5f32; SIDE * SIDE], vec![0.25f32; SIDE * SIDE]);
    let mut c = vec![0.0f32; SIDE * SIDE];
    // As many rows for each thread.
    let rows = SIDE.div_ceil(rayon::current_num_threads());
    let product = || {
        let parts = c.par_chunks_mut(rows * SIDE).zip(a.par_chunks(rows * SIDE));
        parts.try_for_each(|(c, a)| {
            matmul(c, SIDE, 0.0, 1.0, Mat::new(a, c.len() / SIDE, SIDE), Mat::new(&b, SIDE, SIDE))
        })
    };
    // The fastest: a ceiling is what nothing exceeds.
    let seconds = Timing::of(2, 10, product)?.min();
    let flops = 2.0 * (SIDE as f64).powi(3);
    Ok(Ceilings { flops_per_second: flops / seconds, bytes_per_second: read_bandwidth()? })
}
