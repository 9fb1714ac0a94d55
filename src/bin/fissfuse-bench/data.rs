//! Candidate generation and feature stores at the size of published datasets.

use std::path::{Path, PathBuf};
use std::process;
use std::time::Instant;

use fissfuse::candidates::{ListSettings, write_lists};
use fissfuse::data::{Dataset, Protocol, Skipped, Tolerance};
use fissfuse::model::Widths;
use fissfuse::profile::measurement::Measurement;
use fissfuse::profile::scale::{Lengths, write_world};
use fissfuse::profile::simulation::{Images, Simulation, simulate};
use fissfuse::profile::storage::{StorageFigures, encode_once, measure};
use fissfuse::profile::{Timing, peak_memory};
use indicatif::ProgressBar;
use serde_json::{Map, Value};

use super::at_least_one;
use super::room::{expect_disk, expect_memory};
use super::session::Session;
use super::values::{Values, combinations, value};

/// Time candidate generation for a simulated dataset of WikiMEL's size.
#[derive(clap::Args)]
pub struct CandidatesArgs {
    /// Entities of the knowledge base.
    #[arg(long, default_value = "110000", value_name = "LIST")]
    entities: Values,

    /// Mentions.
    #[arg(long, default_value = "25846", value_name = "LIST")]
    mentions: Values,

    /// Candidates of a mention.
    #[arg(long, default_value = "100", value_name = "LIST")]
    top: Values,
}

/// Encode a simulated dataset with real shapes: throughput, memory, opening, and resumption after a kill.
///
/// The encoder is a random CLIP of one block, so that storing counts. At WikiMEL's size, which is the default, the run
/// takes 16 GB of disk for as long as it lasts.
#[derive(clap::Args)]
pub struct StoreArgs {
    /// Entities of the knowledge base.
    #[arg(long, default_value = "110000", value_name = "LIST")]
    entities: Values,

    /// Mentions.
    #[arg(long, default_value = "26000", value_name = "LIST")]
    mentions: Values,

    /// Folder in which a temporary one is made [default: the system's].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Write a simulated dataset, a random feature store of its entities and mentions, in parts as tasks of an array job would have
/// encoded it, and a random model: what `merge`, `eval` and `link` do at any size can be tried without encoding anything.
///
/// Widths are those of CLIP ViT-B/32. An entity takes 2 KB for each token and 1.5 KB for each patch.
#[derive(clap::Args)]
pub struct SimulateArgs {
    /// Folder to write `data`, `parts` and `model.safetensors` into; it must not exist, or be empty.
    folder: PathBuf,

    /// Entities of the knowledge base.
    #[arg(long, default_value_t = 1_000_000, value_parser = at_least_one())]
    entities: usize,

    /// Mentions of all splits, a fifth of them of the test split.
    #[arg(long, default_value_t = 500, value_parser = at_least_one())]
    mentions: usize,

    /// Tokens of a text; CLIP's texts of entities have about 20.
    #[arg(long, default_value_t = 20, value_parser = at_least_one())]
    tokens: usize,

    /// Patches of an image; ViT-B/32 has 50.
    #[arg(long, default_value_t = 50, value_parser = at_least_one())]
    patches: usize,

