//! How fast a device does the engine's work.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::ensure;
use fissfuse::bytes::Bytes;
use fissfuse::device::{Ceilings, Gpu};
use fissfuse::encoder::{self, Compute};
use fissfuse::llama::{self, LlamaConfig};
use fissfuse::model::ModelConfig;
use fissfuse::profile::data_sheet::{DataSheet, data_sheet};
use fissfuse::profile::decoding::{self, DecodingBench, RandomLlama};
use fissfuse::profile::flops::training_step;
use fissfuse::profile::latency::{AtHand, LatencyBench};
use fissfuse::profile::layers::{LayerBench, VIT_LAYERS};
use fissfuse::profile::machine;
use fissfuse::profile::measurement::{Measurement, Measurements};
use fissfuse::profile::sampling::{Laps, Sampling};
use fissfuse::profile::step::TrainingStep;
use fissfuse::profile::synthetic::Shape;
use fissfuse::report::table;
use fissfuse::tensor::Element;
use fissfuse::train::Steps;
use serde::Serialize;
use serde_json::Map;

/// Images of a batch that is timed.
const ENCODED: usize = 256;

/// Layers of Llama-2-7B, tokens of the prompt and after it, that are timed.
const DECODER_LAYERS: usize = 2;
const PROMPT: usize = 512;
const TOKENS: usize = 32;

/// Times of work whose kernels were compared before.
#[derive(Serialize)]
pub struct Bench {
    /// As `fissfuse-bench` writes them.
    measurements: Measurements,
    data_sheet: Option<DataSheet>,
    peak_bytes: usize,
    kernels: BTreeSet<&'static str>,
}

impl Bench {
    /// Measures ceilings and work. Fails if that takes kernels other than these, which agree with the CPU.
    pub fn run(gpu: &Gpu, agreeing: &BTreeSet<&'static str>, out: &mut dyn Write) -> anyhow::Result<Bench> {
        let mut measurements = Measurements::begin("doctor", Some(gpu))?;
        let (measured, kernels) =
            gpu.launches_of(|| -> anyhow::Result<_> { Ok((machine::ceilings(Some(gpu))?, measure(gpu)?)) });
        let (ceilings, results) = measured?;
        let unproven: Vec<&str> = kernels.difference(agreeing).copied().collect();
        ensure!(unproven.is_empty(), "kernels were timed that nothing compared: {}", unproven.join(", "));
        measurements.ceilings = Some(ceilings);
        measurements.results = results;
        let bench = Bench { measurements, data_sheet: data_sheet(gpu.name()), peak_bytes: gpu.peak(), kernels };
        bench.print(ceilings, out)?;
        Ok(bench)
    }

    fn print(&self, ceilings: Ceilings, out: &mut dyn Write) -> std::io::Result<()> {
        let Ceilings { bytes_per_second, flops_per_second } = ceilings;
        let of_sheet = |figure: fn(&DataSheet) -> f64, scale: f64, digits: usize| {
            let sheet = self.data_sheet.as_ref().map(figure);
            sheet.map(|figure| format!(" (NVIDIA's data sheet: {:.digits$})", figure / scale)).unwrap_or_default()
        };
        writeln!(
            out,
            "\nceilings measured now: {:.0} GB/s copied{}, {:.1} TFLOP/s of bf16 tensor cores by mma.sync{}",
            bytes_per_second / 1e9,
            of_sheet(|sheet| sheet.bytes_per_second, 1e9, 0),
            flops_per_second / 1e12,
            of_sheet(|sheet| sheet.bf16_flops, 1e12, 1)
        )?;
        let row = |work: &Measurement| {
            let Some(seconds) = &work.seconds else { return vec![work.name.clone()] };
            let [median, min] = [seconds.p50(), seconds.min()].map(|s| format!("{:.3}", 1e3 * s));
            let (flops, bytes) = (work.figure("flops_per_second"), work.figure("weight_bytes_per_second"));
            let rate = |rate: Option<f64>, unit: f64, digits: usize| {
                rate.map(|rate| format!("{:.digits$}", rate / unit)).unwrap_or_default()
            };
            let shares = [flops.map(|rate| rate / flops_per_second), bytes.map(|rate| rate / bytes_per_second)];
            let of_ceiling = shares.into_iter().flatten().map(|share| format!("{:.1}", 100.0 * share)).collect();
            let noise = format!("{:.1}", 100.0 * seconds.noise());
            vec![work.name.clone(), median, min, noise, rate(flops, 1e12, 2), rate(bytes, 1e9, 0), of_ceiling]
        };
        let header = ["work", "median ms", "min ms", "noise %", "TFLOP/s", "GB/s of weights", "of the ceiling %"];
        writeln!(out, "{}", table(&header, self.measurements.results.iter().map(row)))?;
        writeln!(out, "memory at its peak: {}", Bytes::of(self.peak_bytes))
    }
}

