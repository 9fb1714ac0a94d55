//! `fissfuse llm plan`

use std::path::PathBuf;

use fissfuse::bytes::Bytes;
use fissfuse::llama::{Plan, Precision, Source};
use fissfuse::report::table;

/// Cards, and GiB that they have left beside their driver.
const CARDS: [(&str, u64); 5] = [
    ("16 GB (T4, RTX 4080)", 14),
    ("24 GB (RTX 3090, RTX 4090)", 22),
    ("48 GB (A6000, L40S)", 44),
    ("80 GB (A100, H100)", 78),
    ("141 GB (H200)", 138),
];

/// Say how much memory a model takes, by its files' headers alone.
#[derive(clap::Args)]
pub struct Args {
    /// A GGUF file or a Hugging Face directory of a Llama.
    #[arg(long, value_name = "PATH")]
    model: PathBuf,

    /// What the weights would be kept in [default: as in the files].
    #[arg(long, value_enum)]
    precision: Option<Precision>,

    /// Tokens of all sequences together, prompts and answers [default: the model's context].
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let source = Source::open(&args.model)?;
    let [host, device] = [false, true].map(|device| Plan::of(&source, args.precision, device));
    let (host, device) = (host?, device?);
    let tokens = args.tokens.unwrap_or(host.config.context as u64);
    let row = |what: String, of: fn(&Plan, u64) -> u64| {
        let [host, device] = [&host, &device].map(|plan| Bytes(of(plan, tokens)).to_string());
        vec![what, host, device]
    };
    let rows = [
        row(format!("weights, {}", host.precision), |plan, _| plan.weights),
        row(format!("keys and values of {tokens} tokens"), |plan, tokens| plan.cache_per_token.saturating_mul(tokens)),
        row("activations of the longest pass".into(), |plan, _| plan.activations),
        row("together".into(), Plan::with_tokens),
        row("read for each new token".into(), |plan, _| plan.weights_per_token),
    ];
    println!("{}", table(&["", "CPU", "GPU"], rows));
    let needed = device.with_tokens(tokens);
    let fits = CARDS.iter().filter(|(_, gib)| needed <= gib << 30).map(|(name, _)| *name);
    let fits: Vec<&str> = fits.collect();
    println!(
        "fits: {}",
        if fits.is_empty() { "none of the cards that are known here".into() } else { fits.join(", ") }
    );
    Ok(())
}
