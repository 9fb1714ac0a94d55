//! `fissfuse doctor`

use std::collections::BTreeSet;

use anyhow::ensure;
use fissfuse::device::Gpu;
use fissfuse::device::cuda::{Arithmetic, count, driver, has_driver, kernels};
use fissfuse::encoder::{self, Compute};
use fissfuse::llama::{self, LlamaConfig};
use fissfuse::model::{ModelConfig, Precision};
use fissfuse::ops::cases;
use fissfuse::profile::agreement::{Agreement, compare, tolerance};
use fissfuse::profile::decoding::DecodingBench;
use fissfuse::profile::flops::training_step;
use fissfuse::profile::latency::LatencyBench;
use fissfuse::profile::layers::{LayerBench, VIT_LAYERS};
use fissfuse::profile::models::{Comparison, compare_clip, compare_llama};
use fissfuse::profile::step::TrainingStep;
use fissfuse::profile::synthetic::Shape;
use fissfuse::profile::{Summary, Timing};
use fissfuse::report::table;
use fissfuse::train::Steps;

/// Images of a batch that is timed.
const ENCODED: usize = 256;

/// Layers of Llama-2-7B, and tokens of the prompt, that are timed.
const DECODER_LAYERS: usize = 2;
const PROMPT: usize = 512;

/// Say what CUDA devices there are, and whether our kernels compute on them what the CPU computes.
///
/// Runs every operation forward and backward on the device and on the CPU, at odd sizes, in both arithmetics, twice; then a
/// small Llama and a small CLIP with random weights. Exits with 1 if one is off by more than rounding explains or differs when
/// repeated.
#[derive(clap::Args)]
pub struct Args {
    /// Number of the CUDA device to examine.
    #[arg(long, value_name = "N", default_value_t = 0)]
    ordinal: usize,

    /// Also time training steps and layers of an encoder and of a decoder, beside the device's measured ceilings.
    #[arg(long)]
    bench: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    describe()?;
    let mut failed = 0;
    for arithmetic in [Arithmetic::F32, Arithmetic::Mixed] {
        let gpu = Gpu::open(args.ordinal, arithmetic)?;
        failed += examine(&gpu)?;
    }
    if args.bench {
        bench(args.ordinal)?;
    }
    ensure!(failed == 0, "{failed} operations or models differ from the CPU; do not trust results of this device");
    println!("\nAll operations and models agree with the CPU.");
    Ok(())
}

/// Driver, devices, kernels.
fn describe() -> anyhow::Result<()> {
    let archs: BTreeSet<kernels::Arch> = kernels::EMBEDDED.iter().map(|ptx| ptx.arch).collect();
    let archs: Vec<String> = archs.iter().map(|arch| format!("compute_{arch}")).collect();
    match archs.is_empty() {
        true => println!("kernels: none; this program was built without nvcc"),
        false => {
            let (count, archs) =
                (kernels::EMBEDDED.iter().map(|ptx| ptx.entries().count()).sum::<usize>(), archs.join(", "));
            println!("kernels: {count} in PTX for {archs}, compiled by nvcc {}", kernels::NVCC_RELEASE);
        }
    }
    if !has_driver() {
        println!("driver:  none found");
    } else {
        let driver = driver()?;
        let ((major, minor), release) = (driver.version, driver.release.as_deref().unwrap_or("of unknown release"));
        println!("driver:  {release}, CUDA {major}.{minor}");
        driver.lacks().iter().for_each(|lack| println!("         it lacks {lack}"));
    }
    for ordinal in 0..count()? {
        let gpu = Gpu::open(ordinal, Arithmetic::Mixed)?;
        let ((free, total), capability) = (gpu.memory()?, gpu.capability()?);
        let (major, minor, mib) = (capability / 10, capability % 10, 1 << 20);
        println!("{gpu:?}: compute capability {major}.{minor}, {} of {} MiB free", free / mib, total / mib);
    }
    Ok(())
}

