//! Counters, per kernel and per source line, and per range that the program has named.
//!
//! They count what the PTX says: ptxas may merge, drop or expand instructions, and caches keep bytes from ever leaving
//! the chip.

pub mod access;
pub mod touched;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::json::Json;
use crate::machine::LANES;
use crate::machine::access::AccessKind;
use crate::machine::listing::{Executed, Listing, WorkKind};
use access::{AccessCounts, SiteCounts};
use touched::Touched;

/// Counts of some instructions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Instructions of warps.
    pub warps: u64,
    /// Instructions of lanes.
    pub lanes: u64,
    /// Operations by kind.
    pub work: BTreeMap<WorkKind, u64>,
    /// Loads from device memory and what else reads it.
    pub loads: SiteCounts,
    /// Stores to device memory.
    pub stores: SiteCounts,
    /// Barriers that warps came to.
    pub barriers: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.warps += other.warps;
        self.lanes += other.lanes;
        for (kind, amount) in &other.work {
            *self.work.entry(*kind).or_default() += amount;
        }
        self.loads.add(&other.loads);
        self.stores.add(&other.stores);
        self.barriers += other.barriers;
    }

    /// Floating-point operations.
    pub fn flops(&self) -> u64 {
        let float = |kind: &WorkKind| !matches!(kind, WorkKind::Other | WorkKind::Integer | WorkKind::TensorInt);
        self.work.iter().filter(|(kind, _)| float(kind)).map(|(_, amount)| amount).sum()
    }

    fn to_json(&self) -> Vec<(&'static str, Json)> {
        let int = Json::Int;
        let ratio = |part: u64, whole: u64| Json::Float(if whole == 0 { 1.0 } else { part as f64 / whole as f64 });
        let work = self.work.iter().map(|(kind, amount)| (name(*kind), int(*amount)));
        let (loads, stores) = (&self.loads, &self.stores);
        let shared = |counts: &SiteCounts| {
            Json::object([
                ("bytes", int(counts.shared_bytes)),
                ("wavefronts", int(counts.wavefronts)),
                ("ideal_wavefronts", int(counts.ideal_wavefronts)),
            ])
        };
        let global = |counts: &SiteCounts| {
            Json::object([
                ("bytes", int(counts.global_bytes)),
                ("sectors", int(counts.sectors)),
                ("efficiency", ratio(counts.global_bytes, counts.sectors * access::SECTOR)),
            ])
        };
        vec![
            ("warp_instructions", int(self.warps)),
            ("lane_instructions", int(self.lanes)),
            ("active_lanes", Json::Float(if self.warps == 0 { 0.0 } else { self.lanes as f64 / self.warps as f64 })),
            ("flops", int(self.flops())),
            ("operations", Json::object(work)),
            ("global_load", global(loads)),
            ("global_store", global(stores)),
            ("shared_load", shared(loads)),
            ("shared_store", shared(stores)),
            ("local_bytes", int(loads.local_bytes + stores.local_bytes)),
            ("atomics", int(loads.atomics + stores.atomics)),
            ("barriers", int(self.barriers)),
        ]
    }
}

/// What a kind of work is called in reports.
fn name(kind: WorkKind) -> &'static str {
    match kind {
        WorkKind::Other => "other",
        WorkKind::Add32 => "f32_add",
        WorkKind::Mul32 => "f32_mul",
        WorkKind::Fma32 => "f32_fma",
        WorkKind::Special32 => "f32_special",
        WorkKind::Float64 => "f64",
        WorkKind::Half => "half",
        WorkKind::Integer => "integer",
        WorkKind::TensorF16 => "tensor_f16",
        WorkKind::TensorBf16 => "tensor_bf16",
        WorkKind::TensorTf32 => "tensor_tf32",
        WorkKind::TensorF64 => "tensor_f64",
        WorkKind::TensorInt => "tensor_int",
    }
}

/// Counts of a kernel.
#[derive(Clone, Debug, Default)]
pub struct KernelCounts {
    /// How often it was launched.
    pub launches: u64,
    /// Bytes of the sectors that each launch loads from, a sector once a launch.
    pub loaded_once: u64,
    /// The same, a sector once for each wave of blocks.
    pub loaded_by_wave: u64,
    /// Bytes of the sectors that each launch stores to, a sector once a launch.
    pub stored_once: u64,
    /// Counts by source line; of instructions without one under an empty name.
    pub lines: BTreeMap<(String, u32), Counts>,
}

impl KernelCounts {
    /// Sum over the lines.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.lines.values().for_each(|counts| total.add(counts));
        total
    }

    fn add(&mut self, other: &Self) {
        self.launches += other.launches;
        self.loaded_once += other.loaded_once;
        self.loaded_by_wave += other.loaded_by_wave;
        self.stored_once += other.stored_once;
        for (line, counts) in &other.lines {
            self.lines.entry(line.clone()).or_default().add(counts);
        }
    }

    /// Its launches and bytes, and the sum over its lines.
    fn to_json(&self, name: &str) -> impl Iterator<Item = (&'static str, Json)> + use<> {
        let head = [
            ("kernel", Json::String(name.to_string())),
            ("launches", Json::Int(self.launches)),
            ("loaded_once_bytes", Json::Int(self.loaded_once)),
            ("loaded_by_wave_bytes", Json::Int(self.loaded_by_wave)),
            ("stored_once_bytes", Json::Int(self.stored_once)),
        ];
        head.into_iter().chain(self.total().to_json())
    }
}

