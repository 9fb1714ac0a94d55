//! A decoder from its files.

use std::path::PathBuf;

use fissfuse::llama::{Llama, Precision};
use fissfuse::profile::llama::LlamaRates;
use fissfuse::profile::measurement::Measurement;
use serde_json::{Map, Value, json};

use super::at_least_one;
use super::session::Session;
use super::values::{Values, combinations, expect_few, once, value};
use super::work::fingerprint_of_folder;

/// Tokens per second of a Llama on the CPU, beside the memory's bandwidth and the processor's bf16 ceiling.
///
/// `fissfuse llm random --preset 7b --layers 4 --out DIR` writes a model of any size to measure.
#[derive(clap::Args)]
pub struct LlmArgs {
    /// Hugging Face directory of a Llama.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,

    /// What the weights are kept in; each value is a row [default: as in the files].
    #[arg(long, value_enum, value_delimiter = ',')]
    precision: Vec<Precision>,

    /// Tokens of the prompt.
    #[arg(long, default_value = "512", value_name = "LIST")]
    prompt: Values,

    /// New tokens of a turn.
    #[arg(long, default_value = "32", value_name = "LIST")]
    new: Values,

    /// Turns, of which the best counts.
    #[arg(long, default_value_t = 3, value_parser = at_least_one())]
    turns: usize,
}

pub fn llm(args: LlmArgs, session: &mut Session) -> anyhow::Result<()> {
    let rows = combinations(&[("prompt", &args.prompt), ("new", &args.new)])?;
    let asked: Vec<Option<Precision>> = match args.precision.is_empty() {
        true => vec![None],
        false => once(args.precision).into_iter().map(Some).collect(),
    };
    expect_few(&[("sizes", rows.len()), ("precision", asked.len())])?;
    session.begin("llm", None)?;
    session.set("turns", args.turns);
    session.set("model", fingerprint_of_folder(&args.model)?);
    for precision in asked {
        let llama = Llama::open(&args.model, precision, None)?;
        for row in &rows {
            session.next_row()?;
            let rates = LlamaRates::measure(&llama, value(row, "prompt"), value(row, "new"), args.turns)?;
            let mut parameters: Map<String, Value> = row.clone();
            parameters.insert("precision".into(), json!(llama.precision().to_string()));
            session.push(measurement(parameters, &rates));
        }
    }
    Ok(())
}

fn measurement(parameters: Map<String, Value>, rates: &LlamaRates) -> Measurement {
    let flops = rates.prefill * rates.prefill_flops / rates.prompt as f64;
    let read = rates.decode * rates.bytes_per_token as f64;
    let ceiling = rates.ceiling.unwrap_or(f64::NAN);
    let figures = [
        ("prompt_tokens_per_second", rates.prefill),
        ("prompt_flops_per_second", flops),
        ("bf16_flops_per_second", ceiling),
        ("share_of_bf16", flops / ceiling),
        ("tokens_per_second", rates.decode),
        ("weight_bytes_per_second", read),
        ("memory_bytes_per_second", rates.bandwidth),
        ("share_of_memory", read / rates.bandwidth),
    ];
    figures.into_iter().fold(Measurement::new("llama", parameters), |row, (name, figure)| row.with(name, figure))
}