/// Prints how each operation and each model compares; gives the number of those that do not agree.
fn examine(gpu: &Gpu) -> anyhow::Result<usize> {
    let arithmetic = gpu.arithmetic();
    let cases = cases::small()?;
    let results = cases.iter().map(|case| compare(case, gpu)).collect::<fissfuse::Result<Vec<_>>>()?;
    let name = if arithmetic == Arithmetic::F32 { "f32" } else { "mixed" };
    println!("\n{name} arithmetic; errors are relative, {:.0e} at most", tolerance(arithmetic));
    let row = |r: &Agreement| {
        let verdict = if r.holds(arithmetic) { "" } else { "WRONG" };
        let [output, gradients] = [r.output, r.gradients].map(|e| format!("{e:.1e}"));
        let time = format!("{:.3}", 1e3 * r.time.as_secs_f64());
        vec![r.name.clone(), output, gradients, if r.repeats { "yes" } else { "no" }.into(), time, verdict.into()]
    };
    println!(
        "{}",
        table(&["operation", "output", "gradients", "repeats", "ms with copies", ""], results.iter().map(row))
    );
    let models = [compare_llama(gpu)?, compare_clip(gpu)?].concat();
    let row = |m: &Comparison| {
        let [error, bound] = [m.error, m.bound].map(|e| format!("{e:.1e}"));
        let verdict = if m.holds() { "" } else { "WRONG" };
        vec![m.name.clone(), error, bound, format!("{:.3}", 1e3 * m.time.as_secs_f64()), verdict.into()]
    };
    println!("{}", table(&["model", "error", "at most", "ms with copies", ""], models.iter().map(row)));
    let wrong = results.iter().filter(|r| !r.holds(arithmetic)).count();
    Ok(wrong + models.iter().filter(|m| !m.holds()).count())
}

/// Times training steps of the paper's sizes, and layers of an encoder and of a decoder.
fn bench(ordinal: usize) -> anyhow::Result<()> {
    let gpu = Gpu::open(ordinal, Arithmetic::Mixed)?;
    let ceilings = gpu.ceilings()?;
    let (bandwidth, rate) = (ceilings.bytes_per_second / 1e9, ceilings.tensor_flops / 1e12);
    println!("\nceilings measured now: {bandwidth:.0} GB/s copied, {rate:.1} TFLOP/s of bf16 tensor cores");
    let header = ["work", "median ms", "min ms", "TFLOP/s", "of the ceiling %"];
    let row = |name: &str, flops: f64, time: Summary| {
        let [median, min] = [time.p50, time.min].map(|s| format!("{:.3}", 1e3 * s));
        let rate = flops / time.p50;
        let share = format!("{:.1}", 100.0 * rate / ceilings.tensor_flops);
        vec![name.to_string(), median, min, format!("{:.2}", rate / 1e12), share]
    };
    let mut rows = Vec::new();
    for (name, shape) in [("WikiDiverse, 128 x 10", Shape::WIKIDIVERSE), ("WikiMEL, 128 x 100", Shape::WIKIMEL)] {
        let flops = training_step(ModelConfig::default(), shape, 0)?.total.flops() as f64;
        for (how, graphs) in [("", false), (", as a graph", true)] {
            let steps = Steps::new(Some(&gpu), graphs)?;
            let mut step = TrainingStep::new(ModelConfig::default(), shape, 0, steps)?;
            let time = Timing::of(3, 20, || step.queue())?.summary();
            rows.push(row(&format!("training step, {name}{how}"), flops, time));
        }
    }
    let compute = Compute { precision: encoder::Precision::Bf16, gpu: Some(gpu.clone()) };
    let mut layers = LayerBench::new(VIT_LAYERS, ENCODED, compute)?;
    let time = Timing::of(3, 20, || layers.run())?.summary();
    rows.push(row(&format!("layers of ViT-B/32, {ENCODED} images"), layers.flops() as f64, time));
    let config = LlamaConfig { layers: DECODER_LAYERS, ..llama::Preset::SevenB.config() };
    let decoder = DecodingBench::new(&config, llama::Precision::Bf16, (1, PROMPT), Some(&gpu))?;
    let times = decoder.measure(32, 1, 5)?;
    let (prompt, step) = (times.prefill.summary(), times.step.summary());
    rows.push(row(
        &format!("prompt of {PROMPT}, {DECODER_LAYERS} layers of Llama-2-7B"),
        decoder.prefill_flops(),
        prompt,
    ));
    println!("{}", table(&header, rows));
    let rate = decoder.step_bytes() as f64 / step.p50;
    let [median, min, rate, share] =
        [1e6 * step.p50, 1e6 * step.min, rate / 1e9, 100.0 * rate / ceilings.bytes_per_second];
    println!(
        "one token after it: median {median:.1} us, min {min:.1} us; {rate:.0} GB/s of weights, {share:.0} % of what is copied"
    );
    let index = (2000, Precision::Half);
    let mut linking = LatencyBench::new(ModelConfig::default(), Shape::WIKIMEL, index, 0, Some(&gpu))?;
    let prepared = linking.measure_prepared(100, 1000)?;
    let [median, min] = [prepared.p50, prepared.min].map(|s| 1e6 * s);
    println!("one prepared mention against 100 prepared candidates: median {median:.1} us, min {min:.1} us");
    println!("memory at its peak: {} MB", gpu.peak() / 1_000_000);
    Ok(())
}
