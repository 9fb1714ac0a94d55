//! The `fissfuse-bench` command: how much work the models are, how fast this machine does it, and whether that changed.

// Over the standard library's, which panic when nobody listens.
#[macro_use(eprintln, print, println)]
extern crate fissfuse;

mod batch;
mod ceiling;
mod compare;
mod data;
mod decode;
mod encode;
mod flops;
mod kar;
mod kernels;
mod latency;
mod layer;
mod llm;
mod ops;
mod output;
mod pretrain;
mod results;
mod room;
mod scan;
mod self_test;
mod session;
mod step;
mod values;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use fissfuse::device::cpu::keep_freed_memory;
use fissfuse::files::{self, Named};
use fissfuse::profile::comparison::{compare, expect_rows_once};
use fissfuse::profile::measurement::Measurements;
use fissfuse::{terminal, trace};
use indicatif::ProgressBar;

use compare::{Findings, Program, arguments_without, interleave, this, thresholds};
use output::Format;
use session::{SamplingArgs, Session};

/// Count the models' work and time it, on features and weights drawn by seed.
///
/// Sizes take lists and ranges, each value of which is a row: 1,8-512*2. Exits with 3 if a comparison finds something slower.
#[derive(Parser)]
#[command(version, about, propagate_version = true)]
struct Cli {
    /// Threads for the arithmetic [default: all cores].
    #[arg(long, global = true, value_name = "N", value_parser = threads())]
    threads: Option<usize>,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    comparison: ComparisonArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Format,

    /// Also write them to this file as JSON, with every sample; --compare and `fissfuse report` read it.
    #[arg(long, global = true, value_name = "FILE")]
    save: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "Comparison")]
struct ComparisonArgs {
    /// Compare with a file that --save wrote; a verdict for each row.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "interleave")]
    compare: Option<PathBuf>,

    /// Compare with another fissfuse-bench by running both in turn: it finds differences that files of different minutes hide.
    #[arg(long, global = true, value_name = "PROGRAM", conflicts_with = "save")]
    interleave: Option<PathBuf>,

    /// When a difference counts; configs/bench-thresholds.toml has the usual values.
    #[arg(long, global = true, value_name = "FILE")]
    thresholds: Option<PathBuf>,

    /// Say why of each verdict.
    #[arg(long, global = true)]
    explain: bool,

    /// Exit with 4 if no verdict could be given.
    #[arg(long, global = true)]
    strict: bool,
}

#[derive(Subcommand)]
enum Command {
    Latency(latency::LatencyArgs),
    Flops(flops::FlopsArgs),
    Step(step::StepArgs),
    Batch(batch::BatchArgs),
    Pretrain(pretrain::PretrainArgs),
    Ops(ops::OpsArgs),
    Kernels(kernels::KernelsArgs),
    CompareNcu(kernels::CompareNcuArgs),
    Encode(encode::EncodeArgs),
    Layer(layer::LayerArgs),
    Llm(llm::LlmArgs),
    Decode(decode::DecodeArgs),
    Kar(kar::KarArgs),
    Store(data::StoreArgs),
    Simulate(data::SimulateArgs),
    Candidates(data::CandidatesArgs),
    Scan(scan::ScanArgs),
    Ceiling(ceiling::CeilingArgs),
    SelfTest(self_test::SelfTestArgs),
    Results(results::ResultsArgs),
    #[command(hide = true)]
    StoreOnce(data::StoreOnceArgs),
}

/// Flags of a comparison, which the programs that are compared do not get; `true` stands beside those with a value.
const OF_COMPARISONS: [(&str, bool); 6] = [
    ("--compare", true),
    ("--interleave", true),
    ("--thresholds", true),
    ("--output", true),
    ("--explain", false),
    ("--strict", false),
];

impl Command {
    /// What it reads, and by which flags.
    fn reads(&self) -> Vec<Named<'_>> {
        let named: Vec<(&'static str, Option<&PathBuf>)> = match self {
            Command::Latency(args) => vec![("--encoder", args.encoder.as_ref())],
            Command::Flops(args) => vec![("--encoder", args.encoder.as_ref()), ("--counts", args.counts.as_ref())],
            Command::Kernels(args) => vec![("--counts", args.counts.as_ref())],
            Command::CompareNcu(args) => vec![("FILE.csv", args.page.as_ref()), ("--counts", args.counts.as_ref())],
            Command::Encode(args) => vec![
                ("--text-encoder", args.text_encoder.as_ref()),
                ("--texts", args.texts.as_ref()),
                ("--image-encoder", args.image_encoder.as_ref()),
            ],
            Command::Pretrain(args) => vec![("--config", args.config.as_ref())],
            Command::Llm(args) => vec![("--model", Some(&args.model))],
            Command::Kar(args) => vec![("--data", Some(&args.data)), ("--ranking", Some(&args.ranking))],
            Command::Results(args) => vec![("DIR", Some(&args.folder)), ("--predictions", Some(&args.predictions))],
            _ => Vec::new(),
        };
        named.into_iter().filter_map(|(name, path)| Some((name, path?.as_path()))).collect()
    }
}

/// Parses counts of threads; more than any machine has cores would only use up its memory.
fn threads() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=4096)
}

