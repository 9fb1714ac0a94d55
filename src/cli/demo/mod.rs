//! `fissfuse demo`

mod encoder;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use fissfuse::data::demo::{self, PairCounts, Sizes};
use fissfuse::data::{Dataset, Mention, Run, Skipped, Split, Tolerance};
use fissfuse::encoder::clip::{RandomClip, write_random};
use fissfuse::encoder::{EncoderPaths, Encoders};
use fissfuse::eval::{Keeping, Linker};
use fissfuse::files::names::RUN;
use fissfuse::kar::{self, instructions};
use fissfuse::llama::{self, LlamaConfig, Preset};
use fissfuse::model::Modalities;
use fissfuse::printable::{command_line, quoted};
use fissfuse::train::TrainedModel;
use indicatif::ProgressBar;

use super::common::{DeviceArgs, EncoderArgs, batcher, progress};
use super::{Cli, written};

/// Flags that have no meaning where pairs alone are written.
const OF_THE_DEMO: [&str; 13] = [
    "out",
    "seed",
    "encoder",
    "text_encoder",
    "image_encoder",
    "random_encoder",
    "mentions",
    "epochs",
    "modalities",
    "kar",
    "llm",
    "device",
    "arithmetic",
];

/// Train, evaluate and use a model on a small real task, in a few minutes on two cores.
///
/// The task: emoji. The encoder is a small CLIP that this program trained on other scenes of the same emoji;
/// --encoder, --text-encoder and --image-encoder take real ones, --llm a Llama that re-ranks.
#[derive(clap::Args)]
pub struct Args {
    /// Folder for data, features and model. One of an earlier demo is replaced if all its files are as that wrote them.
    #[arg(long, value_name = "DIR", default_value = "demo-run")]
    out: PathBuf,

    /// Draws data and model, and the encoder where that is random.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    encoders: EncoderArgs,

    /// Encode by a small CLIP with random frozen weights: then all that is learned is learned from the mentions.
    #[arg(long, conflicts_with = "encoder")]
    random_encoder: bool,

    /// Write pairs of pictures and texts for `fissfuse pretrain` to DIR instead: scenes of the same emoji, none of the
    /// demo's (`make demo-encoder`). Goes with --round and --scenes alone.
    #[arg(long, value_name = "DIR", conflicts_with_all = OF_THE_DEMO)]
    pairs: Option<PathBuf>,

    /// Which pictures --pairs draws: each round has others.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "pairs", conflicts_with_all = OF_THE_DEMO)]
    round: u16,

    /// Scenes that --pairs draws; the other pictures are as many as go with them.
    #[arg(long, value_name = "N", default_value_t = PAIRS.scenes, requires = "pairs", conflicts_with_all = OF_THE_DEMO, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    scenes: usize,

    /// Training mentions, fewer of which make a quicker and worse model.
    #[arg(long, value_name = "N", default_value_t = Sizes::FULL.train, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    mentions: usize,

    /// Passes over the training mentions [default: as in configs/emoji.toml].
    #[arg(long)]
    epochs: Option<usize>,

    /// Read one modality only: how much of the task text or images tell by themselves.
    #[arg(long, value_name = "WHICH")]
    modalities: Option<Modalities>,

    /// Re-rank the result with a small random Llama too: it shows the way, its answers are chance.
    #[arg(long, conflicts_with = "llm")]
    kar: bool,

    /// Re-rank the result with this Llama too: a GGUF file or a Hugging Face directory.
    #[arg(long, value_name = "PATH")]
    llm: Option<PathBuf>,

    #[command(flatten)]
    device: DeviceArgs,
}

/// configs/emoji.toml as it was when this program was built.
const CONFIG: &str = include_str!("../../../configs/emoji.toml");

/// What the demo's encoder has learned from, at seed 0.
const PAIRS: PairCounts = PairCounts { scenes: 40_000, sentences: 24_000, alone: 8, held_out: 1000 };

