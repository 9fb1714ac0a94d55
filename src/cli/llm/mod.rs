//! `fissfuse llm`

mod calibrate;
mod perplexity;
mod plan;

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Subcommand;
use fissfuse::device::describe;
use fissfuse::files;
use fissfuse::llama::{
    Generation, Llama, LlamaConfig, Message, Precision, Preset, Sampling, Source, Spent, Stop, convert, quantize,
    write_random,
};
use fissfuse::printable::printable;
use fissfuse::tensor::safetensors::Writer;

use super::common::{DeviceArgs, at_least_one, progress};
use super::paths;
use calibrate::CalibrateArgs;

/// Ask a Llama: continue a prompt, or answer it with --chat.
///
/// The text goes to standard output as it is written, the rates to standard error.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    ask: Ask,
}

#[derive(Subcommand)]
enum Command {
    Quantize(Quantize),
    Convert(Convert),
    Plan(plan::Args),
    Perplexity(perplexity::Args),
    Random(Random),
}

/// What is asked of which model.
#[derive(clap::Args)]
struct Ask {
    /// A GGUF file or a Hugging Face directory of a Llama.
    #[arg(long, value_name = "PATH", required = true)]
    model: Option<PathBuf>,

    /// Text to continue, or with --chat to answer.
    #[arg(long, required = true)]
    prompt: Option<String>,

    /// Write the prompt as a user's turn of a conversation, by the model's chat template.
    #[arg(long)]
    chat: bool,

    /// Most tokens to write [default: 256, or none with --logits].
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,

    /// Draw tokens with their logits divided by this; 0 takes the likeliest.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,

    /// Draw among the likeliest tokens that have this probability together.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,

    /// Draws the tokens.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// What the weights are kept in [default: as in the files].
    #[arg(long, value_enum)]
    precision: Option<Precision>,

    /// Write `ids` (tokens) and `logits` (tokens, vocabulary) of the prompt to this file.
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,

    /// Print the prompt as the chat template writes it, on standard error.
    #[arg(long, requires = "chat")]
    show_prompt: bool,

    #[command(flatten)]
    device: DeviceArgs,
}

/// Pack a model's weights into 8 or 4 bits, once; the directory opens like any other.
#[derive(clap::Args)]
struct Quantize {
    /// Hugging Face directory of a Llama.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,

    /// Folder of the packed model.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// int8 or int4.
    #[arg(long, value_enum, default_value = "int4")]
    precision: Precision,
}

/// Write the model of a GGUF file as a Hugging Face directory, or that of a directory as a GGUF file.
#[derive(clap::Args)]
struct Convert {
    /// The GGUF file, the first of several, or the directory.
    #[arg(long, value_name = "PATH")]
    model: PathBuf,

    /// Folder of the directory, or the file, whose name ends in .gguf.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,

    /// f32, f16 or bf16; in a GGUF file also q8_0, q6_k, q5_k, q4_k or q4_0.
    #[arg(long, value_enum, default_value = "f16")]
    precision: Precision,

    #[command(flatten)]
    calibrate: CalibrateArgs,

    #[command(flatten)]
    device: DeviceArgs,
}

/// Write a Llama with random weights, to try things out: what it says means nothing.
#[derive(clap::Args)]
struct Random {
    /// Folder of the model.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Sizes of a well-known model; the flags below override them.
    #[arg(long, value_enum, default_value = "tiny")]
    preset: Preset,

    /// Layers.
    #[arg(long, value_parser = at_least_one())]
    layers: Option<usize>,

    /// Share the embedding's matrix with the last layer.
    #[arg(long)]
    tied: bool,

    /// f32, f16 or bf16.
    #[arg(long, value_enum, default_value = "bf16")]
    precision: Precision,

    /// Draws the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Some(Command::Quantize(args)) => run_quantize(args),
        Some(Command::Convert(args)) => run_convert(args),
        Some(Command::Plan(args)) => plan::run(args),
        Some(Command::Perplexity(args)) => perplexity::run(args),
        Some(Command::Random(args)) => run_random(args),
        None => run_ask(args.ask),
    }
}

