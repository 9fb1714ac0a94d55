//! `fissfuse link`

mod answering;
mod lines;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use fissfuse::Error;
use fissfuse::data::{Dataset, Mention, Skipped, Split};
use fissfuse::device::cuda::parse_idle;
use fissfuse::device::{Gpu, arithmetic_of};
use fissfuse::encoder::{Compute, Encoders};
use fissfuse::eval::Linker;
use fissfuse::files;
use fissfuse::report::recall_line;
use fissfuse::shard::Run;
use fissfuse::train::TrainedModel;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::answering::Answering;
use self::lines::Lines;
use super::common::{
    DataArgs, DeviceArgs, EncoderArgs, FeatureMemoryArgs, at_least_one, batcher, list_skipped, progress,
};
use super::paths;
use super::shard::{self, ShardArgs};
use super::trace::TraceArgs;
use super::whole::WholeKbArgs;

/// Link mentions: JSON lines in, JSON lines out, each answered before the next is read, unless --batch says otherwise.
///
/// A line is {"mention_id", "mention", "sentence", "image"?, "candidates"?: [qid, ...]}. Without candidates, the
/// whole knowledge base is ranked, by the whole model or first by --shortlist. The image is a path within --images. The answer is {"mention_id", "mention", "links": [{"qid", "name", "score",
/// "confidence", "scores"}, ...]}, best first; the confidence is a softmax over all entities that were ranked. With
/// --skip-bad, a line that cannot be answered has {"mention_id", "error"} in its answer's place.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub data: DataArgs,

    /// Feature store that `fissfuse encode` made, with the entities' features.
    #[arg(long, value_name = "DIR")]
    pub features: PathBuf,

    #[command(flatten)]
    pub encoders: EncoderArgs,

    /// Folder of a training run, or a model's file.
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,

    /// Mentions, one JSON object per line [default: standard input].
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,

    /// Folder that images of the input are relative to and lie in [default: the dataset's].
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,

    /// Let images of the input have absolute paths and paths with `..`: whoever writes the input can have any file read.
    #[arg(long)]
    pub allow_any_path: bool,

    /// Lines that are read before they are answered. Mentions without candidates are then scored together against each entity,
    /// which takes less time than one after the other.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one())]
    pub batch: usize,

    /// Entities to answer with.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = at_least_one())]
    pub top: usize,

    #[command(flatten)]
    pub device: DeviceArgs,

    /// On a CUDA device: keep a kernel there that scores mentions without being launched for each, until none came for MS
    /// milliseconds (100 unless given). It keeps up to three quarters of the device busy.
    #[arg(long, value_name = "MS", num_args = 0..=1, require_equals = true, default_missing_value = "100", value_parser = parse_idle)]
    pub resident: Option<Duration>,

    #[command(flatten)]
    pub memory: FeatureMemoryArgs,

    #[command(flatten)]
    pub whole: WholeKbArgs,

    #[command(flatten)]
    pub shard: ShardArgs,

    /// With --shard: folder of parts, which `fissfuse merge` joins; a part's answers are those to its share of the lines.
    #[arg(long, value_name = "DIR", requires = "shard")]
    pub out: Option<PathBuf>,

    #[command(flatten)]
    pub trace: TraceArgs,
}

/// A part's answers in its folder.
pub const ANSWERS: &str = "answers.jsonl";

/// What a part gives to be joined.
#[derive(Serialize, Deserialize)]
pub struct Piece {
    /// Lines that were answered.
    pub answered: usize,
    /// Lines that have an error in their answer's place.
    pub bad: usize,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let mut reads =
        vec![("--data", args.data.data.as_path()), ("--features", &args.features), ("--model", &args.model)];
    reads.extend(args.encoders.named());
    reads.extend(args.input.as_deref().map(|path| ("--input", path)));
    reads.extend(args.images.as_deref().map(|path| ("--images", path)));
    let writes = args.out.iter().map(|path| ("--out", path.as_path())).chain(args.trace.written());
    paths::keep_apart(&reads, &writes.collect::<Vec<_>>())?;
    args.trace.clone().around_unwatched(|| link(args))
}

