//! The `fissfuse-bench` command: how much work the model is and how fast this machine does it.

mod data;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::builder::RangedU64ValueParser;
use clap::{Parser, Subcommand, ValueEnum};
use fissfuse::device::cuda::Arithmetic;
use fissfuse::device::{DeviceChoice, Gpu, describe};
use fissfuse::encoder;
use fissfuse::encoder::clip::ClipConfig;
use fissfuse::encoder::{ImageEncoder, Precision, TextEncoder};
use fissfuse::llama;
use fissfuse::model::{self, ModelConfig};
use fissfuse::ops::Cost;
use fissfuse::profile::counts::{self, KernelCount};
use fissfuse::profile::encoding::{self, EncodingRate};
use fissfuse::profile::flops::{EncoderCost, StepCost, training_step};
use fissfuse::profile::kar::{KarBench, KarRow};
use fissfuse::profile::latency::{Latency, LatencyBench};
use fissfuse::profile::layers::LayerBench;
use fissfuse::profile::products::{ENCODER_PRODUCTS, ProductRate, product_rate};
use fissfuse::profile::step::TrainingStep;
use fissfuse::profile::synthetic::Shape;
use fissfuse::profile::{Summary, Timing, peak_memory};
use fissfuse::report::table;
use serde_json::json;

/// Count the model's work and time it, on features and weights drawn by seed.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
struct Cli {
    /// Threads for the arithmetic [default: all cores].
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,

    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Latency(LatencyArgs),
    Flops(FlopsArgs),
    Step(StepArgs),
    Layer(LayerArgs),
    Kernels(KernelsArgs),
    Kar(KarArgs),
    Ceiling(CeilingArgs),
    Encode(EncodeArgs),
    Candidates(data::CandidatesArgs),
    Store(data::StoreArgs),
    #[command(hide = true)]
    StoreOnce(data::StoreOnceArgs),
}

/// Time of encoding texts, which are cut into tokens before, and prepared images.
#[derive(clap::Args)]
struct EncodeArgs {
    /// Hugging Face directory of the text encoder, if texts are to be encoded.
    #[arg(long, value_name = "DIR", requires = "texts")]
    text_encoder: Option<PathBuf>,

    /// File of texts, one a line.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,

    /// Most tokens of a text.
    #[arg(long, default_value_t = 64, value_parser = at_least_one())]
    max_tokens: usize,

    /// Hugging Face directory of the image encoder, if images are to be encoded.
    #[arg(long, value_name = "DIR")]
    image_encoder: Option<PathBuf>,

    /// Images of a run, drawn at random.
    #[arg(long, default_value_t = 32, value_parser = at_least_one())]
    images: usize,

    /// What the encoders compute with, f32 or bf16 [default: bf16 if the processor has instructions for it].
    #[arg(long, value_name = "TYPE")]
    precision: Option<Precision>,

    /// Timed runs of each.
    #[arg(long, default_value_t = 5, value_parser = at_least_one())]
    runs: usize,
}

/// Rates of the encoders' bf16 products beside the processor's ceiling, measured in turn.
#[derive(clap::Args)]
struct CeilingArgs {
    /// Timed runs of each product.
    #[arg(long, default_value_t = 20, value_parser = at_least_one())]
    runs: usize,
}

/// Time from a mention's features to the scores of its prepared candidates.
#[derive(clap::Args)]
struct LatencyArgs {
    #[command(flatten)]
    work: WorkArgs,

    /// Mentions at once; each value is a row.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    batch: Vec<usize>,

    /// Entities of the index from which candidates are drawn.
    #[arg(long, default_value_t = 2000, value_parser = at_least_one())]
    entities: usize,

    /// Keep the index in f16.
    #[arg(long)]
    half: bool,

    /// Timed runs of each row.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one())]
    runs: usize,

    #[command(flatten)]
    device: DeviceArgs,
}

/// Where to compute.
#[derive(clap::Args)]
struct DeviceArgs {
    /// What computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,

    /// On CUDA devices: products of 16-bit values on tensor cores, or of f32.
    #[arg(long, value_name = "KIND", default_value = "mixed")]
    arithmetic: Arithmetic,
}

