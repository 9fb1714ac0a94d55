//! The `fissfuse-bench` command: how much work the models are, how fast this machine does it, and whether that changed.

// Over the standard library's, which panic when nobody listens.
#[macro_use(eprintln, print, println)]
extern crate fissfuse;

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
mod results;
mod self_test;
mod session;
mod step;
mod values;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use fissfuse::profile::comparison::compare;
use fissfuse::profile::measurement::Measurements;
use fissfuse::terminal;
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
    #[arg(long, global = true, value_name = "N")]
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
    Ops(ops::OpsArgs),
    Kernels(kernels::KernelsArgs),
    CompareNcu(kernels::CompareNcuArgs),
    Encode(encode::EncodeArgs),
    Layer(layer::LayerArgs),
    Llm(llm::LlmArgs),
    Decode(decode::DecodeArgs),
    Kar(kar::KarArgs),
    Store(data::StoreArgs),
    Candidates(data::CandidatesArgs),
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

/// Parses counts that cannot be zero.
fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

fn main() -> ExitCode {
    let mut code = 0;
    let ended = terminal::run(|| {
        code = run(Cli::parse())?;
        Ok(())
    });
    if ended == ExitCode::SUCCESS { ExitCode::from(code) } else { ended }
}

/// The exit code of what was asked for.
fn run(cli: Cli) -> anyhow::Result<u8> {
    if let Some(threads) = cli.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
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
        print!("{}", found.text(format, explain)?);
        return Ok(found.code(strict));
    }
    // Before anything is measured: a file that cannot be compared with wastes the run.
    let earlier = earlier.map(|file| Measurements::read(&file)).transpose()?;
    let mut session = Session::new(cli.sampling);
    let done = measure(&mut session, cli.command);
    let Some(found) = session.end().filter(|found| !found.results.is_empty()) else { return done };
    // What was measured before an error is worth keeping.
    print!("{}", output::text(&found, format)?);
    cli.output.save.map_or(Ok(()), |file| found.write(&file))?;
    let done = done?;
    match earlier {
        Some(earlier) => {
            let found = Findings(compare(&earlier, &found, &thresholds)?);
            print!("\n{}", found.text(format, explain)?);
            Ok(found.code(strict))
        }
        None => Ok(done),
    }
}

fn measure(session: &mut Session, command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Latency(args) => latency::latency(args, session)?,
        Command::Flops(args) => flops::flops(args, session)?,
        Command::Step(args) => step::step(args, session)?,
        Command::Ops(args) => ops::ops(args, session)?,
        Command::Kernels(args) => kernels::kernels(args, session)?,
        Command::CompareNcu(args) => kernels::compare_ncu(args, session)?,
        Command::Encode(args) => encode::encode(args, session)?,
        Command::Layer(args) => layer::layer(args, session)?,
        Command::Llm(args) => llm::llm(args, session)?,
        Command::Decode(args) => decode::decode(args, session)?,
        Command::Kar(args) => kar::kar(args, session)?,
        Command::Store(args) => data::store(args, session)?,
        Command::Candidates(args) => data::candidates(args, session)?,
        Command::Ceiling(args) => ceiling::ceiling(args, session)?,
        Command::SelfTest(args) => return self_test::self_test(args, session),
        Command::Results(args) => results::results(args)?,
        Command::StoreOnce(args) => data::store_once(args)?,
    }
    Ok(0)
}
