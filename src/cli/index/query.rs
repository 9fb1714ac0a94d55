//! `fissfuse index query`

use std::path::PathBuf;
use std::time::Instant;

use anyhow::ensure;
use fissfuse::data::{Item, Skipped, Split};
use fissfuse::eval::{FusionVectors, share_of};
use fissfuse::files;
use fissfuse::random::{Purpose, generator};
use fissfuse::search::{Collector, Flat, Found, Location, Top};
use fissfuse::terminal;
use fissfuse::train::TrainedModel;
use rand::seq::index;
use serde_json::json;

use super::IndexedArgs;
use crate::cli::common::{at_least_one, batcher, list_skipped, progress};
use crate::cli::database::{self, location};
use crate::cli::paths;
use crate::cli::whole::share;

/// Ask an index or a vector database for the entities that are nearest to each mention of a split, and compare them with those of
/// a scan in f32.
#[derive(clap::Args)]
pub struct QueryArgs {
    #[command(flatten)]
    of: IndexedArgs,

    /// What is asked: scan, scan:int8, usearch:FILE, qdrant://HOST:PORT/COLLECTION or milvus://HOST:PORT/COLLECTION.
    #[arg(long, value_name = "PLACE", value_parser = location)]
    from: Location,

    /// Mentions that are asked about.
    #[arg(long, default_value = "test")]
    split: Split,

    /// Entities that are found for each.
    #[arg(long, value_name = "K", default_value_t = 100, value_parser = at_least_one())]
    top: usize,

    /// Mentions whose entities are compared with those of a scan, at most.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = at_least_one())]
    recall_mentions: usize,

    /// Least share of the scan's entities that must be found; else nothing is written.
    #[arg(long, value_name = "SHARE", default_value_t = 0.99, value_parser = share)]
    min_recall: f64,

    /// Draws them.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Run file to write: for each mention the entities that were found, the nearest first, and their products as scores.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Queries that are asked together.
const TOGETHER: usize = 64;

pub fn run(args: QueryArgs) -> anyhow::Result<()> {
    if args.out.is_some() {
        terminal::work_on();
    }
    let IndexedArgs { data, features, model, database, device, memory } = &args.of;
    database.expect_meaning(&args.from)?;
    let reads = [("--data", data.data.as_path()), ("--features", features), ("--model", model)];
    paths::keep_apart(&reads, &args.out.iter().map(|out| ("--out", out.as_path())).collect::<Vec<_>>())?;
    args.out.as_deref().map_or(Ok(()), files::expect_file_at)?;
    let mut skipped = Skipped::default();
    let dataset = data.open(&mut skipped)?;
    let batcher = batcher(&dataset, features)?;
    let trained = TrainedModel::read(model)?;
    trained.check(batcher.store().manifest(), features)?;
    let mentions = dataset.mentions(args.split, &mut skipped)?;
    list_skipped(&skipped);
    ensure!(!mentions.is_empty(), "{} has no mentions to ask about", args.split);
    let entities = dataset.entities().len();
    ensure!(args.top <= entities, "--top {}: the knowledge base has {entities} entities", args.top);
    let gpu = memory.open(device)?;
    let vectors = FusionVectors::new((&trained.model, gpu.as_ref()), &batcher, entities)?;
    let width = vectors.width();
    let items = mentions.iter().map(|mention| batcher.item_of(mention)).collect::<fissfuse::Result<Vec<Item>>>()?;
    let queries = vectors.of(&items)?;
    let sample = index::sample(
        &mut generator(args.seed, Purpose::RecallSample, 0),
        mentions.len(),
        args.recall_mentions.min(mentions.len()),
    )
    .into_vec();
    let seal = || database::seal(&dataset, features, model, width);
    let mut collected = Collector::new(&database.source(&args.from, seal)?, entities, width);
    let mut nearest = vec![Top::new(args.top); sample.len()];
    let bar = progress("entities");
    let each = |first: u32, vectors: &[f32]| {
        for (top, &at) in nearest.iter_mut().zip(&sample) {
            top.add(first, &Flat::products(vectors, &queries[at * width..][..width]));
        }
        collected.add(vectors)
    };
    vectors.of_entities(each, &bar)?;
    bar.finish_and_clear();
    let held = collected.finish(gpu.as_ref())?;
    let (start, mut found) = (Instant::now(), Vec::with_capacity(mentions.len()));
    for queries in queries.chunks(TOGETHER * width) {
        found.extend(held.top_k(queries, args.top)?);
    }
    let seconds = start.elapsed().as_secs_f64();
    let of_sample: Vec<Vec<Found>> = sample.iter().map(|&at| found[at].clone()).collect();
    let recall = share_of(&of_sample, nearest);
    let lengths = || found.iter().map(Vec::len);
    let each = match (lengths().min().unwrap_or(0), lengths().max().unwrap_or(0)) {
        (least, most) if least == most => most.to_string(),
        (least, most) => format!("{least} to {most}"),
    };
    println!(
        "{}: {each} of {entities} entities for each of {} mentions in {seconds:.2} s; {:.2} % of those that a scan in f32 finds, in \
         the mean of {} mentions",
        held.name(),
        mentions.len(),
        100.0 * recall,
        sample.len()
    );
    ensure!(
        recall >= args.min_recall,
        "the recall {recall:.4} is below --min-recall {}; let it search more widely (--search-breadth), or lower --min-recall",
        args.min_recall
    );
    let Some(out) = &args.out else { return Ok(()) };
    files::write_whole(out, |to| {
        for (mention, found) in mentions.iter().zip(&found) {
            let qids: Vec<&str> =
                found.iter().map(|found| dataset.entities()[found.number as usize].qid.as_str()).collect();
            let scores: Vec<f32> = found.iter().map(|found| found.product).collect();
            writeln!(to, "{}", json!({"mention_id": mention.id, "candidates": qids, "scores": scores}))?;
        }
        Ok(())
    })?;
    println!("wrote {}", out.display());
    Ok(())
}