/// FLOPs, bytes and parameters of a training step by operation, as executed and as a textbook would spend them.
///
/// A textbook implementation pads every sequence, forms keys and values of every pair, and computes each candidate of
/// each mention anew.
#[derive(clap::Args)]
struct FlopsArgs {
    #[command(flatten)]
    work: WorkArgs,

    /// Hugging Face directory whose config.json gives the encoder's sizes [default: those of CLIP ViT-B/32].
    #[arg(long, value_name = "DIR")]
    encoder: Option<PathBuf>,
}

/// Time of a training step: forward, backward, AdamW.
#[derive(clap::Args)]
struct StepArgs {
    #[command(flatten)]
    work: WorkArgs,

    /// Timed steps.
    #[arg(long, default_value_t = 20, value_parser = at_least_one())]
    runs: usize,

    /// Steps before those that are timed.
    #[arg(long, default_value_t = 2)]
    warmup: usize,

    #[command(flatten)]
    device: DeviceArgs,
}

/// Time of layers of CLIP ViT-B/32's vision tower.
#[derive(clap::Args)]
struct LayerArgs {
    /// Images of a run.
    #[arg(long, default_value_t = 8, value_parser = at_least_one())]
    images: usize,

    /// Layers of a run.
    #[arg(long, default_value_t = 1, value_parser = at_least_one())]
    layers: usize,

    /// Timed runs.
    #[arg(long, default_value_t = 20, value_parser = at_least_one())]
    runs: usize,

    /// Runs before those that are timed.
    #[arg(long, default_value_t = 2)]
    warmup: usize,

    /// What computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,

    /// What the layers compute with, f32 or bf16 [default: the faster one].
    #[arg(long, value_name = "TYPE")]
    precision: Option<encoder::Precision>,
}

/// What cusim counted of each kernel: FLOPs, bytes that its launches touch and all that they load and store, how well these
/// coalesce, bank conflicts.
///
/// Count a step by `CUSIM_COUNT=counts.json LD_LIBRARY_PATH=target/cusim fissfuse-bench step --device cuda --runs 1
/// --warmup 0`.
#[derive(clap::Args)]
struct KernelsArgs {
    /// File that cusim wrote.
    #[arg(long, value_name = "FILE")]
    counts: PathBuf,
}

/// What sharing prefixes, reading logits, and the gate each save of a re-ranking's time, with a random Llama.
///
/// The instructions and the margins are those of a real run, such as the demo's.
#[derive(clap::Args)]
struct KarArgs {
    /// Folder of the dataset.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Run file of the dataset's test split.
    #[arg(long, value_name = "FILE")]
    ranking: PathBuf,

    /// Mentions, the first of the run file.
    #[arg(long, default_value_t = 500, value_parser = at_least_one())]
    mentions: usize,

    /// Sizes of the Llama.
    #[arg(long, value_enum, default_value = "1b")]
    preset: llama::Preset,

    /// Its layers, so that it ends in some minutes on a CPU; 0 takes all.
    #[arg(long, default_value_t = 1)]
    layers: usize,

    /// What its weights are kept in.
    #[arg(long, value_enum, default_value = "bf16")]
    precision: llama::Precision,

    /// Most tokens of an answer; a random model does not end before.
    #[arg(long, default_value_t = 8, value_parser = at_least_one())]
    max_new_tokens: usize,

    /// The gate's margin.
    #[arg(long, default_value_t = 0.2)]
    gate: f32,

    /// Draws the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    device: DeviceArgs,
}

/// Sizes of a step in the paper.
#[derive(Clone, Copy, ValueEnum)]
enum Preset {
    /// 128 mentions of 10 candidates.
    Wikidiverse,
    /// 128 mentions of 100 candidates.
    Wikimel,
}

/// Sizes of the work and of the model.
#[derive(clap::Args)]
struct WorkArgs {
    /// Sizes of one of the paper's datasets; the flags below override them.
    #[arg(long, value_enum, default_value_t = Preset::Wikidiverse)]
    preset: Preset,

    /// Mentions of a step.
    #[arg(long, value_parser = at_least_one())]
    mentions: Option<usize>,