/// Parses counts that cannot be zero.
fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

fn main() -> ExitCode {
    keep_freed_memory();
    trace::listen();
    let mut code = 0;
    let ended = terminal::run(|| run(terminal::parse::<Cli>(), &mut code));
    if ended == ExitCode::SUCCESS { ExitCode::from(code) } else { ended }
}

/// Does what was asked for. The exit code is set before anything is printed, so that it holds where nobody reads that.
fn run(cli: Cli, code: &mut u8) -> anyhow::Result<()> {
    if let Some(threads) = cli.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    cli.comparison.check()?;
    check_save(&cli)?;
    let thresholds = thresholds(cli.comparison.thresholds.as_deref())?;
    let ComparisonArgs { compare: earlier, interleave: other, explain, strict, .. } = cli.comparison;
    let format = cli.output.output;
    if let Some(path) = other {
        let arguments = arguments_without(&OF_COMPARISONS);
        let bar = ProgressBar::new_spinner();
        let mut progress = |round| bar.set_message(format!("round {round} of {} at most", thresholds.max_rounds));
        let found =
            interleave(&Program { path, arguments: arguments.clone() }, &this(arguments)?, &thresholds, &mut progress)?;
        bar.finish_and_clear();
        *code = found.code(strict);
        print!("{}", found.text(format, explain)?);
        return Ok(());
    }
    // Before anything is measured: a file that cannot be compared with wastes the run.
    let earlier = earlier.map(|file| Measurements::read(&file)).transpose()?;
    earlier.as_ref().map_or(Ok(()), expect_rows_once)?;
    let mut session = Session::new(cli.sampling, earlier);
    let done = measure(&mut session, cli.command);
    let (found, earlier) = session.end();
    let Some(found) = found.filter(|found| !found.results.is_empty()) else { return done.map(|done| *code = done) };
    // What was measured before an error is worth keeping, and a file outlasts a terminal that nobody reads.
    cli.output.save.map_or(Ok(()), |file| found.write(&file))?;
    let compared = match (&done, earlier) {
        (Ok(_), Some(earlier)) => Some(compare(&earlier, &found, &thresholds).map(Findings)),
        _ => None,
    };
    *code = match (&done, &compared) {
        (Ok(_), Some(Ok(found))) => found.code(strict),
        (Ok(done), None) => *done,
        _ => 1,
    };
    match compared {
        Some(Ok(verdicts)) => print!("{}", output::compared(&found, &verdicts, format, explain)?),
        Some(Err(error)) => {
            print!("{}", output::text(&found, format)?);
            return Err(error.into());
        }
        None => print!("{}", output::text(&found, format)?),
    }
    done.map(drop)
}

impl ComparisonArgs {
    /// Refuses flags of a comparison where there is none.
    fn check(&self) -> anyhow::Result<()> {
        let given =
            [("--thresholds", self.thresholds.is_some()), ("--explain", self.explain), ("--strict", self.strict)];
        let given =
            given.iter().find(|(_, given)| *given).filter(|_| self.compare.is_none() && self.interleave.is_none());
        match given {
            Some((flag, _)) => bail!("{flag} is of a comparison: add --compare FILE or --interleave PROGRAM"),
            None => Ok(()),
        }
    }
}

/// Refuses a file to save to that is read, or that cannot be written.
fn check_save(cli: &Cli) -> anyhow::Result<()> {
    let Some(save) = &cli.output.save else { return Ok(()) };
    let ComparisonArgs { compare, thresholds, .. } = &cli.comparison;
    let mut reads = cli.command.reads();
    reads.extend(compare.as_deref().map(|path| ("--compare", path)));
    reads.extend(thresholds.as_deref().map(|path| ("--thresholds", path)));
    files::keep_apart(&reads, &[("--save", save)])?;
    Ok(files::expect_file_at(save)?)
}

fn measure(session: &mut Session, command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Latency(args) => latency::latency(args, session)?,
        Command::Flops(args) => flops::flops(args, session)?,
        Command::Step(args) => step::step(args, session)?,
        Command::Pretrain(args) => pretrain::pretrain(args, session)?,
        Command::Ops(args) => ops::ops(args, session)?,
        Command::Kernels(args) => kernels::kernels(args, session)?,
        Command::CompareNcu(args) => kernels::compare_ncu(args, session)?,
        Command::Encode(args) => encode::encode(args, session)?,
        Command::Layer(args) => layer::layer(args, session)?,
        Command::Llm(args) => llm::llm(args, session)?,
        Command::Decode(args) => decode::decode(args, session)?,
        Command::Kar(args) => kar::kar(args, session)?,
        Command::Store(args) => data::store(args, session)?,
        Command::Simulate(args) => data::write_simulated(args)?,
        Command::Candidates(args) => data::candidates(args, session)?,
        Command::Batch(args) => batch::batch(args, session)?,
        Command::Scan(args) => scan::scan(args, session)?,
        Command::Ceiling(args) => ceiling::ceiling(args, session)?,
        Command::SelfTest(args) => return self_test::self_test(args, session),
        Command::Results(args) => results::results(args)?,
        Command::StoreOnce(args) => data::store_once(args)?,
    }
    Ok(0)
}
