//! The decoder's rates.

use std::path::PathBuf;

use fissfuse::llama::{Llama, Precision};
use fissfuse::profile::llama::LlamaRates;
use fissfuse::report::table;
use serde_json::json;

use super::{at_least_one, machine, print_json};

/// Tokens per second of a Llama on the CPU, beside the memory's bandwidth and the processor's bf16 ceiling.
///
/// `fissfuse llm random --preset 7b --layers 4 --out DIR` writes a model of any size to measure.
#[derive(clap::Args)]
pub struct LlamaArgs {
    /// Hugging Face directory of a Llama.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,

    /// What the weights are kept in; each value is a row [default: as in the files].
    #[arg(long, value_enum, value_delimiter = ',')]
    precision: Vec<Precision>,

    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512, value_parser = at_least_one())]
    prompt: usize,

    /// New tokens of a turn.
    #[arg(long, default_value_t = 32, value_parser = at_least_one())]
    new: usize,

    /// Turns, of which the best counts.
    #[arg(long, default_value_t = 3, value_parser = at_least_one())]
    turns: usize,
}

pub fn llama(args: LlamaArgs, json: bool) -> anyhow::Result<()> {
    let asked: Vec<Option<Precision>> = match args.precision.is_empty() {
        true => vec![None],
        false => args.precision.iter().copied().map(Some).collect(),
    };
    let mut rows = Vec::new();
    for precision in asked {
        let llama = Llama::open(&args.model, precision, None)?;
        rows.push((llama.precision().to_string(), LlamaRates::measure(&llama, args.prompt, args.new, args.turns)?));
    }
    if json {
        let rates: serde_json::Map<_, _> = rows
            .into_iter()
            .map(|(name, rates)| Ok((name, serde_json::to_value(rates)?)))
            .collect::<anyhow::Result<_>>()?;
        return print_json(&json!({"machine": machine(None), "rates": rates}));
    }
    println!("{}; a prompt of {} tokens, {} new ones", machine(None), args.prompt, args.new);
    let header = [
        "weights",
        "prefill tokens/s",
        "GFLOP/s",
        "% of bf16 ceiling",
        "decode tokens/s",
        "GB/s",
        "of",
        "% of bandwidth",
    ];
    let row = |(name, r): &(String, LlamaRates)| {
        let (flops, read) = (r.prefill * r.prefill_flops / r.prompt as f64, r.decode * r.bytes_per_token as f64);
        let share = r.ceiling.map_or("-".into(), |ceiling| format!("{:.0}", 100.0 * flops / ceiling));
        let giga = |x: f64| format!("{:.1}", x / 1e9);
        let (prefill, decode) = (format!("{:.1}", r.prefill), format!("{:.2}", r.decode));
        let of_bandwidth = format!("{:.0}", 100.0 * read / r.bandwidth);
        vec![name.clone(), prefill, giga(flops), share, decode, giga(read), giga(r.bandwidth), of_bandwidth]
    };
    println!("{}", table(&header, rows.iter().map(row)));
    Ok(())
}
