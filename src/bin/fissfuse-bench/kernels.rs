//! What cusim counted, and a profiler beside it.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use clap::ValueEnum;
use fissfuse::device::{DeviceChoice, Gpu};
use fissfuse::profile::counts::{Counts, KernelCount, Work};
use fissfuse::profile::kernel_times::kernel_times;
use fissfuse::profile::measurement::Measurement;
use fissfuse::profile::ncu;
use fissfuse::profile::step::TrainingStep;
use fissfuse::train::Steps;
use serde_json::{Map, Value};

use super::session::Session;
use super::work::{DeviceArgs, WorkArgs};

/// The kernels of a training step. On a CUDA device their times, with an empty second-level cache and back to back, registers,
/// shared memory and occupancy; with --counts what cusim counted of each: FLOPs, bytes that its launches touch and all that they
/// load and store, how well these coalesce, bank conflicts. Counting needs no permission and no card.
///
/// `make kernel-counts` does it for a training step. By hand: `CUSIM_COUNT=counts.json LD_LIBRARY_PATH=target/cusim fissfuse-bench step --device cuda --runs 1
/// --warmup 0` counts.
#[derive(clap::Args)]
pub struct KernelsArgs {
    #[command(flatten)]
    work: WorkArgs,

    #[command(flatten)]
    device: DeviceArgs,

    /// File that cusim wrote. With a device, of one step of the same sizes: it gives FLOPs and bytes to the times.
    #[arg(long, value_name = "FILE")]
    pub counts: Option<PathBuf>,

    /// Names of the figures.
    #[arg(long, value_enum, default_value = "own")]
    metrics: Names,

    /// Show the source lines of this kernel, those with most instructions first.
    #[arg(long, value_name = "KERNEL", requires = "counts")]
    by_line: Option<String>,
}

/// Steps that are measured where --runs does not say.
const STEPS: usize = 10;

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
    pub page: Option<PathBuf>,

    /// File that cusim wrote.
    #[arg(long, value_name = "FILE", required_unless_present = "list")]
    pub counts: Option<PathBuf>,

    /// Print the metrics that can be compared, as `ncu --metrics` takes them.
    #[arg(long)]
    list: bool,
}

/// What cusim counted of one kernel at least.
pub fn read(path: &Path) -> anyhow::Result<Counts> {
    let counts = Counts::read(path)?;
    ensure!(!counts.kernels.is_empty(), "{}: counts no launch of a kernel", path.display());
    Ok(counts)
}

pub fn kernels(args: KernelsArgs, session: &mut Session) -> anyhow::Result<()> {
    let counts = args.counts.as_deref().map(read).transpose()?.map(|counts| counts.kernels);
    // With counts alone nothing is measured: a device must be named.
    let named = counts.is_none() || matches!(args.device.device, DeviceChoice::Cuda(_));
    let gpu = if named { args.device.open()? } else { None };
    match (gpu, counts) {
        (Some(gpu), counts) => measure(&args, &gpu, &counts.unwrap_or_default(), session),
        (None, Some(kernels)) => counted(&args, kernels, session),
        (None, None) => bail!("there is nothing to show without a CUDA device: --counts FILE has what cusim counted"),
    }
}

/// Times of the kernels of a step.
fn measure(args: &KernelsArgs, gpu: &Gpu, counts: &[KernelCount], session: &mut Session) -> anyhow::Result<()> {
    let rows = args.work.rows()?;
    let [row] = &rows[..] else { bail!("kernels are measured of one step: give each size one value") };
    session.begin("kernels", Some(gpu))?;
    session.set("source", "measured");
    args.work.set(session);
    row.parameters.iter().for_each(|(name, value)| session.set(name, value.clone()));
    session.expect_comparable()?;
    let steps = Steps::new(Some(gpu), false)?;
    let mut step = TrainingStep::new(row.config.clone(), row.shape, args.work.seed, steps)?;
    let (rows, discarded) = kernel_times(gpu, &mut step, session.runs().unwrap_or(STEPS), counts, session.ceilings())?;
    rows.into_iter().for_each(|row| session.push(row));
    if discarded > 0 {
        session
            .advise(vec![format!("{discarded} steps do not count: the clock fell below three quarters (throttled)")]);
    }
    Ok(())
}

fn counted(args: &KernelsArgs, kernels: Vec<KernelCount>, session: &mut Session) -> anyhow::Result<()> {
    session.begin("kernels", None)?;
    session.set("source", "counted by cusim");
    if let Some(name) = &args.by_line {
        let kernel = kernels.iter().find(|kernel| &kernel.kernel == name);
        let Some(kernel) = kernel else {
            let names: Vec<&str> = kernels.iter().map(|kernel| kernel.kernel.as_str()).collect();
            bail!("the file counts no kernel {name}; it has {}", names.join(", "));
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
    let kernels = read(counts)?.kernels;
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