pub fn run(args: Args) -> anyhow::Result<()> {
    let start = Instant::now();
    if let Some(folder) = &args.pairs {
        return write_pairs_of_encoder(folder, PAIRS.with_scenes(args.scenes), args.round);
    }
    let both = args.encoders.text_encoder.is_some() && args.encoders.image_encoder.is_some();
    anyhow::ensure!(!(both && args.random_encoder), "--random-encoder has nothing to encode: both encoders are given");
    let folder = |name: &str| args.out.join(name);
    if args.out.exists() {
        written::clear(&args.out, "demo")?;
    }
    fissfuse::files::write_whole(&folder("demo.toml"), |out| out.write_all(CONFIG.as_bytes()))?;
    // After each step, whatever came of it: a demo that is stopped can be begun again.
    let noted = |done: anyhow::Result<()>| written::note(&args.out).and(done);
    noted(Ok(()))?;

    println!("1. Data: emoji, their names and keywords from Unicode, scenes drawn by seed {}", args.seed);
    noted(demo::write(&folder("data"), Sizes { train: args.mentions, ..Sizes::FULL }, args.seed).map_err(Into::into))?;
    let show = |path: &Path| path.display().to_string();
    let own = folder("encoder");
    let [text, image] = [&args.encoders.text_encoder, &args.encoders.image_encoder]
        .map(|given| given.as_ref().or(args.encoders.encoder.as_ref()).unwrap_or(&own).clone());
    let ours: Vec<&str> = [("texts", &text), ("images", &image)]
        .into_iter()
        .filter(|(_, of)| **of == own)
        .map(|(what, _)| what)
        .collect();
    let of = ours.join(" and ");
    match (ours.is_empty(), args.random_encoder) {
        (true, _) => println!("2. Encoders: {} and {}", show(&text), show(&image)),
        (false, false) => {
            println!(
                "2. Encoder of {of}: a small CLIP that saw other scenes of these emoji (--encoder DIR takes another)"
            );
            encoder::write(&own)?;
        }
        (false, true) => {
            println!("2. Encoder of {of}: a small CLIP with random frozen weights");
            let dataset = Dataset::open(&folder("data"), Tolerance::Strict, &mut Skipped::default())?;
            let texts = demo::tokenizer_texts(&dataset)?;
            write_random(&own, random_clip(args.seed), texts.iter().map(String::as_str))?;
        }
    }
    noted(Ok(()))?;
    let [data, features, model, config, out] = ["data", "features", "model", "demo.toml", "eval"].map(folder);
    let data = ["--data".to_string(), show(&data)];
    let features_of = ["--features".to_string(), show(&features)];
    let encoders = match text == image {
        true => vec!["--encoder".to_string(), show(&text)],
        false => vec!["--text-encoder".to_string(), show(&text), "--image-encoder".into(), show(&image)],
    };
    // Small encoders are no work for either, and f32 gives the same model on every processor.
    let device = ["--device".into(), args.device.device.to_string()];
    let encode =
        [&encoders[..], &["--out".into(), show(&features), "--precision".into(), "f32".into()], &device].concat();
    let with_config = ["--config".to_string(), show(&config)];
    noted(subcommand("encode", [&data[..], &encode, &with_config].concat()))?;
    let mut train = [&data[..], &features_of, &with_config, &["--out".into(), show(&model)]].concat();
    train.extend(["--seed".into(), args.seed.to_string()]);
    train.extend(placed(&args.device));
    if let Some(epochs) = args.epochs {
        train.extend(["--epochs".into(), epochs.to_string()]);
    }
    if let Some(modalities) = args.modalities.and_then(|modalities| modalities.to_possible_value()) {
        train.extend(["--modalities".into(), modalities.get_name().into()]);
    }
    noted(subcommand("train", train))?;
    let trained = ["--model".to_string(), show(&model)];
    let device = placed(&args.device);
    let eval = ["--out".into(), show(&out)];
    noted(subcommand("eval", [&data[..], &features_of, &trained, &eval, &device].concat()))?;

    if args.kar {
        noted(rerank_by_chance(&args.out, args.seed, &args.device))?;
    }
    if let Some(llm) = &args.llm {
        // How far the model is to be believed is fitted where the gold entities may be looked at.
        let valid = folder("eval-valid");
        let eval = ["--split".into(), "valid".into(), "--out".into(), show(&valid)];
        noted(subcommand("eval", [&data[..], &features_of, &trained, &eval, &device].concat()))?;
        let how = ["--scoring", "logits", "--fuse", &show(&valid.join(RUN))];
        noted(rerank(&args.out, llm, &how, &args.device))?;
    }

    println!("\nOne mention it has never seen:");
    example(&folder("data"), &features, &EncoderPaths { text: Some(text), image: Some(image) }, &model)?;
    noted(page_of(&args.out, args.kar || args.llm.is_some()))?;
    println!("\nThe demo took {:.0} s. To go on, for instance:", start.elapsed().as_secs_f64());
    // The program may be where no shell looks for it.
    let program = std::env::current_exe().map_or("fissfuse".into(), |path| show(&path));
    let top = ["--top".to_string(), "3".into()];
    let link = [&[program.clone(), "link".into()], &data[..], &encoders, &features_of, &trained, &top].concat();
    println!(
        "  {} | {}",
        command_line(["head", "-3", &show(&folder("data").join("test.jsonl"))]),
        command_line(link.iter().map(String::as_str))
    );
    println!("  {} train --help    its settings, among them the paper's ablations", quoted(&program));
    println!("  docs/data.md             how to bring your own entities and mentions");
    Ok(())
}

/// Writes pictures and texts as the demo's encoder has learned from.
fn write_pairs_of_encoder(folder: &Path, counts: PairCounts, round: u16) -> anyhow::Result<()> {
    let bar = progress("pictures");
    let pictures = demo::write_pairs(folder, counts, round, 0, &bar)?;
    bar.finish_and_clear();
    println!("wrote {pictures} pictures and their texts to {}", folder.display());
    Ok(())
}

