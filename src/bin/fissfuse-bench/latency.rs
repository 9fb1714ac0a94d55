//! From a mention to its scores.

use fissfuse::model;
use fissfuse::profile::Summary;
use fissfuse::profile::latency::Latency;
use fissfuse::profile::latency::LatencyBench;
use fissfuse::profile::peak_memory;
use fissfuse::report::table;
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

    /// Mentions at once; each value is a row.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
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

    /// Timed runs of each row.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one())]
    runs: usize,

    #[command(flatten)]
    device: DeviceArgs,
}

pub fn latency(args: LatencyArgs, json: bool) -> anyhow::Result<()> {
    let (shape, config) = (args.work.shape()?, args.work.config());
    let precision = if args.half { model::Precision::Half } else { model::Precision::Full };
    let candidates = args.work.candidates.unwrap_or(100);
    let gpu = args.device.open()?;
    let mut bench = LatencyBench::new(config, shape, (args.entities, precision), args.work.seed, gpu.as_ref())?;
    let measure = |&mentions: &usize| bench.measure(mentions, candidates, args.runs.div_ceil(mentions));
    let rows: Vec<Latency> = args.batch.iter().map(measure).collect::<fissfuse::Result<_>>()?;
    let prepared = args.prepared.then(|| bench.measure_prepared(candidates, args.runs)).transpose()?;
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
