//! `fissfuse index`

mod push;
mod query;

use std::path::PathBuf;
use std::time::Instant;

use clap::Subcommand;
use fissfuse::bytes::Bytes;
use fissfuse::data::{Checked, Manifest, Skipped, add_entities, check_store};
use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::encoder::{Compute, Encoders};
use fissfuse::files::FolderLock;

use crate::cli::common::{DataArgs, DeviceArgs, EncoderArgs, FeatureMemoryArgs, list_skipped, progress};
use crate::cli::database::DatabaseArgs;

/// Let a feature store grow with its knowledge base, compare it with its checksums, or fill and ask indexes and vector databases.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Add(AddArgs),
    Check(CheckArgs),
    Push(push::PushArgs),
    Query(query::QueryArgs),
}

/// Encode new entities, and append them to the feature store and to the dataset's entities.jsonl.
#[derive(clap::Args)]
struct AddArgs {
    #[command(flatten)]
    data: DataArgs,

    /// Feature store that `fissfuse encode` made.
    #[arg(long, value_name = "DIR")]
    features: PathBuf,

    #[command(flatten)]
    encoders: EncoderArgs,

    /// New entities, one JSON object per line, as in entities.jsonl; images are relative to the dataset's folder.
    #[arg(long, value_name = "FILE")]
    entities: PathBuf,

    /// What encodes, in the store's precision: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
}

/// What an index is of, and how it is reached.
#[derive(clap::Args)]
struct IndexedArgs {
    #[command(flatten)]
    data: DataArgs,

    /// Feature store that `fissfuse encode` made.
    #[arg(long, value_name = "DIR")]
    features: PathBuf,

    /// Folder of a training run, or a model's file.
    #[arg(long, value_name = "PATH")]
    model: PathBuf,

    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    device: DeviceArgs,

    #[command(flatten)]
    memory: FeatureMemoryArgs,
}

/// Read a feature store and compare each shard with its checksum.
#[derive(clap::Args)]
struct CheckArgs {
    /// Feature store that `fissfuse encode` made.
    #[arg(long, value_name = "DIR")]
    features: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add(args) => add(args),
        Command::Push(args) => push::run(args),
        Command::Query(args) => query::run(args),
        Command::Check(args) => {
            let (start, Checked { shards, items, bytes }) = (Instant::now(), check_store(&args.features)?);
            let (bytes, seconds) = (Bytes::of(bytes), start.elapsed().as_secs_f64());
            println!("{shards} shards, {items} texts and images, {bytes} are what was written ({seconds:.1} s)");
            Ok(())
        }
    }
}

fn add(args: AddArgs) -> anyhow::Result<()> {
    let mut skipped = Skipped::default();
    let _lock = FolderLock::take(&args.data.data)?;
    let dataset = args.data.open(&mut skipped)?;
    let manifest = Manifest::read(&args.features)?;
    let paths = args.encoders.paths_of(&manifest)?;
    let gpu = args.device.open(Arithmetic::default())?;
    let open = |compute: &Compute| Encoders::open(&paths, compute);
    let (encoders, compute) = Compute::open(args.device, gpu, Some(manifest.precision), open)?;
    let (data, bar) = ((&dataset, args.entities.as_path()), progress("texts and images"));
    let (count, done) = add_entities(data, &encoders, &args.features, args.data.tolerance(), &mut skipped, &bar)?;
    bar.finish_and_clear();
    list_skipped(&skipped);
    println!(
        "added {count} entities to {}: encoded {} texts and {} images in {compute} ({} were there already)",
        dataset.entities().len(),
        done.texts,
        done.images,
        done.reused
    );
    Ok(())
}