/// Writes the page of what the demo did.
fn page_of(folder: &Path, kar: bool) -> anyhow::Result<()> {
    let show = |name: &str| folder.join(name).display().to_string();
    let mut runs = vec![show("model"), show("eval")];
    runs.extend(kar.then(|| show("eval/run-kar.jsonl")));
    let rest = ["--data".into(), show("data"), "--title".into(), "Demo".into(), "--out".into(), show("report.html")];
    subcommand("report", [runs, rest.into()].concat())?;
    println!("open {} in a browser: it has curves, tables and examples", show("report.html"));
    Ok(())
}

/// Says what is run and runs it, as the shell would.
fn subcommand(name: &str, arguments: Vec<String>) -> anyhow::Result<()> {
    let words: Vec<String> = ["fissfuse".to_string(), name.to_string()].into_iter().chain(arguments).collect();
    println!("\n$ {}", command_line(words.iter().map(String::as_str)));
    Cli::try_parse_from(words)?.run()
}

fn random_clip(seed: u64) -> RandomClip {
    RandomClip {
        text_width: 512,
        vision_width: 128,
        projection: 256,
        layers: 1,
        image_size: 96,
        patch_size: 8,
        vocabulary: 8000,
        seed,
    }
}

/// Re-ranks what `eval` wrote by a small random Llama.
fn rerank_by_chance(folder: &Path, seed: u64, device: &DeviceArgs) -> anyhow::Result<()> {
    println!(
        "\nKAR: a small Llama with random weights re-ranks what is least sure. It knows nothing and answers by chance:"
    );
    println!("this shows the way that a real one takes (--llm DIR), and the accuracy after it means nothing.");
    let [data, run, model] = ["data", "eval/run.jsonl", "llama"].map(|name| folder.join(name));
    let mut skipped = Skipped::default();
    let dataset = Dataset::open(&data, Tolerance::Strict, &mut skipped)?;
    let mentions = dataset.mentions(Split::Test, &mut skipped)?;
    let rankings = Run::read(&run, &dataset, &mentions, Tolerance::Strict, &mut skipped)?.rankings;
    // Its tokenizer learns the words of the instructions that it will read.
    let texts = instructions(&rankings, &dataset, &kar::Settings::default())?;
    let config = LlamaConfig { vocab_size: 4096, ..Preset::Tiny.config() };
    llama::write_random(&model, &config, llama::Precision::F32, seed, texts.iter().map(String::as_str))?;
    // A random model's letters are improbable, and compared all the same.
    rerank(folder, &model, &["--debias", "--allow-worse", "--least-share", "0"], device)
}

/// The flags of what trains and evaluates.
fn placed(DeviceArgs { device, arithmetic }: &DeviceArgs) -> Vec<String> {
    let arithmetic = arithmetic.to_possible_value().map(|value| value.get_name().to_string());
    let arithmetic = arithmetic.into_iter().flat_map(|name| ["--arithmetic".into(), name]);
    ["--device".into(), device.to_string()].into_iter().chain(arithmetic).collect()
}

/// Re-ranks what `eval` wrote.
fn rerank(folder: &Path, llm: &Path, how: &[&str], device: &DeviceArgs) -> anyhow::Result<()> {
    let [data, run, out, report] =
        ["data", "eval/run.jsonl", "eval/run-kar.jsonl", "eval/kar.json"].map(|name| folder.join(name));
    let pairs = [("--data", &*data), ("--ranking", &run), ("--llm", llm), ("--out", &out), ("--report", &report)];
    let paths = pairs.iter().flat_map(|(flag, path)| [flag.to_string(), path.display().to_string()]);
    let rest = ["--gate", "0.2"].iter().chain(how).map(|word| word.to_string());
    subcommand("rerank", paths.chain(rest).chain(["--device".into(), device.device.to_string()]).collect())
}

/// Links the first test mention and prints it with its three best entities; one mention is soonest linked on the host.
fn example(data: &Path, features: &Path, encoders: &EncoderPaths, model: &Path) -> anyhow::Result<()> {
    let mut skipped = Skipped::default();
    let dataset = Dataset::open(data, Tolerance::Strict, &mut skipped)?;
    let batcher = batcher(&dataset, features)?;
    let (trained, encoders) =
        (TrainedModel::read(model)?, Encoders::open(encoders, batcher.store().manifest().precision)?);
    let mut linker = Linker::new((&trained.model, None), &batcher, &dataset, &encoders, Keeping::default())?;
    let mentions = dataset.mentions(Split::Test, &mut skipped)?;
    let mention: &Mention = mentions.first().context("the test split is empty")?;
    let linked = linker.link(mention, 3, &ProgressBar::hidden())?;
    let image = mention.image.as_deref().unwrap_or("no image");
    println!("  \"{}\" in \"{}\" ({image})", mention.mention, mention.sentence);
    let gold = mention.gold.map(|gold| dataset.entities()[gold as usize].qid.as_str());
    for (rank, link) in linked.links.iter().enumerate() {
        let right = if gold == Some(link.qid.as_str()) { "  <- right" } else { "" };
        let percent = 100.0 * link.confidence;
        println!("  {}. {} ({})  {percent:.1} %{right}", rank + 1, link.name, link.qid);
    }
    Ok(())
}