    /// Candidates of each mention.
    #[arg(long, value_parser = at_least_one())]
    candidates: Option<usize>,

    /// Mean length of a text in tokens.
    #[arg(long, value_parser = at_least_one())]
    mean_tokens: Option<usize>,

    /// Longest text in tokens, to which a textbook pads.
    #[arg(long, value_parser = at_least_one())]
    max_tokens: Option<usize>,

    /// Patches of an image.
    #[arg(long, value_parser = at_least_one())]
    patches: Option<usize>,

    /// Hidden width of the network.
    #[arg(long, default_value_t = 100)]
    d: usize,

    /// Cross-attention heads.
    #[arg(long, default_value_t = 1)]
    heads: usize,

    /// Draws features, weights and candidates.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl WorkArgs {
    fn shape(&self) -> anyhow::Result<Shape> {
        let preset = match self.preset {
            Preset::Wikidiverse => Shape::WIKIDIVERSE,
            Preset::Wikimel => Shape::WIKIMEL,
        };
        let shape = Shape {
            mentions: self.mentions.unwrap_or(preset.mentions),
            candidates: self.candidates.unwrap_or(preset.candidates),
            mean_tokens: self.mean_tokens.unwrap_or(preset.mean_tokens),
            max_tokens: self.max_tokens.unwrap_or(preset.max_tokens),
            patches: self.patches.unwrap_or(preset.patches),
        };
        shape.check()?;
        Ok(shape)
    }

    fn config(&self) -> ModelConfig {
        ModelConfig { d: self.d, heads: self.heads, ..ModelConfig::default() }
    }
}

/// Parses counts that cannot be zero.
fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    if let Some(threads) = cli.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    match cli.command {
        Command::Latency(args) => latency(args, cli.json),
        Command::Flops(args) => flops(args, cli.json),
        Command::Step(args) => step(args, cli.json),
        Command::Layer(args) => layer(args, cli.json),
        Command::Kernels(args) => kernels(args, cli.json),
        Command::Candidates(args) => data::candidates(args, cli.json),
        Command::Store(args) => data::store(args, cli.json),
        Command::StoreOnce(args) => data::store_once(args),
        Command::Kar(args) => kar(args, cli.json),
        Command::Ceiling(args) => ceiling(args, cli.json),
        Command::Encode(args) => encode(args, cli.json),
    }
}

impl DeviceArgs {
    fn open(&self) -> fissfuse::Result<Option<Gpu>> {
        self.device.open(self.arithmetic)
    }
}

fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value).context("cannot be written as JSON")?);
    Ok(())
}

fn machine(gpu: Option<&Gpu>) -> String {
    format!("fissfuse {} ({}), {}", env!("CARGO_PKG_VERSION"), env!("FISSFUSE_COMMIT"), describe(gpu))
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3}", 1e3 * seconds)
}

fn latency(args: LatencyArgs, json: bool) -> anyhow::Result<()> {
    let (shape, config) = (args.work.shape()?, args.work.config());
    let precision = if args.half { model::Precision::Half } else { model::Precision::Full };
    let candidates = args.work.candidates.unwrap_or(100);
    let gpu = args.device.open()?;
    let mut bench = LatencyBench::new(config, shape, (args.entities, precision), args.work.seed, gpu.as_ref())?;
    let measure = |&mentions: &usize| bench.measure(mentions, candidates, args.runs.div_ceil(mentions));
    let rows: Vec<Latency> = args.batch.iter().map(measure).collect::<fissfuse::Result<_>>()?;
    if json {
        let index = if args.half { "f16" } else { "f32" };
        let (entities, peak) = (args.entities, peak_memory());
        let report = json!({"machine": machine(gpu.as_ref()), "entities": entities, "index": index, "latency": rows,
            "peak_memory_bytes": peak});
        return print_json(&report);
    }
    println!("{}; {candidates} candidates of {} prepared entities", machine(gpu.as_ref()), args.entities);
    let header = ["mentions", "runs", "p50 ms", "p90 ms", "p99 ms", "mentions/s"];
    let row = |row: &Latency| {
        let Summary { runs, p50, p90, p99, .. } = row.seconds;
        let [p50, p90, p99] = [p50, p90, p99].map(milliseconds);
        vec![row.mentions.to_string(), runs.to_string(), p50, p90, p99, format!("{:.0}", row.mentions_per_second)]
    };
    println!("{}", table(&header, rows.iter().map(row)));
    print_peak(peak_memory());
    Ok(())
}

