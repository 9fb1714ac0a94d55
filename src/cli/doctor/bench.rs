//! How fast a device does the engine's work.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::ensure;
use fissfuse::bytes::Bytes;
use fissfuse::device::Gpu;
use fissfuse::device::cuda::Ceilings;
use fissfuse::encoder::{self, Compute};
use fissfuse::llama::{self, LlamaConfig};
use fissfuse::model::ModelConfig;
use fissfuse::profile::data_sheet::{DataSheet, data_sheet};
use fissfuse::profile::decoding::DecodingBench;
use fissfuse::profile::flops::training_step;
use fissfuse::profile::latency::LatencyBench;
use fissfuse::profile::layers::{LayerBench, VIT_LAYERS};
use fissfuse::profile::step::TrainingStep;
use fissfuse::profile::synthetic::Shape;
use fissfuse::profile::{Summary, Timing};
use fissfuse::report::table;
use fissfuse::tensor::Element;
use fissfuse::train::Steps;
use serde::Serialize;

/// Images of a batch that is timed.
const ENCODED: usize = 256;

/// Layers of Llama-2-7B, and tokens of the prompt, that are timed.
const DECODER_LAYERS: usize = 2;
const PROMPT: usize = 512;

/// Times of work whose kernels were compared before.
#[derive(Serialize)]
pub struct Bench {
    ceilings: Ceilings,
    data_sheet: Option<DataSheet>,
    work: Vec<Work>,
    peak_bytes: usize,
    kernels: BTreeSet<&'static str>,
}

/// Something that was timed.
#[derive(Serialize)]
struct Work {
    name: String,
    seconds: Summary,
    /// FLOPs, and bytes of weights that it must read, where these are what bounds it.
    flops: Option<f64>,
    bytes: Option<f64>,
}

impl Bench {
    /// Measures ceilings and work. Fails if that takes kernels other than these, which agree with the CPU.
    pub fn run(gpu: &Gpu, agreeing: &BTreeSet<&'static str>, out: &mut dyn Write) -> anyhow::Result<Bench> {
        let (measured, kernels) = gpu.launches_of(|| -> anyhow::Result<_> { Ok((gpu.ceilings()?, measure(gpu)?)) });
        let (ceilings, work) = measured?;
        let unproven: Vec<&str> = kernels.difference(agreeing).copied().collect();
        ensure!(unproven.is_empty(), "kernels were timed that nothing compared: {}", unproven.join(", "));
        let bench = Bench { ceilings, data_sheet: data_sheet(gpu.name()), work, peak_bytes: gpu.peak(), kernels };
        bench.print(out)?;
        Ok(bench)
    }

    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let Ceilings { bytes_per_second, tensor_flops } = self.ceilings;
        let of_sheet = |figure: fn(&DataSheet) -> f64, scale: f64, digits: usize| {
            let sheet = self.data_sheet.as_ref().map(figure);
            sheet.map(|figure| format!(" (NVIDIA's data sheet: {:.digits$})", figure / scale)).unwrap_or_default()
        };
        writeln!(
            out,
            "\nceilings measured now: {:.0} GB/s copied{}, {:.1} TFLOP/s of bf16 tensor cores by mma.sync{}",
            bytes_per_second / 1e9,
            of_sheet(|sheet| sheet.bytes_per_second, 1e9, 0),
            tensor_flops / 1e12,
            of_sheet(|sheet| sheet.bf16_flops, 1e12, 1)
        )?;
        let row = |work: &Work| {
            let [median, min] = [work.seconds.p50, work.seconds.min].map(|s| format!("{:.3}", 1e3 * s));
            let rate = |count: Option<f64>, unit: f64, digits: usize| {
                count.map(|count| format!("{:.digits$}", count / work.seconds.p50 / unit)).unwrap_or_default()
            };
            let share = |count: Option<f64>, ceiling: f64| {
                count.map(|count| format!("{:.1}", 100.0 * count / work.seconds.p50 / ceiling)).unwrap_or_default()
            };
            let of_ceiling = [share(work.flops, tensor_flops), share(work.bytes, bytes_per_second)].concat();
            vec![work.name.clone(), median, min, rate(work.flops, 1e12, 2), rate(work.bytes, 1e9, 0), of_ceiling]
        };
        let header = ["work", "median ms", "min ms", "TFLOP/s", "GB/s of weights", "of the ceiling %"];
        writeln!(out, "{}", table(&header, self.work.iter().map(row)))?;
        writeln!(out, "memory at its peak: {}", Bytes::of(self.peak_bytes))
    }
}

/// Training steps of the paper's sizes, layers of an encoder and of a decoder, and linking.
fn measure(gpu: &Gpu) -> anyhow::Result<Vec<Work>> {
    let work = |name: String, seconds: Summary, flops: f64| Work { name, seconds, flops: Some(flops), bytes: None };
    let mut rows = Vec::new();
    for (name, shape) in [("WikiDiverse, 128 x 10", Shape::WIKIDIVERSE), ("WikiMEL, 128 x 100", Shape::WIKIMEL)] {
        let flops = training_step(ModelConfig::default(), shape, 0)?.total.flops() as f64;
        for (how, graphs) in [("", false), (", as a graph", true)] {
            let steps = Steps::new(Some(gpu), graphs)?;
            let mut step = TrainingStep::new(ModelConfig::default(), shape, 0, steps)?;
            let time = Timing::of(3, 20, || step.queue())?.summary();
            rows.push(work(format!("training step, {name}{how}"), time, flops));
        }
    }
    let compute = Compute { precision: encoder::Precision::Bf16, gpu: Some(gpu.clone()) };
    let mut layers = LayerBench::new(VIT_LAYERS, ENCODED, compute)?;
    let time = Timing::of(3, 20, || layers.run())?.summary();
    rows.push(work(format!("layers of ViT-B/32, {ENCODED} images"), time, layers.cost()?.forward as f64));
    let config = LlamaConfig { layers: DECODER_LAYERS, ..llama::Preset::SevenB.config() };
    let decoder = DecodingBench::new(&config, llama::Precision::Bf16, (1, PROMPT), Some(gpu))?;
    let times = decoder.measure(32, 1, 5)?;
    let prompt = format!("prompt of {PROMPT}, {DECODER_LAYERS} layers of Llama-2-7B");
    rows.push(work(prompt, times.prefill.summary(), decoder.prefill_flops()));
    rows.push(Work {
        name: "one token after it".into(),
        seconds: times.step.summary(),
        flops: None,
        bytes: Some(decoder.step_bytes() as f64),
    });
    let index = (2000, Element::F16);
    let mut linking = LatencyBench::new(ModelConfig::default(), Shape::WIKIMEL, index, 0, Some(gpu))?;
    rows.push(Work {
        name: "one prepared mention against 100 prepared candidates".into(),
        seconds: linking.measure_prepared(100, 1000)?,
        flops: None,
        bytes: None,
    });
    Ok(rows)
}
