//! `fissfuse llm perplexity`

use std::path::PathBuf;

use anyhow::ensure;
use fissfuse::bytes::Bytes;
use fissfuse::files;
use fissfuse::llama::{Checkpoint, Llama, Precision, Source, foretell};
use fissfuse::report::table;

use super::super::common::{DeviceArgs, progress};
use super::calibrate::CalibrateArgs;

/// Say how well a model foretells a text, and how far another precision of its weights leads it away.
#[derive(clap::Args)]
pub struct Args {
    /// A GGUF file or a Hugging Face directory of a Llama.
    #[arg(long, value_name = "PATH")]
    model: PathBuf,

    /// File of the text, in UTF-8.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,

    /// Tokens of the pieces that the text is read in.
    #[arg(long, value_name = "N", default_value_t = 512)]
    context: usize,

    /// What the weights are kept in [default: as in the files].
    #[arg(long, value_enum)]
    precision: Option<Precision>,

    /// Compare with the same weights in these, such as int8,int4.
    #[arg(long, value_enum, value_name = "PRECISION", value_delimiter = ',')]
    compare: Vec<Precision>,

    /// Compare with other files of the same model, such as ones that another program quantised.
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    compare_with: Vec<PathBuf>,

    #[command(flatten)]
    calibrate: CalibrateArgs,

    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    ensure!(
        !args.calibrate.given() || !args.compare.is_empty(),
        "--calibrate rounds what --compare names; give that too"
    );
    let text = files::read_text(&args.text)?;
    let gpu = args.device.open()?;
    let source = Source::open(&args.model)?;
    // First, since it opens models of its own.
    let calibration = args.calibrate.of(&source, &args.compare, gpu.as_ref())?;
    let llama = Llama::of(source.clone(), &Checkpoint::open(&source, args.precision)?, gpu.as_ref())?;
    let rounded = |precision| {
        let mut checkpoint = Checkpoint::open(&source, Some(precision))?;
        if let Some(calibration) = &calibration {
            checkpoint = checkpoint.calibrated(calibration.clone())?;
        }
        Llama::of(source.clone(), &checkpoint, gpu.as_ref())
    };
    let bar = progress("pieces");
    let on_piece = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    if args.compare.is_empty() && args.compare_with.is_empty() {
        let found = foretell(&llama, None, &text, args.context, on_piece)?;
        bar.finish_and_clear();
        println!("{}: perplexity {:.4} of {} tokens", llama.precision(), found.perplexity(), found.tokens);
        return Ok(());
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut compare = |name: String, other: &Llama| -> anyhow::Result<()> {
        let found = foretell(&llama, Some(other), &text, args.context, on_piece)?;
        let (tokens, size) = (found.tokens as f64, |of: &Llama| Bytes(of.bytes_per_token()).to_string());
        if rows.is_empty() {
            let own = [llama.precision().to_string(), size(&llama), format!("{:.4}", found.perplexity())];
            rows.push(own.into_iter().chain([String::new(), String::new(), found.tokens.to_string()]).collect());
        }
        let changed = 100.0 * found.changed as f64 / tokens;
        let figures = [format!("{:.4}", found.compared_perplexity()), format!("{:.2e}", found.divergence / tokens)];
        let rest = [format!("{changed:.2}"), found.tokens.to_string()];
        rows.push([name, size(other)].into_iter().chain(figures).chain(rest).collect());
        Ok(())
    };
    for &precision in &args.compare {
        compare(precision.to_string(), &rounded(precision)?)?;
    }
    for path in &args.compare_with {
        compare(path.display().to_string(), &Llama::open(path, None, gpu.as_ref())?)?;
    }
    bar.finish_and_clear();
    let head = ["weights", "read for a token", "perplexity", "mean KL", "other likeliest token %", "tokens"];
    println!("{}", table(&head, rows));
    Ok(())
}
