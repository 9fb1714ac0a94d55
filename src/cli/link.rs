//! `fissfuse link`

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use fissfuse::data::{Dataset, EncodeSettings, Mention, MentionRecord, Skipped, parse_record, record_error};
use fissfuse::encoder::{Compute, Encoders};
use fissfuse::eval::Linker;
use fissfuse::train::TrainedModel;
use indicatif::ProgressBar;

use super::common::{DataArgs, DeviceArgs, EncoderArgs, at_least_one, batcher, list_skipped, progress};

/// Link mentions: JSON lines in, JSON lines out, each answered before the next is read.
///
/// A line is {"mention_id", "mention", "sentence", "image"?, "candidates"?: [qid, ...]}. Without candidates, the
/// whole knowledge base is ranked. The answer is {"mention_id", "mention", "links": [{"qid", "name", "score",
/// "confidence", "scores"}, ...]}, best first; the confidence is a softmax over all entities that were ranked.
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

    /// Folder that images of the input are relative to [default: the dataset's].
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,

    /// Entities to answer with.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = at_least_one())]
    pub top: usize,

    #[command(flatten)]
    pub device: DeviceArgs,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let mut skipped = Skipped::default();
    let dataset = args.data.open(&mut skipped)?;
    let batcher = batcher(&dataset, &args.features)?;
    let trained = TrainedModel::read(&args.model)?;
    trained.check(batcher.store().manifest(), &args.features)?;
    let paths = args.encoders.paths(&EncodeSettings::default())?;
    let manifest = batcher.store().manifest();
    let gpu = args.device.open()?;
    let open = |compute: &Compute| Encoders::open(&paths, compute);
    let (encoders, _) = Compute::open(args.device.device, gpu.clone(), Some(manifest.precision), open)?;
    let found = [(encoders.text.identity(), &paths.text), (encoders.image.identity(), &paths.image)];
    for ((found, path), wanted) in found.into_iter().zip([&manifest.text_encoder, &manifest.image_encoder]) {
        anyhow::ensure!(
            found == wanted,
            "{} is another encoder than the one that made {}",
            path.display(),
            args.features.display()
        );
    }
    let mut linker = Linker::new(&trained.model, gpu.as_ref(), &batcher, &dataset, &encoders)?;
    let (name, reader): (PathBuf, Box<dyn BufRead>) = match &args.input {
        None => ("standard input".into(), Box::new(std::io::stdin().lock())),
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| format!("{}: cannot open", path.display()))?;
            (path.clone(), Box::new(BufReader::new(file)))
        }
    };
    let mut out = std::io::stdout().lock();
    for (number, line) in reader.split(b'\n').enumerate() {
        let line = line.with_context(|| format!("{}: cannot read", name.display()))?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match answer(&mut linker, &dataset, &args, (&name, number + 1), &line) {
            Ok(answer) => {
                writeln!(out, "{answer}").and_then(|()| out.flush()).context("standard output: cannot write")?;
            }
            Err(error) => skipped.take(args.data.tolerance(), error)?,
        }
    }
    list_skipped(&skipped);
    Ok(())
}

/// The answer to one line.
fn answer(
    linker: &mut Linker,
    dataset: &Dataset,
    args: &Args,
    (name, number): (&Path, usize),
    line: &[u8],
) -> fissfuse::Result<String> {
    let refuse = |reason: String| record_error(name, number, reason);
    let text = std::str::from_utf8(line).map_err(|_| refuse("is not UTF-8".into()))?;
    let record: MentionRecord = parse_record(name, number, text)?;
    let mut mention: Mention = dataset.mention(record).map_err(refuse)?;
    if let (Some(folder), Some(image)) = (&args.images, &mention.image) {
        let path = std::path::absolute(folder.join(image)).map_err(|e| refuse(format!("image `{image}`: {e}")))?;
        mention.image = Some(path.display().to_string());
    }
    let whole = mention.candidates.is_empty();
    let bar = if whole { progress("entities prepared") } else { ProgressBar::hidden() };
    let linked = linker.link(&mention, args.top, &bar).map_err(|e| refuse(format!("mention `{}`: {e}", mention.id)))?;
    bar.finish_and_clear();
    serde_json::to_string(&linked).map_err(|e| refuse(e.to_string()))
}