fn flops(args: FlopsArgs, json: bool) -> anyhow::Result<()> {
    let (shape, config) = (args.work.shape()?, args.work.config());
    let step = training_step(config, shape, args.work.seed)?;
    let clip = match &args.encoder {
        Some(folder) => ClipConfig::read(folder)?,
        None => ClipConfig { projection_dim: 512, ..ClipConfig::default() },
    };
    let encoders = EncoderCost::per_sample(&clip, &shape);
    if json {
        return print_json(&json!({"machine": machine(None), "step": step, "encoders_per_sample": encoders}));
    }
    print_flops(&step, &encoders);
    Ok(())
}

fn print_flops(step: &StepCost, encoders: &EncoderCost) {
    let Shape { mentions, candidates, mean_tokens, max_tokens, patches } = step.shape;
    println!("A training step of {mentions} mentions x {candidates} candidates, {} parameters;", step.parameters);
    println!("texts of {mean_tokens} tokens in the mean and {max_tokens} at most, images of {patches} patches.\n");
    let million = |flops: u64| format!("{:.2}", flops as f64 / mentions as f64 / 1e6);
    let row = |name: &str, calls: String, cost: &Cost| {
        let ratio = cost.textbook() as f64 / cost.flops().max(1) as f64;
        let bytes = cost.forward_bytes + cost.backward_bytes;
        let [forward, backward] = [cost.forward, cost.backward].map(million);
        let [all, textbook, bytes] = [cost.flops(), cost.textbook(), bytes].map(million);
        vec![name.to_string(), calls, forward, backward, all, textbook, format!("{ratio:.1}"), bytes]
    };
    let rows = step.ops.iter().map(|op| row(op.op, op.calls.to_string(), &op.cost));
    let header = ["per sample", "calls", "forward MFLOP", "backward", "both", "textbook", "ratio", "least MB moved"];
    let total = row("all", String::new(), &step.total);
    println!("{}\n", table(&header, rows.chain([total])));
    let encoded = encoders.text + encoders.image;
    let textbook = encoders.textbook_text + encoders.image;
    let with = |flops: u64, encoders: u64| million(flops + encoders * mentions as u64);
    let (executed, spent) = (step.total.flops(), step.total.textbook());
    let per_sample = |flops: u64| million(flops * mentions as u64);
    let rows = [
        ("encoder, texts", per_sample(encoders.text), per_sample(encoders.textbook_text)),
        ("encoder, images", per_sample(encoders.image), per_sample(encoders.image)),
        ("training, features cached", million(executed), million(spent)),
        ("training with encoders", with(executed, encoded), with(spent, textbook)),
        ("inference, all prepared", per_sample(step.prepared), million(step.total.textbook_forward)),
        ("inference, nothing prepared", million(step.total.forward), million(step.total.textbook_forward)),
        ("inference with encoders", with(step.total.forward, encoded), with(step.total.textbook_forward, textbook)),
    ];
    let rows = rows.map(|(name, executed, textbook)| vec![name.to_string(), executed, textbook]);
    println!("{}", table(&["MFLOP per sample", "executed", "textbook"], rows));
}

fn step(args: StepArgs, json: bool) -> anyhow::Result<()> {
    let (shape, config) = (args.work.shape()?, args.work.config());
    let flops = training_step(config.clone(), shape, args.work.seed)?.total.flops();
    let gpu = args.device.open()?;
    let mut step = TrainingStep::new(config, shape, args.work.seed, gpu.as_ref())?;
    let timing = Timing::of(args.warmup, args.runs, || step.run())?.summary();
    let rate = flops as f64 / timing.p50 / 1e9;
    if json {
        return print_json(
            &json!({"machine": machine(gpu.as_ref()), "shape": shape, "seconds": timing, "flops": flops}),
        );
    }
    println!("{}; {} mentions x {} candidates", machine(gpu.as_ref()), shape.mentions, shape.candidates);
    let row = [timing.p50, timing.min, timing.p90, timing.max].map(milliseconds).into_iter();
    let rest = [format!("{:.0}", shape.mentions as f64 / timing.p50), format!("{rate:.0}")];
    let header = ["runs", "median ms", "min ms", "p90 ms", "max ms", "samples/s", "GFLOP/s"];
    println!("{}", table(&header, [[timing.runs.to_string()].into_iter().chain(row).chain(rest).collect()]));
    Ok(())
}

