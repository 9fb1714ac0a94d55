//! From a mention to its scores.

use fissfuse::profile::latency::{Latency, LatencyBench};
use fissfuse::profile::{Summary, peak_memory};
use fissfuse::report::table;
use fissfuse::tensor::Element;
use serde_json::json;

use super::at_least_one;
use super::machine;
use super::milliseconds;
use super::print_json;
use super::print_peak;
use super::work::DeviceArgs;
use super::work::WorkArgs;

/// Time from a mention's features to the scores of its prepared candidates.
#[derive(clap::Args)]
pub struct LatencyArgs {
    #[command(flatten)]
    work: WorkArgs,

    /// Mentions at once; each value is a row [default: 1,8,64, or --mentions].
    #[arg(long, value_delimiter = ',', conflicts_with = "mentions", value_parser = at_least_one())]
    batch: Vec<usize>,

    /// Entities of the index from which candidates are drawn.
    #[arg(long, default_value_t = 2000, value_parser = at_least_one())]
    entities: usize,

    /// Keep the index in f16.
    #[arg(long)]
    half: bool,

    /// Time one mention that is prepared already, too.
    #[arg(long)]
    prepared: bool,

    /// Timed runs of each row [default: as many as link 1000 mentions].
    #[arg(long, value_parser = at_least_one())]
    runs: Option<usize>,

    #[command(flatten)]
    device: DeviceArgs,
}

pub fn latency(args: LatencyArgs, json: bool) -> anyhow::Result<()> {
    let (shape, config) = (args.work.shape()?, args.work.config());
    let precision = if args.half { Element::F16 } else { Element::F32 };
    let candidates = shape.candidates;
    let gpu = args.device.open()?;
    let mut bench = LatencyBench::new(config, shape, (args.entities, precision), args.work.seed, gpu.as_ref())?;
    let measure = |&mentions: &usize| {
        bench.measure(mentions, candidates, args.runs.unwrap_or_else(|| 1000usize.div_ceil(mentions)))
    };
    let batch = match (args.batch.is_empty(), args.work.mentions) {
        (false, _) => args.batch,
        (true, Some(mentions)) => vec![mentions],
        (true, None) => vec![1, 8, 64],
    };
    let rows: Vec<Latency> = batch.iter().map(measure).collect::<fissfuse::Result<_>>()?;
    let prepared = args.prepared.then(|| bench.measure_prepared(candidates, args.runs.unwrap_or(1000))).transpose()?;
    if json {
        let index = if args.half { "f16" } else { "f32" };
        let (entities, peak) = (args.entities, peak_memory());
        let report = json!({"machine": machine(gpu.as_ref()), "entities": entities, "index": index, "latency": rows, "prepared": prepared,
            "peak_memory_bytes": peak});
        return print_json(&report);
    }
    println!("{}; {candidates} candidates of {} prepared entities", machine(gpu.as_ref()), args.entities);
    let header = ["mentions", "runs", "p50 ms", "p90 ms", "p99 ms", "mentions/s"];
    let row = |row: &Latency| {
        let Summary { runs, p50, p90, p99, .. } = row.seconds;
        let [p50, p90, p99] = [p50, p90, p99].map(milliseconds);
        vec![row.mentions.to_string(), runs.to_string(), p50, p90, p99, format!("{:.0}", row.mentions_per_second)]
    };
    println!("{}", table(&header, rows.iter().map(row)));
    if let Some(prepared) = prepared {
        println!("one prepared mention: p50 {} ms, p99 {} ms", milliseconds(prepared.p50), milliseconds(prepared.p99));
    }
    print_peak(peak_memory());
    Ok(())
}
