//! `fissfuse train`

mod encoder;

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use clap::ArgGroup;
use fissfuse::bytes::Bytes;
use fissfuse::data::{Skipped, Split};
use fissfuse::device::cpu::available_memory;
use fissfuse::device::describe;
use fissfuse::eval::Metrics;
use fissfuse::files::names::{BEST, TRAINING};
use fissfuse::files::{self, FolderLock};
use fissfuse::interrupt;
use fissfuse::parallel::Meeting;
use fissfuse::terminal;
use fissfuse::train::{EncoderRun, EncoderSettings, EpochRecord, Features, Ingredients, Start, Steps, Trainer};
use indicatif::ProgressBar;

use self::encoder::{EncoderTrainingArgs, Kept};
use super::common::{
    ConfigArgs, DataArgs, DeviceArgs, FeatureMemoryArgs, batcher, list_skipped, progress, report_counts,
};
use super::parallel::{self, ParallelArgs, Ranks, Team};
use super::paths::{self, Holds, expect_idle};
use super::trace::TraceArgs;

/// Flags that name encoders which are trained along.
const TRAINED: [&str; 3] = ["train_encoder", "train_text_encoder", "train_image_encoder"];

/// Train FissFuse on a dataset's features, or with --train-encoder together with the encoder that computes them.
///
/// Writes best.safetensors (the epoch with the best validation MRR), last.safetensors (everything that --resume
/// needs), train.jsonl (a line per epoch) and, with --train-encoder, encoder/ (the best epoch's, a Hugging Face directory).
#[derive(clap::Args)]
#[command(group = ArgGroup::new("trained").args(TRAINED).multiple(true))]
#[command(group = ArgGroup::new("reads").arg("features").args(TRAINED).required(true).multiple(true))]
pub struct Args {
    #[command(flatten)]
    pub data: DataArgs,

    /// Feature store that `fissfuse encode` made.
    #[arg(long, value_name = "DIR")]
    pub features: Option<PathBuf>,

    /// Folder of the run.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    #[command(flatten)]
    pub config: ConfigArgs,

    #[command(flatten)]
    pub encoder: EncoderTrainingArgs,

    #[command(flatten)]
    pub device: DeviceArgs,

    #[command(flatten)]
    pub parallel: ParallelArgs,

    #[command(flatten)]
    pub memory: FeatureMemoryArgs,

    /// On CUDA devices: give the device each step as one CUDA graph, not kernel by kernel. The results are the same; whether
    /// it is faster was not measured on a GPU yet.
    #[arg(long)]
    pub graph: bool,

    /// Go on with the run in --out from its last checkpoint.
    #[arg(long)]
    pub resume: bool,

    /// With --resume: take another number of epochs, though the learning rate falls to zero at their end (--schedule linear):
    /// the result is none that a straight run has.
    #[arg(long, requires = "resume")]
    pub new_horizon: bool,

    #[command(flatten)]
    pub trace: TraceArgs,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let _watch = interrupt::watch()?;
    terminal::work_on();
    let writes: Vec<paths::Named> = [("--out", args.out.as_path())].into_iter().chain(args.trace.written()).collect();
    let mut reads: Vec<paths::Named> = vec![("--data", &args.data.data)];
    reads.extend(args.features.as_deref().map(|path| ("--features", path)));
    reads.extend(args.encoder.named());
    reads.extend(args.config.config.as_deref().map(|path| ("--config", path)));
    paths::keep_apart(&reads, &writes)?;
    let ranks = args.parallel.ranks()?;
    if args.encoder.paths()?.is_some() {
        ensure!(
            matches!(ranks, Ranks::Alone),
            "--train-encoder trains on one device: leave out --devices, and start one process"
        );
        ensure!(!args.graph, "steps with --train-encoder cannot be recorded as graphs: leave out --graph");
    }
    match ranks {
        Ranks::Alone => args.trace.around(|| train(&args, &args.parallel.only(&args.device), None)),
        Ranks::Devices(devices) => {
            ensure!(!args.graph, "--graph is for one device: leave it out with --devices");
            let one =
                |device, team| train(&args, &DeviceArgs { device, arithmetic: args.device.arithmetic }, Some(team));
            args.trace.around(|| args.parallel.on_each(&devices, one))
        }
        Ranks::Process(place) => {
            ensure!(!args.graph, "--graph is for one device: leave it out where several processes train together");
            let Meeting { rank, size, .. } = place.meeting;
            eprintln!("rank {rank} of {size}, as {} says", place.said_by);
            let device = parallel::device_of(&place, &args.parallel.only(&args.device))?;
            let work = || args.parallel.as_process(&place, |team| train(&args, &device, Some(team)));
            // One trace, where all write to one folder.
            if rank == 0 { args.trace.around(work) } else { work() }
        }
    }
}