fn layer(args: LayerArgs, json: bool) -> anyhow::Result<()> {
    let gpu = args.device.open(Arithmetic::Mixed)?;
    let precision = args.precision.unwrap_or_else(|| encoder::Compute::fastest(gpu.as_ref()));
    let mut bench = LayerBench::new(args.layers, args.images, encoder::Compute { precision, gpu: gpu.clone() })?;
    let timing = Timing::of(args.warmup, args.runs, || bench.run())?.summary();
    let (flops, bytes) = (bench.flops(), bench.least_bytes());
    if json {
        let (images, layers) = (args.images, args.layers);
        let report = json!({"machine": machine(gpu.as_ref()), "images": images, "layers": layers, "precision": precision,
            "seconds": timing, "flops": flops, "least_bytes": bytes});
        return print_json(&report);
    }
    println!("{}; {} layers of ViT-B/32, {} images, {precision}", machine(gpu.as_ref()), args.layers, args.images);
    let [median, min, max] = [timing.p50, timing.min, timing.max].map(milliseconds);
    let rates = [flops as f64 / timing.p50 / 1e9, flops as f64 / 1e9, bytes as f64 / 1e6];
    let [rate, flops, bytes] = rates.map(|x| format!("{x:.1}"));
    let header = ["runs", "median ms", "min ms", "max ms", "GFLOP/s", "GFLOP", "least MB moved"];
    println!("{}", table(&header, [vec![timing.runs.to_string(), median, min, max, rate, flops, bytes]]));
    Ok(())
}

fn kernels(args: KernelsArgs, json: bool) -> anyhow::Result<()> {
    let kernels = counts::read(&args.counts)?;
    if json {
        return print_json(&json!({"kernels": kernels}));
    }
    let header = [
        "kernel",
        "launches",
        "GFLOP",
        "on tensor cores",
        "MB touched",
        "MB loaded",
        "coalesced %",
        "MB stored",
        "coalesced %",
        "bank passes x",
        "active lanes",
    ];
    let row = |k: &KernelCount| {
        let giga = |flops: u64| format!("{:.3}", flops as f64 / 1e9);
        let mega = |sectors: u64| format!("{:.1}", (32 * sectors) as f64 / 1e6);
        let percent = |share: f64| format!("{:.0}", 100.0 * share);
        let conflicts = k.shared_load.conflicts().max(k.shared_store.conflicts());
        vec![
            k.kernel.clone(),
            k.launches.to_string(),
            giga(k.flops),
            giga(k.tensor_flops()),
            format!("{:.1}", k.once_bytes() as f64 / 1e6),
            mega(k.global_load.sectors),
            percent(k.global_load.efficiency()),
            mega(k.global_store.sectors),
            percent(k.global_store.efficiency()),
            format!("{conflicts:.2}"),
            format!("{:.1}", k.active_lanes),
        ]
    };
    println!("{}", table(&header, kernels.iter().map(row)));
    let once = kernels.iter().map(KernelCount::once_bytes).sum::<u64>() as f64 / 1e6;
    println!("touched, each sector once a launch: {once:.1} MB in all");
    Ok(())
}

