//! What cusim counted, and a profiler beside it.

use std::path::PathBuf;

use anyhow::ensure;
use clap::ValueEnum;
use fissfuse::profile::counts::{self, KernelCount, Work};
use fissfuse::profile::measurement::Measurement;
use fissfuse::profile::ncu;
use serde_json::{Map, Value};

use super::session::Session;

/// What cusim counted of each kernel: FLOPs, bytes that its launches touch and all that they load and store, how well these
/// coalesce, bank conflicts. It needs no permission and no card.
///
/// `make kernel-counts` does it for a training step. By hand: `CUSIM_COUNT=counts.json LD_LIBRARY_PATH=target/cusim fissfuse-bench step --device cuda --runs 1
/// --warmup 0` counts.
#[derive(clap::Args)]
pub struct KernelsArgs {
    /// File that cusim wrote.
    #[arg(long, value_name = "FILE")]
    counts: PathBuf,

    /// Names of the figures.
    #[arg(long, value_enum, default_value = "own")]
    metrics: Names,

    /// Show the source lines of this kernel, those with most instructions first.
    #[arg(long, value_name = "KERNEL")]
    by_line: Option<String>,
}

/// Under whose names counts are shown.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Names {
    /// This program's.
    Own,
    /// Those of Nsight Compute.
    Ncu,
}

/// Beside what Nsight Compute measured on a card (`ncu --csv --page raw`), what cusim counted of the same work: both for each
/// kernel and metric, and their ratio.
#[derive(clap::Args)]
pub struct CompareNcuArgs {
    /// What ncu printed.
    #[arg(value_name = "FILE.csv", required_unless_present = "list")]
    page: Option<PathBuf>,

    /// File that cusim wrote.
    #[arg(long, value_name = "FILE", required_unless_present = "list")]
    counts: Option<PathBuf>,

    /// Print the metrics that can be compared, as `ncu --metrics` takes them.
    #[arg(long)]
    list: bool,
}

fn read(path: &std::path::Path) -> anyhow::Result<Vec<KernelCount>> {
    let kernels = counts::read(path)?;
    ensure!(!kernels.is_empty(), "{}: counts no launch of a kernel", path.display());
    Ok(kernels)
}

pub fn kernels(args: KernelsArgs, session: &mut Session) -> anyhow::Result<()> {
    let kernels = read(&args.counts)?;
    session.begin("kernels", None)?;
    session.set("source", "counted by cusim");
    if let Some(name) = &args.by_line {
        let kernel = kernels.iter().find(|kernel| &kernel.kernel == name);
        let Some(kernel) = kernel else {
            let names: Vec<&str> = kernels.iter().map(|kernel| kernel.kernel.as_str()).collect();
            anyhow::bail!("{}: counts no kernel {name}; it has {}", args.counts.display(), names.join(", "));
        };
        session.set("kernel", name.as_str());
        let mut lines = kernel.lines.clone();
        lines.sort_by_key(|line| std::cmp::Reverse(line.work.warp_instructions));
        for line in lines {
            let source = if line.source.is_empty() { "no line" } else { &line.source };
            let row = Measurement::new(source, Map::new());
            session.push(with_work(row, &line.work, args.metrics));
        }
        return Ok(());
    }
    for kernel in &kernels {
        let row = Measurement::new(&kernel.kernel, Map::new()).with("launches", kernel.launches as f64);
        session.push(match args.metrics {
            Names::Ncu => with_work(row, &kernel.work, Names::Ncu),
            Names::Own => {
                let (once, by_wave) = (kernel.once_bytes() as f64, kernel.wave_bytes() as f64);
                let row = with_work(row, &kernel.work, Names::Own).with("bytes", once).with("bytes_by_wave", by_wave);
                row.with("intensity", kernel.work.flops as f64 / once)
            }
        });
    }
    if args.metrics == Names::Own {
        let sum = |of: fn(&KernelCount) -> u64| kernels.iter().map(of).sum::<u64>() as f64;
        let all = Measurement::new("all", Map::new()).with("launches", sum(|k| k.launches));
        let all = all.with("flops", sum(|k| k.work.flops)).with("tensor_flops", sum(KernelCount::tensor_flops));
        let all = all.with("bytes", sum(KernelCount::once_bytes));
        session.push(all.with("bytes_by_wave", sum(KernelCount::wave_bytes)));
    }
    Ok(())
}

fn with_work(row: Measurement, work: &Work, names: Names) -> Measurement {
    if names == Names::Ncu {
        return ncu::of_counts(work).fold(row, |row, (name, value)| row.with(name, value));
    }
    let sectors = |sectors: u64| (32 * sectors) as f64;
    let figures = [
        ("flops", work.flops as f64),
        ("tensor_flops", work.tensor_flops() as f64),
        ("bytes_loaded", sectors(work.global_load.sectors)),
        ("load_efficiency_share", work.global_load.efficiency()),
        ("bytes_stored", sectors(work.global_store.sectors)),
        ("store_efficiency_share", work.global_store.efficiency()),
        ("bank_passes", work.shared_load.conflicts().max(work.shared_store.conflicts())),
        ("active_lanes", work.active_lanes),
        ("warp_instructions", work.warp_instructions as f64),
    ];
    figures.into_iter().fold(row, |row, (name, figure)| row.with(name, figure))
}

pub fn compare_ncu(args: CompareNcuArgs, session: &mut Session) -> anyhow::Result<()> {
    let (Some(page), Some(counts)) = (&args.page, &args.counts) else {
        println!("{}", ncu::metric_names().collect::<Vec<_>>().join(","));
        return Ok(());
    };
    let kernels = read(counts)?;
    let (both, only) = ncu::compare(&kernels, &ncu::read(page)?);
    ensure!(!both.is_empty(), "{} and {} have no kernel in common", page.display(), counts.display());
    session.begin("compare-ncu", None)?;
    for row in both {
        let parameters: Map<String, Value> = [("metric".to_string(), row.metric.into())].into_iter().collect();
        let ratio = if row.counted == row.profiled { 1.0 } else { row.profiled / row.counted };
        let shown = Measurement::new(&row.kernel, parameters).with("launches", row.launches as f64);
        session.push(shown.with("cusim", row.counted).with("ncu", row.profiled).with("ratio", ratio));
    }
    session.advise(only.into_iter().map(|name| format!("not compared: {name}")).collect());
    Ok(())
}