/// Trains on a device, alone or as one rank of a group, of which rank 0 speaks and writes.
fn train(args: &Args, device: &DeviceArgs, team: Option<Team>) -> anyhow::Result<()> {
    let group = team.as_ref().map(|team| team.group.clone());
    let leads = group.as_ref().is_none_or(|group| group.leads());
    group.iter().for_each(|group| group.now("opening what it trains on"));
    if leads {
        paths::no_other_kind("--out", &args.out, &[Holds::Run])?;
        files::expect_folder_at(&args.out)?;
    }
    let mut config = args.config.read()?;
    args.encoder.apply(&mut config.encoder);
    // Before the data are read, which takes long.
    config.train.check()?;
    let trained = args.encoder.paths()?;
    match &trained {
        Some(_) => config.encoder.check()?,
        None if leads && config.encoder != EncoderSettings::default() => {
            let from = args.config.config.as_deref().unwrap_or(Path::new("the configuration")).display();
            eprintln!("{from}: [encoder] has no effect with --features: no encoder is trained along (--train-encoder)");
        }
        None => {}
    }
    let gpu = args.memory.open(device)?;
    let mut skipped = Skipped::default();
    let dataset = args.data.open(&mut skipped)?;
    let stored = args.features.as_deref().map(|features| batcher(&dataset, features)).transpose()?;
    let mut features = match (&stored, &trained) {
        (Some(batcher), _) => Features::Stored(batcher),
        (None, Some(paths)) => {
            Features::Trained(Box::new(EncoderRun::open(paths, &config, &dataset, args.data.tolerance())?))
        }
        (None, None) => bail!("there is nothing to train on: give --features or --train-encoder"),
    };
    let (model, kept) = match &features {
        Features::Stored(batcher) => (config.model.for_features(batcher.store().manifest())?, None),
        Features::Trained(run) => (run.model().clone(), Some(Kept::new(args, run.kept(&args.out), run.manifest()))),
    };
    let (seed, policy) = (config.train.seed, config.train.gold_missing);
    let mut samples = |split: Split| -> anyhow::Result<_> {
        let mentions = dataset.ranked_mentions(split, Some(policy), &mut skipped)?;
        let (samples, counts) = match &mut features {
            Features::Stored(batcher) => batcher.samples(&mentions, seed, policy)?,
            Features::Trained(run) if split == Split::Valid => run.valid(mentions)?,
            Features::Trained(run) => run.train(&mentions)?,
        };
        if leads {
            report_counts(&split.to_string(), &counts, policy);
        }
        Ok(samples)
    };
    let train = samples(Split::Train)?;
    let valid = if dataset.has(Split::Valid) { samples(Split::Valid)? } else { Vec::new() };
    if leads {
        list_skipped(&skipped);
    }
    let validated = !valid.is_empty();
    let (share, checksum) = (config.train.share, dataset.checksum()?);
    let start = if args.resume { Start::Resume { new_horizon: args.new_horizon } } else { Start::New };
    if let Some(group) = &group {
        let (model, settings, features) = (&model, &config.train, features.manifest());
        let (samples, gpu) = ([&train[..], &valid], gpu.as_ref());
        Ingredients { model, settings, features, dataset: &checksum, samples, gpu, start }.agree(group)?;
    }
    let _lock = match leads {
        true => {
            expect_idle(&args.out)?;
            start.check(&args.out)?;
            let encoder = args.out.join("encoder");
            // What a run leaves that was stopped before its first checkpoint is replaced.
            let begun = args.out.join(TRAINING).exists();
            ensure!(
                trained.is_none() || args.resume || begun || !encoder.exists(),
                "{}: exists already; choose another --out, or remove it first",
                encoder.display()
            );
            Some(FolderLock::take_new(&args.out)?)
        }
        false => None,
    };
    let (steps, way) = match &team {
        Some(team) => {
            let reduce = team.reduce(gpu.as_ref())?;
            let way = reduce.way();
            (Steps::together(gpu.as_ref(), team.group.clone(), reduce), Some(way))
        }
        None => (Steps::new(gpu.as_ref(), args.graph)?, None),
    };
    let mut trainer =
        Trainer::new(&args.out, (model, config.train.clone()), (features, checksum), (train, valid), start, steps)?;
    if !leads {
        return Ok(trainer.run(&ProgressBar::hidden(), |_| ())?);
    }
    if let Some(kept) = kept.as_ref().filter(|_| trainer.progress().best.is_some()) {
        kept.expect_whole()?;
    }
    let (count, done) = (trainer.model().parameters().count(), trainer.progress().epoch);
    let epochs = trainer.epochs();
    if let Some((trained, all)) = trainer.encoder() {
        println!("the encoder is trained along: {trained} parameters train, it has {all}");
    }
    println!("{count} parameters; {epochs} epochs, {done} done; {}", describe(gpu.as_ref()));
    if let (Some(group), Some(way)) = (&group, way) {
        println!("{} devices train together; gradients go by {way}", group.size());
    }
    if share < 1.0 {
        println!("share {share} of the training mentions: {}", trainer.mentions());
    }
    let needs = trainer.needs();
    let host = available_memory().map_or("unknown".into(), |free| Bytes::of(free).to_string());
    let device = gpu.as_ref().map(|gpu| gpu.memory()).transpose()?;
    let device = device.map_or(String::new(), |(free, _)| format!(", {} on the device", Bytes::of(free)));
    eprintln!(
        "memory: {} at least for the model and AdamW, {} for a step; free: {host} on the host{device}",
        Bytes(needs.model),
        Bytes(needs.step)
    );
    let bar = progress("steps");
    trainer.run(&bar, |record| bar.suspend(|| print_epoch(record, epochs)))?;
    if let Some((epoch, metrics)) = trainer.progress().best {
        println!("{}", best(epoch, validated.then_some(metrics), &args.out));
    }
    if trainer.left_out() > 0 {
        eprintln!(
            "left out {} images that cannot be read; what stands in for missing ones was taken",
            trainer.left_out()
        );
    }
    if let Some(kept) = kept {
        kept.expect_whole()?;
        println!("{}", kept.said()?);
    }
    let shares = trainer.stages().shares();
    let shares: Vec<String> = shares.iter().map(|(name, share)| format!("{name} {:.1} %", 100.0 * share)).collect();
    println!("time: {}", shares.join(", "));
    if let Some(group) = &group {
        println!("gradients: {} sent by this device", Bytes(group.sent()));
    }
    Ok(())
}

