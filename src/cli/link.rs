//! `fissfuse link`

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Context;
use fissfuse::bytes::Bytes;
use fissfuse::data::{
    Dataset, Line, Mention, MentionRecord, Skipped, Split, next_line, parse_record, record_error, relative,
};
use fissfuse::device::{Gpu, arithmetic_of};
use fissfuse::encoder::{Compute, Encoders};
use fissfuse::eval::Linker;
use fissfuse::files;
use fissfuse::printable::printable_json;
use fissfuse::report::recall_line;
use fissfuse::shard::{Run, checksum_of};
use fissfuse::train::TrainedModel;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::common::{
    DataArgs, DeviceArgs, EncoderArgs, FeatureMemoryArgs, at_least_one, batcher, list_skipped, progress,
};
use super::paths;
use super::shard::{self, ShardArgs};
use super::trace::TraceArgs;
use super::whole::WholeKbArgs;

/// Most bytes of a line; a list of candidates of a million identifiers is shorter.
const LONGEST: usize = 16_000_000;

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
    let open = |path: &PathBuf| File::open(path).with_context(|| format!("{}: cannot open", path.display()));
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

/// Lines that can be read again.
struct Lines {
    file: File,
    count: usize,
    checksum: String,
}

fn is_blank(line: &Line) -> bool {
    matches!(line, Line::Whole(line) if line.iter().all(u8::is_ascii_whitespace))
}

impl Lines {
    /// Counts the lines that are not blank. What is no regular file is kept in a temporary one.
    fn of(input: Option<File>, name: &Path) -> anyhow::Result<Lines> {
        let cannot = || format!("{}: cannot read", name.display());
        let regular = input.as_ref().map(|file| file.metadata()).transpose().with_context(cannot)?;
        let mut file = match (input, regular.is_some_and(|there| there.is_file())) {
            (Some(file), true) => file,
            (input, _) => {
                let mut kept = tempfile::tempfile().context("cannot keep the input in a temporary file")?;
                match input {
                    Some(mut pipe) => std::io::copy(&mut pipe, &mut kept),
                    None => std::io::copy(&mut std::io::stdin().lock(), &mut kept),
                }
                .with_context(cannot)?;
                kept
            }
        };
        file.rewind().with_context(cannot)?;
        let checksum = checksum_of(&mut file).with_context(cannot)?;
        file.rewind().with_context(cannot)?;
        let (mut reader, mut count): (Box<dyn BufRead>, usize) = (Box::new(BufReader::new(&file)), 0);
        while let Some(line) = next_line(&mut reader, LONGEST).with_context(cannot)? {
            count += usize::from(!is_blank(&line));
        }
        drop(reader);
        file.rewind().with_context(cannot)?;
        Ok(Lines { file, count, checksum })
    }
}

/// What answers lines.
struct Answering<'a> {
    linker: Linker<'a>,
    dataset: &'a Dataset,
    args: &'a Args,
    name: &'a Path,
}

impl Answering<'_> {
    /// Answers all lines that are not blank, or those of a share, which is counted from 0.
    fn answer_all(
        &mut self,
        mut reader: Box<dyn BufRead + '_>,
        share: Option<Range<usize>>,
        mut write: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Piece> {
        let name = self.name;
        let (mut piece, mut lines) = (Piece { answered: 0, bad: 0 }, Vec::new());
        let (mut number, mut seen) = (0, 0);
        loop {
            let line = next_line(&mut reader, LONGEST).with_context(|| format!("{}: cannot read", name.display()))?;
            number += 1;
            let last = line.is_none();
            if let Some(line) = line.filter(|line| !is_blank(line)) {
                if share.as_ref().is_none_or(|share| share.contains(&seen)) {
                    lines.push((number, line));
                }
                seen += 1;
            }
            let end = last || share.as_ref().is_some_and(|share| seen >= share.end);
            if lines.len() < self.args.batch && !end {
                continue;
            }
            let answers = answers(&mut self.linker, self.dataset, self.args, name, &lines)?;
            for ((_, line), answer) in lines.iter().zip(answers) {
                let answer = match answer {
                    Ok(answer) => {
                        piece.answered += 1;
                        answer
                    }
                    Err(error) if self.args.data.skip_bad && error.concerns_input() => {
                        piece.bad += 1;
                        json!({"mention_id": mention_id(line), "error": error.to_string()}).to_string()
                    }
                    Err(error) => return Err(error.into()),
                };
                // A terminal would obey control characters that JSON need not escape.
                write(&printable_json(&answer))?;
            }
            lines.clear();
            if end {
                return Ok(piece);
            }
        }
    }
}

