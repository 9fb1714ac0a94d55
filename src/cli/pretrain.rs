//! `fissfuse pretrain`

use std::path::PathBuf;

use anyhow::ensure;
use fissfuse::device::cpu::available_memory;
use fissfuse::device::describe;
use fissfuse::encoder::clip::ClipFiles;
use fissfuse::encoder::{Precision, parse_precision};
use fissfuse::files::{self, FolderLock};
use fissfuse::interrupt;
use fissfuse::terminal;
use fissfuse::train::Start;
use fissfuse::train::pretrain::{EpochRecord, Pairs, PreparedPairs, PretrainConfig, Pretrainer, Recall};

use super::common::{DeviceArgs, progress};
use super::paths::{self, Holds, expect_idle};
use super::trace::TraceArgs;

/// Train encoders of texts and images, shaped as CLIP's, from pairs of an image and a text.
///
/// Writes last.safetensors (everything that --resume needs), pretrain.jsonl (a line per epoch) and at the end encoder/,
/// a Hugging Face directory that --encoder takes.
#[derive(clap::Args)]
pub struct Args {
    /// Pairs to train on: `{"image": PATH, "text": TEXT}` on each line.
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,

    /// Folder that the images' paths are relative to.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,

    /// Pairs that are not trained on: after each epoch, the share of them that find each other.
    #[arg(long, value_name = "FILE")]
    valid: Option<PathBuf>,

    /// Sizes of the encoders and settings of training, a TOML file [default: as configs/pretrain.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Start from the CLIP in this Hugging Face directory, whose sizes and tokenizer are taken too, not from random weights.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,

    /// Folder of the run.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Passes over the images [default: as the configuration says].
    #[arg(long)]
    epochs: Option<usize>,

    /// Draws weights and orders [default: as the configuration says].
    #[arg(long)]
    seed: Option<u64>,

    /// Keep the input alone of each layer, and compute the layer again for its gradients: the same bits in less memory, for a third
    /// more work.
    #[arg(long)]
    gradient_checkpointing: bool,

    /// Go on with the run in --out from its last checkpoint.
    #[arg(long)]
    resume: bool,

    /// What the encoders' weights are written in: f32, or bf16, which takes half the space. They are trained in f32.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = parse_precision)]
    precision: Precision,

    #[command(flatten)]
    device: DeviceArgs,

    #[command(flatten)]
    trace: TraceArgs,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let _watch = interrupt::watch()?;
    terminal::work_on();
    let writes: Vec<paths::Named> = [("--out", args.out.as_path())].into_iter().chain(args.trace.written()).collect();
    let mut reads: Vec<paths::Named> = vec![("--pairs", &args.pairs), ("--images", &args.images)];
    let optional = [("--valid", &args.valid), ("--config", &args.config), ("--from", &args.from)];
    reads.extend(optional.into_iter().filter_map(|(name, path)| Some((name, path.as_deref()?))));
    paths::keep_apart(&reads, &writes)?;
    args.trace.clone().around(|| pretrain(args))
}

fn pretrain(args: Args) -> anyhow::Result<()> {
    paths::no_other_kind("--out", &args.out, &[Holds::Run])?;
    files::expect_folder_at(&args.out)?;
    let PretrainConfig { model, mut train } = match &args.config {
        Some(path) => PretrainConfig::read(path)?,
        None => PretrainConfig::default(),
    };
    (train.epochs, train.seed) = (args.epochs.unwrap_or(train.epochs), args.seed.unwrap_or(train.seed));
    train.gradient_checkpointing |= args.gradient_checkpointing;
    train.check()?;
    let gpu = args.device.open()?;
    let pairs = Pairs::read(&args.pairs, &args.images)?;
    let valid = args.valid.as_deref().map(|path| Pairs::read(path, &args.images)).transpose()?;
    let start = if args.resume { Start::Resume { new_horizon: false } } else { Start::New };
    expect_idle(&args.out)?;
    start.check(&args.out)?;
    let clip = match &args.from {
        Some(folder) => ClipFiles::read(folder)?,
        None => ClipFiles::new(&model, pairs.texts())?,
    };
    let _lock = FolderLock::take_new(&args.out)?;
    let encoder = args.out.join("encoder");
    ensure!(
        args.resume || !encoder.exists(),
        "{}: exists already; choose another --out, or remove it first",
        encoder.display()
    );
    // Half of what is free is left to training.
    let mut budget = available_memory().map_or(usize::MAX, |free| free / 2);
    let mut prepare = |pairs: Pairs| -> fissfuse::Result<PreparedPairs> {
        let prepared = pairs.prepare(&clip, budget, &progress("images"))?;
        budget -= prepared.image_bytes().min(budget);
        Ok(prepared)
    };
    let (images, texts) = pairs.counts();
    println!("{texts} pairs of {images} images");
    let pairs = prepare(pairs)?;
    let valid = valid.map(prepare).transpose()?;
    let from = (clip, args.from.as_deref());
    let mut pretrainer = Pretrainer::new(&args.out, from, train, pairs, valid, start, gpu.clone())?;
    let (count, (done, epochs)) = (pretrainer.parameters().count(), pretrainer.epochs());
    println!("{count} parameters; {epochs} epochs, {done} done; {}", describe(gpu.as_ref()));
    let bar = progress("steps");
    let encoder = pretrainer.run(args.precision, &bar, |record| bar.suspend(|| print_epoch(record, epochs)))?;
    println!("the encoders are in {}", encoder.display());
    Ok(())
}

fn print_epoch(record: &EpochRecord, epochs: usize) {
    let percent = |recall: Recall| format!("{:.1}/{:.1}", 100.0 * recall.at1, 100.0 * recall.at5);
    let valid = record.valid.map_or(String::new(), |valid| {
        let (image, text) = (percent(valid.text_to_image), percent(valid.image_to_text));
        format!("  valid R@1/R@5 text to image {image}, image to text {text}")
    });
    let clamped = match record.clamped_steps {
        0 => String::new(),
        steps => format!(" (clamped {steps} times)"),
    };
    println!(
        "epoch {:>3}/{epochs}  loss {:.4}  scale {:.1}{clamped}  gradients {:.2}  {:.0} pairs/s{valid}",
        record.epoch, record.loss, record.scale, record.gradient_norm, record.pairs_per_second
    );
}
