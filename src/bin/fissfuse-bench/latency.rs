//! From a mention to its scores.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use fissfuse::device::cuda::parse_idle;
use fissfuse::encoder::{Compute, Precision, parse_precision};
use fissfuse::profile::advice::advice;
use fissfuse::profile::latency::{AtHand, EncodedMentions, LatencyBench};
use fissfuse::profile::load::{Arrival, Load};
use fissfuse::tensor::Element;

use super::session::{Session, go_on};
use super::values::{Values, expect_few};
use super::work::{DeviceArgs, WorkArgs};

/// Time from a mention's features to the scores of its candidates, with its parts, and advice that follows from them.
///
/// Without --mentions: 1, 8 and 64 at once. With --load, requests arrive by a schedule, and their time counts from when they
/// were due.
#[derive(clap::Args)]
pub struct LatencyArgs {
    #[command(flatten)]
    work: WorkArgs,

    /// Entities of the index from which candidates are drawn.
    #[arg(long, default_value = "2000", value_name = "LIST")]
    entities: Values,

    /// Keep the index in f16.
    #[arg(long)]
    half: bool,

    /// Time mentions that are prepared already, too.
    #[arg(long)]
    prepared: bool,

    /// Time candidates that are not prepared, too.
    #[arg(long)]
    cold: bool,

    /// Time mentions against all entities of the index, and nothing else: --candidates does not count.
    #[arg(long, conflicts_with_all = ["prepared", "cold"])]
    whole: bool,

    /// On a CUDA device: a kernel stays there that scores mentions without being launched for each, until none came for MS
    /// milliseconds (100 unless given). Not with --cold, whose candidates are others each time, nor with --whole.
    #[arg(long, value_name = "MS", num_args = 0..=1, require_equals = true, default_missing_value = "100", value_parser = parse_idle, conflicts_with_all = ["cold", "whole"])]
    resident: Option<Duration>,

    /// Hugging Face directory of a CLIP that reads text and image of each mention first.
    #[arg(long, value_name = "DIR")]
    pub encoder: Option<PathBuf>,

    /// What the encoders compute with, f32 or bf16 [default: the faster one].
    #[arg(long, value_name = "TYPE", value_parser = parse_precision, requires = "encoder")]
    precision: Option<Precision>,

    /// Requests per second, each of so many mentions as its row says.
    #[arg(long, value_name = "RATE", help_heading = "Load", conflicts_with_all = ["interleave", "runs"])]
    load: Option<f64>,

    /// How requests arrive: poisson or constant [default: poisson].
    #[arg(long, value_name = "HOW", help_heading = "Load", requires = "load")]
    arrival: Option<Arrival>,

    /// Seconds of load, a day at most [default: 10].
    #[arg(long, value_name = "SECONDS", help_heading = "Load", requires = "load")]
    load_seconds: Option<f64>,

    /// Milliseconds within which a request is good (service level objective).
    #[arg(long, value_name = "MS", help_heading = "Load", requires = "load")]
    slo: Option<f64>,

    #[command(flatten)]
    device: DeviceArgs,
}

/// Runs of a row where noise decides: p99.9 is one of a thousand.
const LEAST_RUNS: usize = 1000;

/// Runs that are taken apart on a device, at most.
const APART: usize = 100;

/// Runs of a row of so many mentions at least. Against a whole knowledge base a run is long, and few are enough.
fn least(at_hand: AtHand, mentions: usize) -> usize {
    if at_hand == AtHand::Whole { 1 } else { LEAST_RUNS / mentions.min(100) }
}