/// Training steps of the paper's sizes, layers of an encoder and of a decoder, and linking.
fn measure(gpu: &Gpu) -> anyhow::Result<Vec<Measurement>> {
    let sampling = Sampling { limit: 5.0, ..Sampling::default() };
    let time = |name: String, work: &mut dyn FnMut(&mut Laps) -> fissfuse::Result<()>| {
        sampling.measure(&name, Map::new(), None, work)
    };
    let mut rows = Vec::new();
    for (name, shape) in [("WikiDiverse, 128 x 10", Shape::WIKIDIVERSE), ("WikiMEL, 128 x 100", Shape::WIKIMEL)] {
        let flops = training_step(ModelConfig::default(), shape, 0)?.total.flops() as f64;
        for (how, graphs) in [("", false), (", as a graph", true)] {
            let steps = Steps::new(Some(gpu), graphs)?;
            let mut step = TrainingStep::new(ModelConfig::default(), shape, 0, steps)?;
            let row = time(format!("training step, {name}{how}"), &mut |_| step.queue().map(drop))?;
            rows.push(row.with_rate("flops", flops));
        }
    }
    let compute = Compute { precision: encoder::Precision::Bf16, gpu: Some(gpu.clone()) };
    let mut layers = LayerBench::new(VIT_LAYERS, ENCODED, compute)?;
    let flops = layers.cost()?.forward as f64;
    rows.push(time(format!("layers of ViT-B/32, {ENCODED} images"), &mut |_| layers.run())?.with_rate("flops", flops));
    let config = LlamaConfig { layers: DECODER_LAYERS, ..llama::Preset::SevenB.config() };
    let RandomLlama { llama, .. } = &RandomLlama::new(&config, llama::Precision::Bf16, Some(gpu))?;
    let decoder = DecodingBench::new(llama, 1, PROMPT);
    let decoded = time("decoding".into(), &mut |laps| decoder.run(TOKENS, laps))?;
    let part = |name: String, part: &str| {
        let seconds = decoded.parts.get(part).cloned();
        Measurement { seconds, warnings: decoded.warnings.clone(), ..Measurement::new(&name, Map::new()) }
    };
    let prompt = part(format!("prompt of {PROMPT}, {DECODER_LAYERS} layers of Llama-2-7B"), decoding::PROMPT);
    rows.push(prompt.with_rate("flops", decoder.prefill_flops()));
    let token = part("one token after it".into(), decoding::TOKEN);
    rows.push(token.with_rate("weight_bytes", decoder.step_bytes() as f64));
    let index = (2000, Element::F16);
    let mut linking = LatencyBench::new(ModelConfig::default(), Shape::WIKIMEL, index, 0, Some(gpu))?;
    let mut runs = linking.runs((1, 100), AtHand::All, None)?;
    let name = "one prepared mention against 100 prepared candidates".to_string();
    rows.push(time(name, &mut |laps| runs.run(laps).map(drop))?);
    Ok(rows)
}
