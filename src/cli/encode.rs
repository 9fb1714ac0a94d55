//! `fissfuse encode`

use std::path::PathBuf;
use std::time::Instant;

use fissfuse::data::{Items, Manifest, Skipped, encode};
use fissfuse::encoder::Encoders;
use fissfuse::train::RunConfig;

use super::common::{ComputeArgs, DataArgs, EncoderArgs, list_skipped, progress};
use super::paths::{self, Holds};

/// Encode a dataset's texts and images once, into a feature store.
///
/// Run again, it goes on where it stopped and adds what is new or has changed.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub data: DataArgs,

    #[command(flatten)]
    pub encoders: EncoderArgs,

    #[command(flatten)]
    pub compute: ComputeArgs,

    /// Folder of the feature store.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// Configuration file; its [encode] section counts [default: the paper's settings].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    paths::keep_apart(&[("--data", &args.data.data)], &[("--out", &args.out)])?;
    paths::no_other_kind("--out", &args.out, &[Holds::Features])?;
    let config = args.config.as_deref().map(RunConfig::read).transpose()?.unwrap_or_default();
    let mut skipped = Skipped::default();
    let dataset = args.data.open(&mut skipped)?;
    let paths = args.encoders.paths(&config.encode)?;
    // A store that was begun goes on in its precision.
    let begun = Manifest::read(&args.out).ok().map(|manifest| manifest.precision);
    let (encoders, compute) =
        args.compute.open(config.encode.precision.or(begun), |compute| Encoders::open(&paths, compute))?;
    let items = Items::of(&dataset, &mut skipped)?;
    if items.mentions.is_empty() {
        eprintln!("{} has no file of mentions: its entities alone are encoded", dataset.root().display());
    }
    let (start, bar) = (Instant::now(), progress("texts and images"));
    let done = encode(&items, &encoders, &config.encode, &args.out, args.data.tolerance(), &mut skipped, &bar)?;
    bar.finish_and_clear();
    list_skipped(&skipped);
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "encoded {} texts and {} images in {compute} in {seconds:.1} s ({} were there already); \
         {} mentions and entities have no image, {} images were unreadable",
        done.texts, done.images, done.reused, done.without_image, done.bad_images
    );
    Ok(())
}