fn ceiling(args: CeilingArgs, json: bool) -> anyhow::Result<()> {
    let rates = ENCODER_PRODUCTS.iter().map(|&shape| product_rate(shape, args.runs));
    let rates: Vec<ProductRate> = rates.collect::<fissfuse::Result<_>>()?;
    if json {
        return print_json(&json!({"machine": machine(None), "products": rates}));
    }
    println!("{}", machine(None));
    let row = |rate: &ProductRate| {
        let ProductRate { shape, flops, ceiling } = rate;
        let giga = |flops: &f64| format!("{:.0}", flops / 1e9);
        let sizes = [shape.rows, shape.outputs, shape.inputs].map(|n| n.to_string());
        let rates = [giga(flops), giga(ceiling), format!("{:.0}", 100.0 * flops / ceiling)];
        [shape.name.to_string()].into_iter().chain(sizes).chain(rates).collect()
    };
    println!("{}", table(&["product", "rows", "outputs", "inputs", "GFLOP/s", "ceiling", "%"], rates.iter().map(row)));
    Ok(())
}

fn kar(args: KarArgs, json: bool) -> anyhow::Result<()> {
    let gpu = args.device.open()?;
    let all = args.preset.config().layers;
    let layers = if args.layers == 0 { all } else { args.layers };
    let config = llama::LlamaConfig { layers, ..args.preset.config() };
    let mut bench =
        KarBench::new(&args.data, &args.ranking, args.mentions, &config, args.precision, args.seed, gpu.as_ref())?;
    let rows = bench.measure(args.max_new_tokens, args.gate)?;
    if json {
        let model = json!({"layers": layers, "of_layers": all, "precision": args.precision.to_string()});
        return print_json(&json!({"machine": machine(gpu.as_ref()), "model": model, "rows": rows}));
    }
    println!("{}", machine(gpu.as_ref()));
    println!(
        "{} mentions, random weights in {}, {layers} of {all} layers of the shape",
        bench.mentions(),
        args.precision
    );
    let header = ["", "s", "times faster", "calls", "prompt tokens", "computed", "new tokens", "mentions/s"];
    let base = rows.first().map_or(0.0, |row| row.spent.seconds);
    let row = |KarRow { name, spent }: &KarRow| {
        vec![
            name.clone(),
            format!("{:.1}", spent.seconds),
            format!("{:.2}", base / spent.seconds),
            spent.calls.to_string(),
            spent.prompt_tokens.to_string(),
            spent.computed_tokens.to_string(),
            spent.new_tokens.to_string(),
            format!("{:.1}", bench.mentions() as f64 / spent.seconds),
        ]
    };
    println!("{}", table(&header, rows.iter().map(row)));
    Ok(())
}

fn encode(args: EncodeArgs, json: bool) -> anyhow::Result<()> {
    let precision = args.precision.unwrap_or_else(Precision::fastest);
    let mut rates: Vec<(&str, EncodingRate)> = Vec::new();
    if let (Some(folder), Some(file)) = (&args.text_encoder, &args.texts) {
        let encoder = TextEncoder::open(folder, precision)?;
        let text = fissfuse::files::read_text(file)?;
        let texts: Vec<&str> = text.lines().collect();
        rates.push(("texts", encoding::texts(&encoder, &texts, args.max_tokens, args.runs)?));
    }
    if let Some(folder) = &args.image_encoder {
        let encoder = ImageEncoder::open(folder, precision)?;
        rates.push(("images", encoding::images(&encoder, args.images, args.runs)?));
    }
    if json {
        let rates: serde_json::Map<_, _> = rates.into_iter().map(|(name, rate)| (name.into(), json!(rate))).collect();
        return print_json(&json!({"machine": machine(None), "precision": precision, "rates": rates}));
    }
    println!("{}; {precision}", machine(None));
    let row = |(name, rate): &(&str, EncodingRate)| {
        let Summary { min, p50, max, .. } = rate.seconds;
        let times = [p50, min, max].map(milliseconds);
        let counts = [name.to_string(), rate.count.to_string(), rate.tokens.to_string()];
        counts.into_iter().chain(times).chain([format!("{:.1}", rate.per_second)]).collect()
    };
    let header = ["encoded", "a run", "tokens or patches", "median ms", "min ms", "max ms", "per second"];
    println!("{}", table(&header, rates.iter().map(row)));
    Ok(())
}

fn print_peak(bytes: Option<u64>) {
    if let Some(bytes) = bytes {
        println!("memory at its peak: {} MB", bytes / 1_000_000);
    }
}