fn link(args: Args) -> anyhow::Result<()> {
    if let Some(images) = args.images.as_ref().filter(|images| !images.is_dir()) {
        anyhow::bail!("{}: --images is no folder", images.display());
    }
    let shard = args.shard.part()?;
    let parts = shard.map(|shard| {
        let out = args.out.as_ref().context("--shard writes a part of the answers into a folder: add --out DIR")?;
        anyhow::Ok((out, shard))
    });
    let parts = parts.transpose()?;
    let mut skipped = Skipped::default();
    let dataset = args.data.open(&mut skipped)?;
    let batcher = batcher(&dataset, &args.features)?;
    let trained = TrainedModel::read(&args.model)?;
    trained.check(batcher.store().manifest(), &args.features)?;
    let manifest = batcher.store().manifest();
    let paths = args.encoders.paths_of(manifest)?;
    let gpu = args.memory.open(&args.device)?;
    let open = |compute: &Compute| Encoders::open(&paths, compute);
    let (encoders, _) = Compute::open(args.device.device, gpu.clone(), Some(manifest.precision), open)?;
    let text = encoders.text.as_ref().map(|encoder| (encoder.identity(), &manifest.text_encoder, &paths.text));
    let image = encoders.image.as_ref().map(|encoder| (encoder.identity(), &manifest.image_encoder, &paths.image));
    for (found, wanted, path) in [text, image].into_iter().flatten() {
        let path = path.as_deref().unwrap_or(Path::new("")).display();
        let features = args.features.display();
        anyhow::ensure!(found == wanted, "{path} is another encoder than the one that made {features}");
    }
    let model = (&trained.model, gpu.as_ref());
    let mut linker = Linker::new(model, &batcher, &dataset, &encoders, args.whole.keeping(false))?;
    args.resident.map_or(Ok(()), |idle| linker.keep_resident(idle))?;
    let of = (args.features.as_path(), args.model.as_path());
    if let Some(stage) = args.whole.stage(0, (&dataset, &batcher), of, &trained.model)? {
        let (split, mentions) = recall_mentions(&dataset, &mut skipped)?;
        let items = mentions.iter().map(|mention| batcher.item_of(mention)).collect::<fissfuse::Result<Vec<_>>>()?;
        let bar = progress("entities prepared");
        let recall = linker.shortlist(&stage, &items, &bar)?;
        bar.finish_and_clear();
        eprintln!("{split}: {}", recall_line(&stage.settings, dataset.entities().len(), &recall));
    }
    list_skipped(&skipped);
    let name: PathBuf = args.input.clone().unwrap_or_else(|| "standard input".into());
    let open = |path: &PathBuf| {
        let opened = File::open(path).map_err(Error::io(path, "open"));
        opened.map_err(|error| error.if_missing("--input is a file of mentions, or left out for standard input"))
    };
    let input = args.input.as_ref().map(open).transpose()?;
    let mut answering = Answering { linker, dataset: &dataset, args: &args, name: &name };
    let Some((out, shard)) = parts else {
        let reader: Box<dyn BufRead> = match input {
            None => Box::new(std::io::stdin().lock()),
            Some(file) => Box::new(BufReader::new(file)),
        };
        let mut to = std::io::stdout().lock();
        let write =
            |answer: &str| writeln!(to, "{answer}").and_then(|()| to.flush()).context("standard output: cannot write");
        let piece = answering.answer_all(reader, None, write)?;
        return report_bad(&piece, &name);
    };
    let input = Lines::of(input, &name)?;
    let run = run_of(&args, &dataset, &trained, &input, gpu.as_ref())?;
    let mut part = shard::begin(out, "link", shard, run)?;
    // Lines that are answered together are of one part.
    let share = part.share("lines", input.count, args.batch);
    let (path, mut piece) = (part.folder().join(ANSWERS), Err(anyhow::anyhow!("nothing was answered")));
    let written = files::write_whole(&path, |to| {
        let write = |answer: &str| Ok(writeln!(to, "{answer}")?);
        piece = answering.answer_all(Box::new(BufReader::new(&input.file)), Some(share), write);
        if piece.is_ok() { Ok(()) } else { Err(std::io::Error::other("a line has no answer")) }
    });
    let piece = piece?;
    written?;
    println!("answered {} lines; {} have an error in their answer's place", piece.answered + piece.bad, piece.bad);
    shard::finish(part, &[ANSWERS], json!(piece))
}

/// Says how many lines have an error in their answer's place; fails if all have.
pub fn report_bad(piece: &Piece, name: &Path) -> anyhow::Result<()> {
    let Piece { answered, bad } = *piece;
    if bad > 0 {
        eprintln!("{bad} of {} lines have an error in their answer's place", answered + bad);
    }
    anyhow::ensure!(answered > 0 || bad == 0, "no line of {} could be answered", name.display());
    Ok(())
}

/// What parts of answers depend on.
fn run_of(
    args: &Args,
    dataset: &Dataset,
    trained: &TrainedModel,
    input: &Lines,
    gpu: Option<&Gpu>,
) -> anyhow::Result<Run> {
    let settings = [
        ("features", shard::features(&args.features)?),
        ("model", shard::model(&args.model)?),
        ("epoch", json!(trained.epoch)),
        ("input", json!(input.checksum)),
        ("top", json!(args.top)),
        ("batch", json!(args.batch)),
        ("shortlist", json!(args.whole.first_stage(0))),
        ("candidates_from", json!(args.whole.candidates_from.to_string())),
        ("search_breadth", json!(args.whole.database.breadth())),
        ("allow_any_path", json!(args.allow_any_path)),
        ("skip_bad", json!(args.data.skip_bad)),
    ];
    shard::run_of(dataset, arithmetic_of(gpu), &settings)
}

/// Mentions of the dataset that judge a first stage: held out, where there are such.
fn recall_mentions(dataset: &Dataset, skipped: &mut Skipped) -> anyhow::Result<(Split, Vec<Mention>)> {
    let split = [Split::Valid, Split::Test, Split::Train].into_iter().find(|split| dataset.has(*split));
    let split = split.context("--shortlist needs mentions of --data, on which its recall is measured")?;
    Ok((split, dataset.mentions(split, skipped)?))
}
