//! What cusim counted of each kernel (`CUSIM_COUNT=file.json`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;

/// Bytes asked for and 32-byte sectors touched.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Global {
    pub bytes: u64,
    pub sectors: u64,
}

impl Global {
    /// Share of the sectors' bytes that were asked for; lanes that share a value make it no more than 1.
    pub fn efficiency(&self) -> f64 {
        if self.sectors == 0 { 1.0 } else { (self.bytes as f64 / (32 * self.sectors) as f64).min(1.0) }
    }
}

/// Passes over the banks that shared memory took, and that it would take without conflicts.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Shared {
    pub wavefronts: u64,
    pub ideal_wavefronts: u64,
}

impl Shared {
    /// How many times as many passes as needed.
    pub fn conflicts(&self) -> f64 {
        if self.ideal_wavefronts == 0 { 1.0 } else { self.wavefronts as f64 / self.ideal_wavefronts as f64 }
    }
}

/// What some instructions did.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Work {
    /// Instructions of warps.
    pub warp_instructions: u64,
    pub flops: u64,
    /// Floating-point operations by kind, such as `f32_fma` or `tensor_bf16`.
    pub operations: BTreeMap<String, u64>,
    /// Lanes of an instruction that did something, in the mean.
    pub active_lanes: f64,
    pub global_load: Global,
    pub global_store: Global,
    pub shared_load: Shared,
    pub shared_store: Shared,
    pub local_bytes: u64,
}

impl Work {
    /// FLOPs of tensor cores.
    pub fn tensor_flops(&self) -> u64 {
        self.operations.iter().filter(|(kind, _)| kind.starts_with("tensor")).map(|(_, count)| count).sum()
    }
}

/// What one line of a kernel's source did in all launches.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LineCount {
    /// File and line; empty for instructions that come from none.
    pub source: String,
    #[serde(flatten)]
    pub work: Work,
}

/// Counts of all launches of a kernel.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct KernelCount {
    pub kernel: String,
    pub launches: u64,
    /// Bytes of the sectors that each launch touches, each sector once: what caches cannot absorb.
    pub loaded_once_bytes: u64,
    pub stored_once_bytes: u64,
    /// Bytes of the sectors that each launch loads, each sector once for each wave of blocks that run at a time: what a cache
    /// lets through that keeps what blocks share while they run, and nothing else.
    pub loaded_by_wave_bytes: u64,
    #[serde(flatten)]
    pub work: Work,
    /// By source line.
    #[serde(default)]
    pub lines: Vec<LineCount>,
}

impl KernelCount {
    /// Bytes that must move between device memory and the chip, however well caches work.
    pub fn once_bytes(&self) -> u64 {
        self.loaded_once_bytes + self.stored_once_bytes
    }

    /// Bytes that move if blocks share what they load with those that run beside them only.
    pub fn wave_bytes(&self) -> u64 {
        self.loaded_by_wave_bytes + self.stored_once_bytes
    }

    /// FLOPs of tensor cores.
    pub fn tensor_flops(&self) -> u64 {
        self.work.tensor_flops()
    }
}

/// Counts of all launches of a kernel from within one range.
#[derive(Clone, Debug, Deserialize)]
pub struct RangeCount {
    /// The innermost range, such as `linear backward`.
    pub range: String,
    /// The kernel, without source lines.
    #[serde(flatten)]
    pub count: KernelCount,
}

/// What cusim counted.
#[derive(Clone, Debug, Deserialize)]
pub struct Counts {
    /// By kernel, those that move most bytes first.
    pub kernels: Vec<KernelCount>,
    /// By range and kernel, of programs that name ranges.
    #[serde(default)]
    pub ranges: Vec<RangeCount>,
    /// Calls of each of the driver's functions.
    #[serde(default)]
    pub calls: BTreeMap<String, u64>,
}

impl Counts {
    /// Reads a file that cusim wrote.
    pub fn read(path: &Path) -> Result<Counts> {
        let mut counts: Counts = serde_json::from_str(&files::read_text(path)?)
            .map_err(|e| Error::file(path, format!("is no file of counts that cusim wrote: {e}")))?;
        counts.kernels.sort_by_key(|k| std::cmp::Reverse(k.work.global_load.sectors + k.work.global_store.sectors));
        Ok(counts)
    }
}