pub fn latency(mut args: LatencyArgs, session: &mut Session) -> anyhow::Result<()> {
    if args.work.mentions.is_none() {
        args.work.mentions = Some("1,8,64".parse().map_err(anyhow::Error::msg)?);
    }
    // The parser says so, but for what conflicts with --load.
    let of_load = args.arrival.is_some() || args.load_seconds.is_some() || args.slo.is_some();
    ensure!(args.load.is_some() || !of_load, "--arrival, --load-seconds and --slo are of a load: add --load RATE");
    let rows = args.work.rows()?;
    let load = args.load.map(|rate| Load {
        rate,
        arrival: args.arrival.unwrap_or(Arrival::Poisson),
        seconds: args.load_seconds.unwrap_or(10.0),
        objective: args.slo.map(|ms| ms / 1e3),
        seed: args.work.seed,
    });
    load.map_or(Ok(()), |load| load.schedule().map(drop))?;
    let ways = [
        (!args.whole, AtHand::Prepared),
        (args.cold, AtHand::Cold),
        (args.prepared, AtHand::All),
        (args.whole, AtHand::Whole),
    ];
    let asked = ways.iter().filter(|(asked, _)| *asked).count();
    expect_few(&[("sizes", rows.len()), ("entities", args.entities.count()), ("ways", asked)])?;
    let gpu = args.device.open()?;
    ensure!(
        args.resident.is_none() || gpu.is_some(),
        "--resident is for CUDA devices; leave it out, or take --device cuda"
    );
    session.begin("latency", gpu.as_ref())?;
    args.work.set(session);
    let element = if args.half { Element::F16 } else { Element::F32 };
    session.set("index", if args.half { "f16" } else { "f32" });
    args.resident.into_iter().for_each(|idle| session.set("resident_ms", idle.as_millis() as u64));
    if let Some(load) = load {
        session.set("arrival", load.arrival.name());
        session.set("requests_per_second", load.rate);
        session.set("load_seconds", load.seconds);
        args.slo.into_iter().for_each(|slo| session.set("slo_ms", slo));
    }
    let precision = args.precision.unwrap_or_else(|| Compute::fastest(gpu.as_ref()));
    let compute = Compute { precision, gpu: gpu.clone() };
    let first = rows.first().map(|row| row.shape);
    let encoded =
        args.encoder.as_ref().zip(first).map(|(folder, shape)| EncodedMentions::open(folder, &shape, &compute));
    let encoded = encoded.transpose()?;
    match &encoded {
        Some(encoded) => {
            session.set("encoder", encoded.identity());
            session.set("precision", precision.to_string());
        }
        None => session.set("encoder", "none: features are cached"),
    }
    for entities in args.entities.iter() {
        for row in &rows {
            let index = (entities, element);
            let mut bench = LatencyBench::new(row.config.clone(), row.shape, index, args.work.seed, gpu.as_ref())?;
            args.resident.into_iter().for_each(|idle| bench.keep_resident(idle));
            let (mentions, candidates) = (row.shape.mentions, row.shape.candidates);
            for at_hand in ways.iter().filter(|(asked, _)| *asked).map(|(_, at_hand)| *at_hand) {
                let mut parameters = row.parameters.clone();
                parameters.insert("entities".into(), entities.into());
                parameters.insert("at_hand".into(), at_hand.name().into());
                if at_hand == AtHand::Whole {
                    parameters.insert("candidates".into(), entities.into());
                }
                let encoded = encoded.as_ref().filter(|_| at_hand != AtHand::All);
                let mut runs = bench.runs((mentions, candidates), at_hand, encoded)?;
                let measured = match load {
                    Some(load) => {
                        session.next_row()?;
                        load.run("link under load", parameters, |laps| go_on().and_then(|()| runs.run(laps).map(drop)))?
                    }
                    None => session.measure_at_least(least(at_hand, mentions), "link", parameters, |laps| {
                        runs.run(laps).map(drop)
                    })?,
                };
                let mut measured = measured;
                if load.is_none() && session.is_observed() {
                    let count = measured.seconds.as_ref().map_or(0, |seconds| seconds.runs().min(APART));
                    let parts = runs.parts_of_device(count)?;
                    measured.parts.extend(parts.into_iter().map(|(name, timing)| (name.to_string(), timing)));
                }
                let rate = measured.seconds.as_ref().map_or(f64::NAN, |seconds| mentions as f64 / seconds.p50());
                session.advise(advice(&measured));
                session.push(if load.is_none() { measured.with("mentions_per_second", rate) } else { measured });
            }
        }
    }
    Ok(())
}
