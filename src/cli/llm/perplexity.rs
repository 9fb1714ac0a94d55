//! `fissfuse llm perplexity`

use std::path::PathBuf;

use fissfuse::files;
use fissfuse::llama::{Llama, Precision, foretell};
use fissfuse::report::table;

use super::super::common::{DeviceArgs, progress};

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

    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let text = files::read_text(&args.text)?;
    let gpu = args.device.open()?;
    let open = |precision| Llama::open(&args.model, precision, gpu.as_ref());
    let llama = open(args.precision)?;
    let bar = progress("pieces");
    let on_piece = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    if args.compare.is_empty() {
        let found = foretell(&llama, None, &text, args.context, on_piece)?;
        bar.finish_and_clear();
        println!("{}: perplexity {:.4} of {} tokens", llama.precision(), found.perplexity(), found.tokens);
        return Ok(());
    }
    let mut rows = Vec::new();
    for (number, &precision) in args.compare.iter().enumerate() {
        let found = foretell(&llama, Some(&open(Some(precision))?), &text, args.context, on_piece)?;
        let tokens = found.tokens as f64;
        if number == 0 {
            let own = [llama.precision().to_string(), format!("{:.4}", found.perplexity())];
            rows.push(own.into_iter().chain([String::new(), String::new(), found.tokens.to_string()]).collect());
        }
        let changed = 100.0 * found.changed as f64 / tokens;
        let figures = [format!("{:.4}", found.compared_perplexity()), format!("{:.2e}", found.divergence / tokens)];
        let rest = [format!("{changed:.2}"), found.tokens.to_string()];
        rows.push([precision.to_string()].into_iter().chain(figures).chain(rest).collect());
    }
    bar.finish_and_clear();
    println!("{}", table(&["weights", "perplexity", "mean KL", "other likeliest token %", "tokens"], rows));
    Ok(())
}
