//! `fissfuse index push`

use std::time::Instant;

use fissfuse::data::Skipped;
use fissfuse::eval::FusionVectors;
use fissfuse::search::{self, Location};
use fissfuse::terminal;
use fissfuse::train::TrainedModel;

use super::IndexedArgs;
use crate::cli::common::{batcher, list_skipped, progress};
use crate::cli::database::{self, location};

/// Fill an index or a vector database with the Fusion branch's vectors of all entities, for --candidates-from of `link` and
/// `eval`.
///
/// What is filled tells the model, the features and the entities that it is of. A run that fails takes back what it wrote; one
/// that is killed leaves what nothing reads, and what the next run replaces.
#[derive(clap::Args)]
pub struct PushArgs {
    #[command(flatten)]
    of: IndexedArgs,

    /// What is filled: usearch:FILE, qdrant://HOST:PORT/COLLECTION or milvus://HOST:PORT/COLLECTION.
    #[arg(long, value_name = "PLACE", value_parser = location)]
    to: Location,

    /// Take the place of an index of another model or knowledge base, which answers until the new one is whole. A database needs
    /// room for both until then; its collections are called COLLECTION_fissfuse_1 and _2, and COLLECTION is an alias of one of
    /// them. A collection that bears the name itself, as older versions made it, is deleted right before: no alias can take its name.
    #[arg(long)]
    replace: bool,
}

pub fn run(args: PushArgs) -> anyhow::Result<()> {
    let PushArgs { of: IndexedArgs { data, features, model, database, device, memory }, to, replace } = args;
    database.expect_meaning(&to)?;
    anyhow::ensure!(database.breadth().is_none(), "--search-breadth: nothing is searched here; leave it out");
    terminal::work_on();
    let mut skipped = Skipped::default();
    let dataset = data.open(&mut skipped)?;
    list_skipped(&skipped);
    let batcher = batcher(&dataset, &features)?;
    let trained = TrainedModel::read(&model)?;
    trained.check(batcher.store().manifest(), &features)?;
    let gpu = memory.open(&device)?;
    let vectors = FusionVectors::new((&trained.model, gpu.as_ref()), &batcher, dataset.entities().len())?;
    let seal = database::seal(&dataset, &features, &model, vectors.width())?;
    let (start, bar) = (Instant::now(), progress("entities"));
    let (count, width) = (seal.count, seal.width);
    let Some(mut filling) = search::fill(&to, &seal, &database.access(&to), replace)? else {
        println!("{to} holds the vectors of these {count} entities already");
        return Ok(());
    };
    vectors.of_entities(|_, vectors| filling.add(vectors), &bar)?;
    filling.finish()?;
    bar.finish_and_clear();
    println!("{to}: {count} vectors of {width} numbers ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(())
}
