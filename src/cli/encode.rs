//! `fissfuse encode`

use std::path::PathBuf;
use std::time::Instant;

use fissfuse::data::{Items, Manifest, Skipped, encode, store_files};
use fissfuse::device::arithmetic_of;
use fissfuse::encoder::Encoders;
use fissfuse::files;
use fissfuse::interrupt;
use fissfuse::model::Modalities;
use fissfuse::train::RunConfig;
use serde_json::{Value, json};

use super::common::{ComputeArgs, DataArgs, EncoderArgs, list_skipped, progress};
use super::paths::{self, Holds};
use super::shard::{self, ShardArgs};
use super::trace::TraceArgs;

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

    /// Folder of the feature store; with --shard, of the parts of it.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    #[command(flatten)]
    pub shard: ShardArgs,

    /// Encode one modality only, for models that read no other [default: the configuration's, and text alone where the
    /// dataset names no image and no encoder of images is given].
    #[arg(long)]
    pub modalities: Option<Modalities>,

    /// Configuration file; its [encode] section counts, and whether [model] reads one modality only [default: those of configs/wikimel.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    pub trace: TraceArgs,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let _watch = interrupt::watch()?;
    let writes: Vec<paths::Named> = [("--out", args.out.as_path())].into_iter().chain(args.trace.written()).collect();
    let mut reads: Vec<paths::Named> = vec![("--data", &args.data.data)];
    reads.extend(args.encoders.named());
    reads.extend(args.config.as_deref().map(|path| ("--config", path)));
    paths::keep_apart(&reads, &writes)?;
    args.trace.clone().around(|| encode_all(args))
}

fn encode_all(args: Args) -> anyhow::Result<()> {
    let shard = args.shard.part()?;
    if shard.is_none() {
        paths::no_other_kind("--out", &args.out, &[Holds::Features])?;
        files::expect_folder_at(&args.out)?;
    }
    let config = args.config.as_deref().map(RunConfig::read).transpose()?.unwrap_or_default();
    let mut skipped = Skipped::default();
    let dataset = args.data.open(&mut skipped)?;
    let items = Items { part: shard, ..Items::of(&dataset, &mut skipped)? };
    let modalities = args.modalities.unwrap_or(config.model.modalities);
    let mut images = modalities != Modalities::Text;
    if args.modalities.is_none() && images && !items.have_images() && !args.encoders.names_images(&config.encode) {
        eprintln!("{} names no image: its texts alone are encoded (--modalities text)", dataset.root().display());
        images = false;
    }
    let paths = args.encoders.paths(&config.encode, modalities != Modalities::Image, images);
    let paths =
        paths.map_err(|error| anyhow::anyhow!("{error}, or encode one modality (--modalities text or image)"))?;
    // A store that was begun goes on in its precision.
    let folder = shard.map_or_else(|| args.out.clone(), |shard| args.out.join(shard.folder()));
    let begun = Manifest::read(&folder).ok().map(|manifest| manifest.precision);
    let (encoders, compute) =
        args.compute.open(config.encode.precision.or(begun), |compute| Encoders::open(&paths, compute))?;
    if items.mentions.is_empty() {
        eprintln!("{} has no file of mentions: its entities alone are encoded", dataset.root().display());
    }
    let begin = |shard| {
        let settings =
            [("features", json!(config.encode.manifest(&encoders))), ("skip_bad", json!(args.data.skip_bad))];
        let run = shard::run_of(&dataset, arithmetic_of(compute.gpu.as_ref()), &settings)?;
        shard::begin(&args.out, "encode", shard, run)
    };
    let part = shard.map(begin).transpose()?;
    let (start, bar) = (Instant::now(), progress("texts and images"));
    let done = encode(&items, &encoders, &config.encode, &folder, args.data.tolerance(), &mut skipped, &bar)?;
    bar.finish_and_clear();
    list_skipped(&skipped);
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "encoded {} texts and {} images in {compute} in {seconds:.1} s ({} were there already); \
         {} mentions and entities have no image, {} images were unreadable",
        done.texts, done.images, done.reused, done.without_image, done.bad_images
    );
    match part {
        None => Ok(()),
        Some(mut part) => {
            let [texts, images] = done.distinct;
            part.share("texts", texts, 1);
            part.share("images", images, 1);
            let files = store_files(&folder)?;
            shard::finish(part, &files.iter().map(String::as_str).collect::<Vec<_>>(), Value::Null)
        }
    }
}