/// Which epoch's model is in the folder of a run, if it still is.
fn best(epoch: usize, metrics: Option<Metrics>, folder: &Path) -> String {
    let best = match metrics {
        Some(metrics) => format!("best: epoch {epoch}, validation MRR {:.2} %", 100.0 * metrics.reciprocal),
        None => format!("no mention to validate with: epoch {epoch}, the last one, counts as the best"),
    };
    let file = folder.join(BEST);
    let folder = folder.display();
    match file.exists() {
        true => format!("{best}, in {folder}"),
        false => format!("{best}, but {} is missing; train again with another --out to have it", file.display()),
    }
}

fn print_epoch(record: &EpochRecord, epochs: usize) {
    let losses: Vec<String> = record.losses.iter().map(|(name, loss)| format!("{name} {loss:.3}")).collect();
    let valid = record.valid.map_or(String::new(), |m| {
        let percent = |x: f64| 100.0 * x;
        let (h1, h3, mrr) = (percent(m.hits1), percent(m.hits3), percent(m.reciprocal));
        format!("  valid H@1 {h1:.2} H@3 {h3:.2} MR {:.3} MRR {mrr:.2}", m.mean_rank)
    });
    let best = if record.best && record.valid.is_some() { " *" } else { "" };
    if losses.is_empty() {
        println!("nothing to train: the model has no parameters{valid}");
        return;
    }
    println!(
        "epoch {:>3}/{epochs}  loss {:.4} ({})  {:.0} samples/s{valid}{best}",
        record.epoch,
        record.loss,
        losses.join(", "),
        record.samples_per_second
    );
}