/// Counts by kernel.
#[derive(Clone, Debug, Default)]
pub struct Kernels(pub BTreeMap<String, KernelCounts>);

impl Kernels {
    fn of(&mut self, kernel: &str) -> &mut KernelCounts {
        self.0.entry(kernel.to_string()).or_default()
    }

    /// Counts a launch.
    pub fn add_launch(&mut self, kernel: &str) {
        self.of(kernel).launches += 1;
    }

    /// Adds the sectors that a launch touched.
    pub fn add_touched(&mut self, kernel: &str, touched: &Touched) {
        let kernel = self.of(kernel);
        kernel.loaded_once += touched.loaded();
        kernel.loaded_by_wave += touched.loaded_by_wave();
        kernel.stored_once += touched.stored();
    }

    fn line(&mut self, listing: &Listing, origin: u32) -> &mut Counts {
        let source = listing.origins.get(origin as usize).map(|origin| origin.source).unwrap_or_default();
        let file = listing.files.iter().find(|(number, _)| *number == source.file);
        let place = (file.map_or(String::new(), |(_, path)| path.clone()), source.line);
        self.of(&listing.name).lines.entry(place).or_default()
    }

    /// Adds what a thread executed, by instruction, given the PTX instruction that each came from.
    pub fn add_executed(&mut self, listing: &Listing, origins: impl Iterator<Item = u32>, executed: &[Executed]) {
        let mut last = None;
        let (mut warps, mut lanes) = (0u64, 0u64);
        for (number, change) in origins.zip(executed) {
            (warps, lanes) = (warps.wrapping_add(change.warps), lanes.wrapping_add(change.lanes));
            // An instruction may have become several, which all ran as often as the first.
            if last == Some(number) || warps == 0 {
                last = Some(number);
                continue;
            }
            last = Some(number);
            let Some(origin) = listing.origins.get(number as usize) else {
                continue;
            };
            let work = origin.work;
            let barrier = origin.text.starts_with("bar.") || origin.text.starts_with("barrier.");
            let counts = self.line(listing, number);
            counts.warps += warps;
            counts.lanes += lanes;
            if barrier {
                counts.barriers += warps;
            }
            if work.kind != WorkKind::Other {
                // The tensor cores' operations are counted per warp, which a guard leaves out as a whole.
                let times = if work.kind >= WorkKind::TensorF16 { lanes / LANES as u64 } else { lanes };
                *counts.work.entry(work.kind).or_default() += times * u64::from(work.amount);
            }
        }
    }

    /// Adds a block's memory accesses.
    pub fn add_accesses(&mut self, listing: &Listing, counts: &AccessCounts) {
        for (site, counts) in listing.sites.iter().zip(counts.sites()) {
            if *counts == SiteCounts::default() {
                continue;
            }
            let line = self.line(listing, site.origin);
            if site.access.stores() || site.access == AccessKind::AsyncCopy && site.space == crate::ptx::Space::Shared {
                line.stores.add(counts)
            } else {
                line.loads.add(counts)
            }
        }
    }
}

/// All counts.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// By the innermost range that a launch was asked for in; without a name those of none.
    ranges: BTreeMap<Option<Arc<str>>, Kernels>,
    /// Calls of each function of the driver.
    pub calls: BTreeMap<&'static str, u64>,
}

impl Counters {
    /// Of all ranges together.
    pub fn kernels(&self) -> Kernels {
        let mut all = Kernels::default();
        for (name, counts) in self.ranges.values().flat_map(|kernels| &kernels.0) {
            all.of(name).add(counts);
        }
        all
    }

    /// Everything as JSON.
    pub fn to_json(&self) -> String {
        let kernels = self.kernels();
        let kernels = kernels.0.iter().map(|(name, kernel)| {
            let lines = kernel.lines.iter().map(|((file, line), counts)| {
                let place = Json::String(if file.is_empty() { String::new() } else { format!("{file}:{line}") });
                Json::object([("source", place)].into_iter().chain(counts.to_json()))
            });
            let tail = [("lines", Json::Array(lines.collect()))];
            Json::object(kernel.to_json(name).chain(tail))
        });
        let named = self.ranges.iter().filter_map(|(range, kernels)| Some((range.as_ref()?, kernels)));
        let ranges = named.flat_map(|(range, kernels)| {
            let of_kernel = move |(name, kernel): (&String, &KernelCounts)| {
                Json::object([("range", Json::String(range.to_string()))].into_iter().chain(kernel.to_json(name)))
            };
            kernels.0.iter().map(of_kernel)
        });
        let calls = Json::object(self.calls.iter().map(|(name, count)| (*name, Json::Int(*count))));
        let all =
            [("kernels", Json::Array(kernels.collect())), ("ranges", Json::Array(ranges.collect())), ("calls", calls)];
        Json::object(all).to_string()
    }
}

/// Where the counts of a launch go.
#[derive(Clone, Debug)]
pub struct Counting<'a> {
    counters: &'a Mutex<Counters>,
    range: Option<Arc<str>>,
}

impl<'a> Counting<'a> {
    /// To these counters, of a launch that was asked for in this range.
    pub fn new(counters: &'a Mutex<Counters>, range: Option<Arc<str>>) -> Self {
        Self { counters, range }
    }

    /// Changes the counts.
    pub fn change(&self, change: impl FnOnce(&mut Kernels)) {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        change(counters.ranges.entry(self.range.clone()).or_default());
    }
}
