//! What cusim counted.

use std::path::PathBuf;

use fissfuse::profile::counts;
use fissfuse::profile::counts::KernelCount;
use fissfuse::report::table;
use serde_json::json;

use super::print_json;

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

pub fn kernels(args: KernelsArgs, json: bool) -> anyhow::Result<()> {
    let kernels = counts::read(&args.counts)?;
    anyhow::ensure!(!kernels.is_empty(), "{}: counts no launch of a kernel", args.counts.display());
    if json {
        return print_json(&json!({"kernels": kernels}));
    }
    let header = [
        "kernel",
        "launches",
        "GFLOP",
        "on tensor cores",
        "MB touched",
        "by wave",
        "MB loaded",
        "coalesced %",
        "MB stored",
        "coalesced %",
        "bank passes x",
        "active lanes",
    ];
    let row = |k: &KernelCount| {
        let giga = |flops: u64| format!("{:.3}", flops as f64 / 1e9);
        let mega = |sectors: u64| format!("{:.1}", (32 * sectors) as f64 / 1e6);
        let percent = |share: f64| format!("{:.0}", 100.0 * share);
        let conflicts = k.shared_load.conflicts().max(k.shared_store.conflicts());
        vec![
            k.kernel.clone(),
            k.launches.to_string(),
            giga(k.flops),
            giga(k.tensor_flops()),
            format!("{:.1}", k.once_bytes() as f64 / 1e6),
            format!("{:.1}", k.wave_bytes() as f64 / 1e6),
            mega(k.global_load.sectors),
            percent(k.global_load.efficiency()),
            mega(k.global_store.sectors),
            percent(k.global_store.efficiency()),
            format!("{conflicts:.2}"),
            format!("{:.1}", k.active_lanes),
        ]
    };
    println!("{}", table(&header, kernels.iter().map(row)));
    let sum = |bytes: fn(&KernelCount) -> u64| kernels.iter().map(bytes).sum::<u64>() as f64 / 1e6;
    let (once, by_wave) = (sum(KernelCount::once_bytes), sum(KernelCount::wave_bytes));
    let launches: u64 = kernels.iter().map(|k| k.launches).sum();
    println!(
        "{launches} launches; {once:.1} MB touched, each sector once a launch, {by_wave:.1} MB with what is loaded counted once \
         a wave of blocks"
    );
    Ok(())
}