fn run_ask(args: Ask) -> anyhow::Result<()> {
    // The parser requires both unless there is a subcommand.
    let (Some(model), Some(prompt)) = (&args.model, &args.prompt) else { anyhow::bail!("--model and --prompt") };
    let sampling = Sampling { temperature: args.temperature, top_p: args.top_p, seed: args.seed };
    sampling.check()?;
    if let Some(logits) = &args.logits {
        paths::keep_apart(&[("--model", model)], &[("--logits", logits)])?;
    }
    args.logits.as_deref().map_or(Ok(()), files::expect_file_at)?;
    let gpu = args.device.open()?;
    let start = Instant::now();
    let llama = Llama::open(model, args.precision, gpu.as_ref())?;
    eprintln!("{} weights, {}, opened in {:.1} s", llama.precision(), describe(gpu.as_ref()), seconds(start.elapsed()));
    let ids = match args.chat {
        true => {
            let messages = [Message::user(prompt)];
            if args.show_prompt {
                eprintln!("{}", printable(&llama.template()?.render(&messages, true)?));
            }
            llama.encode_chat(&messages)?
        }
        false => llama.tokenizer().encode(prompt, true)?,
    };
    anyhow::ensure!(!ids.is_empty(), "the prompt has no tokens");
    if let Some(path) = &args.logits {
        let logits = llama.logits(&ids)?;
        let wide: Vec<i64> = ids.iter().map(|&id| id as i64).collect();
        let mut writer = Writer::default();
        writer.add("ids", &[wide.len()], &wide).tensor("logits", &logits);
        writer.write(path)?;
    }
    let max_new_tokens = args.max_new_tokens.unwrap_or(if args.logits.is_some() { 0 } else { 256 });
    if max_new_tokens == 0 {
        return Ok(());
    }
    let (stop, spent) = stream(&llama, &ids, Generation { sampling, max_new_tokens })?;
    let rate = |tokens: usize, time: Duration| tokens as f64 / seconds(time);
    let (prompt, new) = (spent.prompt_tokens, spent.decoded_tokens);
    eprintln!("prefill: {prompt} tokens, {:.1} tokens/s", rate(prompt, spent.prefill));
    if new > 0 {
        eprintln!("decode: {new} tokens, {:.1} tokens/s", rate(new, spent.decode));
    }
    if stop == Stop::Length {
        eprintln!("the answer was cut at {max_new_tokens} tokens (--max-new-tokens)");
    }
    Ok(())
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// Writes the answer to standard output as it grows.
fn stream(llama: &Llama, ids: &[u32], how: Generation) -> anyhow::Result<(Stop, Spent)> {
    let mut out = std::io::stdout().lock();
    let terminal = out.is_terminal();
    // A file or a program takes what the model said; a terminal would obey it.
    let shown = |new: String| if terminal { printable(&new).into_owned() } else { new };
    let mut text = llama.tokenizer().stream();
    let mut failed = None;
    let (answers, spent) = llama.generate(None, &[ids], how, |_, token| {
        let written = text.push(token).map_err(anyhow::Error::from).and_then(|new| {
            out.write_all(shown(new).as_bytes()).and_then(|()| out.flush()).context("standard output: cannot write")
        });
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    writeln!(out, "{}", shown(text.finish()?)).context("standard output: cannot write")?;
    Ok((answers.first().map_or(Stop::Length, |answer| answer.stop), spent))
}

fn run_quantize(args: Quantize) -> anyhow::Result<()> {
    let (start, bar) = (Instant::now(), progress("layers"));
    quantize(&args.model, &args.out, args.precision, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    println!("packed into {} in {:.1} s: {}", args.precision, seconds(start.elapsed()), args.out.display());
    Ok(())
}

fn run_convert(args: Convert) -> anyhow::Result<()> {
    let source = Source::open(&args.model)?;
    let calibration = match args.calibrate.given() {
        true => {
            files::expect_file_at(&args.out)?;
            args.calibrate.of(&source, &[args.precision], args.device.open()?.as_ref())?
        }
        false => None,
    };
    let (start, bar) = (Instant::now(), progress("layers"));
    convert(&source, &args.out, args.precision, calibration, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    println!("converted to {} in {:.1} s: {}", args.precision, seconds(start.elapsed()), args.out.display());
    Ok(())
}

fn run_random(args: Random) -> anyhow::Result<()> {
    let preset = args.preset.config();
    let config = LlamaConfig { layers: args.layers.unwrap_or(preset.layers), tied: args.tied, ..preset };
    let texts = fissfuse::data::demo::descriptions()?;
    let texts = texts.iter().map(String::as_str);
    let parameters = write_random(&args.out, &config, args.precision, args.seed, texts)?;
    println!("wrote a random Llama of {parameters} parameters to {}", args.out.display());
    Ok(())
}
