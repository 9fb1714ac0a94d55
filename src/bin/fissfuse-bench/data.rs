//! Candidate generation and feature stores at the size of published datasets.

use std::path::PathBuf;
use std::process;
use std::time::Instant;

use fissfuse::bytes::Bytes;
use fissfuse::candidates::{ListSettings, write_lists};
use fissfuse::data::{Dataset, Protocol, Skipped, Tolerance};
use fissfuse::profile::peak_memory;
use fissfuse::profile::simulation::{Simulation, simulate};
use fissfuse::profile::storage::{StorageFigures, encode_once, measure};
use indicatif::ProgressBar;
use serde_json::json;

use super::{at_least_one, machine, print_json, print_peak};

/// Time candidate generation for a simulated dataset of WikiMEL's size.
#[derive(clap::Args)]
pub struct CandidatesArgs {
    /// Entities of the knowledge base.
    #[arg(long, default_value_t = 110_000, value_parser = at_least_one())]
    entities: usize,

    /// Mentions.
    #[arg(long, default_value_t = 25_846, value_parser = at_least_one())]
    mentions: usize,

    /// Candidates of a mention.
    #[arg(long, default_value_t = 100, value_parser = at_least_one())]
    top: usize,
}

/// Encode a simulated dataset with real shapes: throughput, memory, opening, and resumption after a kill.
///
/// The encoder is a random CLIP of one block, so that storing counts. At WikiMEL's size, which is the default, the run
/// takes 16 GB of disk for as long as it lasts.
#[derive(clap::Args)]
pub struct StoreArgs {
    /// Entities of the knowledge base.
    #[arg(long, default_value_t = 110_000, value_parser = at_least_one())]
    entities: usize,

    /// Mentions.
    #[arg(long, default_value_t = 26_000, value_parser = at_least_one())]
    mentions: usize,

    /// Folder in which a temporary one is made [default: the system's].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The run that is killed.
#[derive(clap::Args)]
pub struct StoreOnceArgs {
    folder: PathBuf,
}

pub fn candidates(args: CandidatesArgs, json: bool) -> anyhow::Result<()> {
    let CandidatesArgs { entities, mentions, top } = args;
    let folder = tempfile::tempdir()?;
    simulate(folder.path(), Simulation { entities, mentions, images: false, seed: 0 })?;
    let mut skipped = Skipped::default();
    let start = Instant::now();
    let dataset = Dataset::open(folder.path(), Tolerance::Strict, &mut skipped)?;
    let settings = ListSettings { top, protocol: Protocol::AsRetrieved, replace: false, tolerance: Tolerance::Strict };
    let lists = write_lists(&dataset, settings, &mut skipped, &ProgressBar::hidden())?;
    let (seconds, peak) = (start.elapsed().as_secs_f64(), peak_memory());
    if json {
        return print_json(&json!({"machine": machine(None), "entities": entities, "mentions": mentions, "top": top,
            "seconds": seconds, "lists": lists, "peak_memory_bytes": peak}));
    }
    println!("{}; {mentions} mentions against {entities} entities, {top} candidates each", machine(None));
    let test = lists.last().map(|list| &list.recall.at[..]).unwrap_or_default();
    let recall: Vec<String> = test.iter().map(|at| format!("{:.2} % at {}", 100.0 * at.recall, at.rank)).collect();
    println!("{seconds:.1} s, {:.0} mentions/s; recall of test {}", mentions as f64 / seconds, recall.join(", "));
    print_peak(peak);
    Ok(())
}

pub fn store(args: StoreArgs, json: bool) -> anyhow::Result<()> {
    let StoreArgs { entities, mentions, dir } = args;
    let folder = match dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let mut first_run = process::Command::new(std::env::current_exe()?);
    first_run.arg("store-once").arg(folder.path());
    let figures = measure(folder.path(), Simulation { entities, mentions, images: true, seed: 0 }, first_run)?;
    if json {
        return print_json(&json!({"machine": machine(None), "entities": entities, "mentions": mentions,
            "figures": figures}));
    }
    println!("{}; {entities} entities and {mentions} mentions, each a text and an image", machine(None));
    let StorageFigures { before_kill, after_kill, again, seconds, .. } = figures;
    let rate = after_kill as f64 / seconds;
    println!("killed with {before_kill} texts and images stored; the next run encoded the other {after_kill}");
    println!("in {seconds:.1} s, {rate:.0} texts and images/s, {again} of them again");
    println!("a run that finds everything done: {:.2} s", figures.idle_seconds);
    println!("{} shards, {}: opened in {:.1} ms", figures.shards, Bytes::of(figures.bytes), 1e3 * figures.open_seconds);
    println!("checksums compared in {:.1} s", figures.check_seconds);
    print_peak(figures.peak_memory);
    Ok(())
}

pub fn store_once(args: StoreOnceArgs) -> anyhow::Result<()> {
    encode_once(&args.folder)?;
    Ok(())
}