/// Mentions of the dataset that judge a first stage: held out, where there are such.
fn recall_mentions(dataset: &Dataset, skipped: &mut Skipped) -> anyhow::Result<(Split, Vec<Mention>)> {
    let split = [Split::Valid, Split::Test, Split::Train].into_iter().find(|split| dataset.has(*split));
    let split = split.context("--shortlist needs mentions of --data, on which its recall is measured")?;
    Ok((split, dataset.mentions(split, skipped)?))
}

/// The identifier in a line that may hold anything.
fn mention_id(line: &Line) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        mention_id: String,
    }
    match line {
        Line::Whole(line) => serde_json::from_slice(line).ok().map(|named: Named| named.mention_id),
        Line::TooLong => None,
    }
}

/// The answers to some lines, in their order; an error that no other line could do better than is one of all.
fn answers(
    linker: &mut Linker,
    dataset: &Dataset,
    args: &Args,
    name: &Path,
    lines: &[(usize, Line)],
) -> fissfuse::Result<Vec<fissfuse::Result<String>>> {
    let mut asked = Vec::with_capacity(lines.len());
    let mut ask = |(number, line): &(usize, Line)| {
        asked.push(mention(dataset, args, (name, *number), line)?);
        Ok(())
    };
    let heard: Vec<fissfuse::Result<()>> = lines.iter().map(&mut ask).collect();
    let whole = asked.iter().any(|mention| mention.candidates.is_empty());
    let bar = if whole { progress("entities prepared") } else { ProgressBar::hidden() };
    let linked = match linker.link_together(&asked, args.top, &bar) {
        Ok(linked) => linked.into_iter().map(Ok).collect::<Vec<_>>(),
        Err(error) if !error.concerns_input() => return Err(error),
        Err(error) if asked.len() == 1 => vec![Err(error)],
        // Asked one by one, each has its own answer or error.
        Err(_) => asked.iter().map(|mention| linker.link(mention, args.top, &bar)).collect(),
    };
    bar.finish_and_clear();
    let mut linked = asked.iter().zip(linked);
    let answer = |((number, _), heard): (&(usize, Line), fissfuse::Result<()>)| {
        heard?;
        let (mention, linked) = linked.next().ok_or_else(|| record_error(name, *number, "has no answer"))?;
        let linked = linked.map_err(|error| match error.concerns_input() {
            true => record_error(name, *number, format!("mention `{}`: {error}", mention.id)),
            false => error,
        })?;
        serde_json::to_string(&linked).map_err(|e| record_error(name, *number, e.to_string()))
    };
    Ok(lines.iter().zip(heard).map(answer).collect())
}

/// The mention of a line.
fn mention(dataset: &Dataset, args: &Args, (name, number): (&Path, usize), line: &Line) -> fissfuse::Result<Mention> {
    let refuse = |reason: String| record_error(name, number, reason);
    let Line::Whole(line) = line else {
        return Err(refuse(format!("is longer than {}", Bytes::of(LONGEST))));
    };
    let text = std::str::from_utf8(line).map_err(|_| refuse("is not UTF-8".into()))?;
    let record: MentionRecord = parse_record(name, number, text)?;
    let mut mention: Mention = dataset.mention(record).map_err(refuse)?;
    let about = |reason: String| refuse(format!("mention `{}`: {reason}", mention.id));
    if let Some(image) = &mention.image {
        if !args.allow_any_path {
            relative(image).map_err(|reason| about(format!("image: {reason}; --allow-any-path takes it")))?;
        }
        if let Some(folder) = &args.images {
            let path = std::path::absolute(folder.join(image)).map_err(|e| about(format!("image `{image}`: {e}")))?;
            mention.image = Some(path.display().to_string());
        }
    }
    Ok(mention)
}