    /// Parts of the store.
    #[arg(long, default_value_t = 8, value_parser = at_least_one())]
    parts: usize,
}

/// The run that is killed.
#[derive(clap::Args)]
pub struct StoreOnceArgs {
    folder: PathBuf,
}

pub fn candidates(args: CandidatesArgs, session: &mut Session) -> anyhow::Result<()> {
    session.expect_no_runs("candidates makes the lists of a row once")?;
    let rows = combinations(&[("entities", &args.entities), ("mentions", &args.mentions), ("top", &args.top)])?;
    session.begin("candidates", None)?;
    for row in rows {
        session.next_row()?;
        let (entities, mentions, top) = (value(&row, "entities"), value(&row, "mentions"), value(&row, "top"));
        let folder = tempfile::tempdir()?;
        // A line of an entity or a mention has some two hundred bytes, and one of a list ten for each candidate.
        expect_disk("--entities", folder.path(), &[entities, 200])?;
        expect_disk("--mentions", folder.path(), &[mentions, 200])?;
        expect_memory("--entities", &[entities, 200])?;
        expect_memory("--mentions and --top", &[mentions, top, 4])?;
        simulate(folder.path(), Simulation { entities, mentions, images: Images::None, seed: 0 })?;
        let mut skipped = Skipped::default();
        let start = Instant::now();
        let dataset = Dataset::open(folder.path(), Tolerance::Strict, &mut skipped)?;
        let settings =
            ListSettings { top, protocol: Protocol::AsRetrieved, replace: false, tolerance: Tolerance::Strict };
        let lists = write_lists(&dataset, settings, &mut skipped, &ProgressBar::hidden())?;
        let seconds = start.elapsed().as_secs_f64();
        let row =
            Measurement { seconds: Some(Timing::new(vec![seconds])?), ..Measurement::new("candidate lists", row) };
        let row = row.with("mentions_per_second", mentions as f64 / seconds);
        let recall = lists.last().map(|list| &list.recall.at[..]).unwrap_or_default();
        let row = recall.iter().fold(row, |row, at| row.with(&format!("recall_share_at_{}", at.rank), at.recall));
        session.push(with_peak(row));
    }
    Ok(())
}

pub fn store(args: StoreArgs, session: &mut Session) -> anyhow::Result<()> {
    session.expect_no_runs("store writes the store of a row once")?;
    let rows = combinations(&[("entities", &args.entities), ("mentions", &args.mentions)])?;
    session.begin("store", None)?;
    rows.into_iter().try_for_each(|row| store_of(row, args.dir.as_deref(), session))
}

fn store_of(row: Map<String, Value>, dir: Option<&Path>, session: &mut Session) -> anyhow::Result<()> {
    let (entities, mentions) = (value(&row, "entities"), value(&row, "mentions"));
    let folder = match dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    // An entity takes 115 KB in the store, and so does a mention, whose image is a file besides.
    expect_disk("--entities", folder.path(), &[entities, 115_000])?;
    expect_disk("--mentions", folder.path(), &[mentions, 115_000])?;
    let mut first_run = process::Command::new(std::env::current_exe()?);
    first_run.arg("store-once").arg(folder.path());
    session.next_row()?;
    let figures = measure(folder.path(), Simulation { entities, mentions, images: Images::Drawn, seed: 0 }, first_run)?;
    let StorageFigures { before_kill, after_kill, again, seconds, .. } = figures;
    let timed = |name: &str, seconds: f64| -> anyhow::Result<Measurement> {
        Ok(Measurement { seconds: Some(Timing::new(vec![seconds])?), ..Measurement::new(name, row.clone()) })
    };
    let resumed = timed("encode, resumed after a kill", seconds)?.with("stored_before", before_kill as f64);
    let resumed = resumed.with("stored", after_kill as f64).with("stored_again", again as f64);
    session.push(resumed.with("stored_per_second", after_kill as f64 / seconds));
    session.push(timed("a run that finds everything done", figures.idle_seconds)?);
    let opened = timed("open", figures.open_seconds)?.with("shards", figures.shards as f64);
    session.push(opened.with("bytes", figures.bytes as f64));
    let checked = timed("compare checksums", figures.check_seconds)?;
    session.push(match figures.peak_memory {
        Some(bytes) => checked.with("peak_memory_bytes", bytes as f64),
        None => checked,
    });
    Ok(())
}

pub fn write_simulated(args: SimulateArgs) -> anyhow::Result<()> {
    let SimulateArgs { folder, entities, mentions, tokens, patches, parts } = args;
    let of = Simulation { entities, mentions, images: Images::Named, seed: 0 };
    let bytes = write_world(&folder, of, Lengths { tokens, patches }, Widths::default(), parts)?;
    println!(
        "wrote {}: {entities} entities, {mentions} mentions, {bytes} bytes of features in {parts} parts",
        folder.display()
    );
    Ok(())
}

fn with_peak(row: Measurement) -> Measurement {
    match peak_memory() {
        Some(bytes) => row.with("peak_memory_bytes", bytes as f64),
        None => row,
    }
}

pub fn store_once(args: StoreOnceArgs) -> anyhow::Result<()> {
    encode_once(&args.folder)?;
    Ok(())
}
