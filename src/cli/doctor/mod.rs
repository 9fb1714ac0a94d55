//! `fissfuse doctor`

mod bench;
mod between;
mod examination;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{bail, ensure};
use fissfuse::bytes::Bytes;
use fissfuse::device::Gpu;
use fissfuse::device::cuda::{Arithmetic, count, driver, has_driver, kernels};
use fissfuse::files;
use serde::Serialize;

use super::common::write_json;
use bench::Bench;
use between::Cards;
use examination::Examination;

/// Say what CUDA devices there are, and whether our kernels compute on them what the CPU computes.
///
/// Runs every kernel on the device at odd sizes, and at such as only take its largest tiles, twice, and compares the results
/// with the CPU's or with the definition; then a small Llama and a small CLIP with random weights. Exits with 1 if one is off
/// by more than rounding explains or differs when repeated.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the CUDA device to examine.
    #[arg(long, value_name = "N", default_value_t = 0)]
    ordinal: usize,

    /// Also time training steps and layers of an encoder and of a decoder, beside the device's measured ceilings.
    #[arg(long)]
    bench: bool,

    /// Also write what was found as JSON; with "-" to standard output, and the tables to standard error.
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// What was found.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    commit: &'static str,
    surroundings: Surroundings,
    examination: Examination,
    /// Where there are several devices.
    between: Option<Cards>,
    bench: Option<Bench>,
}

/// Driver, devices, kernels.
#[derive(Serialize)]
struct Surroundings {
    /// The newest CUDA version that the driver supports.
    cuda: Option<String>,
    /// The driver's release, where it can be found out.
    driver: Option<String>,
    /// What this driver is too old for.
    lacks: Vec<&'static str>,
    nvcc: &'static str,
    architectures: Vec<String>,
    kernels: usize,
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    ordinal: usize,
    name: String,
    capability: String,
    multiprocessors: usize,
    free_bytes: usize,
    bytes: usize,
    /// Whether kernels of a decoding step begin before those before them have ended.
    begins_early: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let to_stdout = args.json.as_ref().is_some_and(|path| path.as_os_str() == "-");
    args.json.as_deref().filter(|_| !to_stdout).map_or(Ok(()), files::expect_file_at)?;
    let out: &mut dyn Write = if to_stdout { &mut std::io::stderr() } else { &mut std::io::stdout() };
    let surroundings = Surroundings::look(out)?;
    let mut examination = Examination::of(&Gpu::open(args.ordinal, Arithmetic::F32)?, out)?;
    let gpu = Gpu::open(args.ordinal, Arithmetic::Mixed)?;
    let narrow = Gpu::open(args.ordinal, Arithmetic::Bf16)?;
    for gpu in [&narrow, &gpu] {
        // A device that failed computes nothing more.
        if examination.failure.is_none() {
            examination.add(Examination::of(gpu, out)?);
        }
    }
    let verdict = examination.verdict();
    // A device that fails is no measure of others.
    let between = if verdict.is_ok() { Cards::measure(surroundings.devices.len(), out)? } else { None };
    let bench = match (&verdict, args.bench) {
        (Ok(_), true) => Some(Bench::run(&gpu, &examination.agreeing(), out)?),
        _ => None,
    };
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("FISSFUSE_COMMIT"),
        surroundings,
        examination,
        between,
        bench,
    };
    match &args.json {
        Some(_) if to_stdout => writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?,
        Some(path) => write_json(path, &report)?,
        None => {}
    }
    match verdict {
        Ok(said) => Ok(writeln!(out, "\n{said}")?),
        Err(said) => bail!("{said}; do not trust results of this device"),
    }
}

impl Surroundings {
    /// Looks and prints.
    fn look(out: &mut dyn Write) -> anyhow::Result<Surroundings> {
        let architectures: BTreeSet<String> =
            kernels::EMBEDDED.iter().map(|ptx| format!("compute_{}", ptx.arch)).collect();
        let count_of_kernels = kernels::EMBEDDED.iter().flat_map(|ptx| ptx.entries()).collect::<BTreeSet<_>>().len();
        let mut found = Surroundings {
            cuda: None,
            driver: None,
            lacks: Vec::new(),
            nvcc: kernels::NVCC_RELEASE,
            architectures: architectures.into_iter().collect(),
            kernels: count_of_kernels,
            devices: Vec::new(),
        };
        match found.architectures.is_empty() {
            true => writeln!(out, "kernels: none; this program was built without nvcc")?,
            false => {
                let (architectures, nvcc) = (found.architectures.join(", "), found.nvcc);
                writeln!(out, "kernels: {count_of_kernels} in PTX for {architectures}, compiled by nvcc {nvcc}")?;
            }
        }
        if !has_driver() {
            writeln!(out, "driver:  none found")?;
        } else {
            let driver = driver()?;
            let ((major, minor), release) = (driver.version, driver.release.as_deref().unwrap_or("of unknown release"));
            writeln!(out, "driver:  {release}, CUDA {major}.{minor}")?;
            found.lacks = driver.lacks();
            found.lacks.iter().try_for_each(|lack| writeln!(out, "         it lacks {lack}"))?;
            found.cuda = Some(format!("{major}.{minor}"));
            found.driver = driver.release.clone();
        }
        for ordinal in 0..count()? {
            let gpu = Gpu::open(ordinal, Arithmetic::Mixed)?;
            let ((free_bytes, bytes), capability) = (gpu.memory()?, gpu.capability()?);
            let capability = format!("{}.{}", capability / 10, capability % 10);
            let multiprocessors = gpu.multiprocessors();
            let begins_early = gpu.begins_early();
            writeln!(
                out,
                "{gpu:?}: compute capability {capability}, {multiprocessors} multiprocessors, {} of {} free{}",
                Bytes::of(free_bytes),
                Bytes::of(bytes),
                if begins_early { ", decoding kernels begin early" } else { "" }
            )?;
            let name = gpu.name().to_string();
            found.devices.push(Device { ordinal, name, capability, multiprocessors, free_bytes, bytes, begins_early });
        }
        ensure!(!found.devices.is_empty(), "the driver has no device; check nvidia-smi and CUDA_VISIBLE_DEVICES");
        Ok(found)
    }
}
