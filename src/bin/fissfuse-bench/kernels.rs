//! What cusim counted.

use std::path::PathBuf;

use fissfuse::profile::counts;
use fissfuse::profile::counts::KernelCount;
use fissfuse::profile::measurement::Measurement;
use serde_json::Map;

use super::session::Session;

/// What cusim counted of each kernel: FLOPs, bytes that its launches touch and all that they load and store, how well these
/// coalesce, bank conflicts.
///
/// `make kernel-counts` does it for a training step. By hand: `CUSIM_COUNT=counts.json LD_LIBRARY_PATH=target/cusim fissfuse-bench step --device cuda --runs 1
/// --warmup 0` counts.
#[derive(clap::Args)]
pub struct KernelsArgs {
    /// File that cusim wrote.
    #[arg(long, value_name = "FILE")]
    counts: PathBuf,
}

pub fn kernels(args: KernelsArgs, session: &mut Session) -> anyhow::Result<()> {
    let kernels = counts::read(&args.counts)?;
    anyhow::ensure!(!kernels.is_empty(), "{}: counts no launch of a kernel", args.counts.display());
    session.begin("kernels", None)?;
    session.set("source", "counted by cusim");
    let row = |k: &KernelCount| {
        let sectors = |sectors: u64| (32 * sectors) as f64;
        let figures = [
            ("launches", k.launches as f64),
            ("flops", k.flops as f64),
            ("tensor_flops", k.tensor_flops() as f64),
            ("bytes", k.once_bytes() as f64),
            ("bytes_by_wave", k.wave_bytes() as f64),
            ("bytes_loaded", sectors(k.global_load.sectors)),
            ("load_efficiency_share", k.global_load.efficiency()),
            ("bytes_stored", sectors(k.global_store.sectors)),
            ("store_efficiency_share", k.global_store.efficiency()),
            ("bank_passes", k.shared_load.conflicts().max(k.shared_store.conflicts())),
            ("active_lanes", k.active_lanes),
            ("intensity", k.flops as f64 / k.once_bytes() as f64),
        ];
        figures.into_iter().fold(Measurement::new(&k.kernel, Map::new()), |row, (name, figure)| row.with(name, figure))
    };
    kernels.iter().map(row).for_each(|row| session.push(row));
    let sum = |of: fn(&KernelCount) -> u64| kernels.iter().map(of).sum::<u64>() as f64;
    let all = Measurement::new("all", Map::new()).with("launches", sum(|k| k.launches)).with("flops", sum(|k| k.flops));
    let all = all.with("tensor_flops", sum(KernelCount::tensor_flops)).with("bytes", sum(KernelCount::once_bytes));
    session.push(all.with("bytes_by_wave", sum(KernelCount::wave_bytes)));
    Ok(())
}
