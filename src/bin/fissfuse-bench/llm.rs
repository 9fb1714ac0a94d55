//! A decoder from its files.

use std::path::PathBuf;

use fissfuse::device::DeviceChoice;
use fissfuse::device::cuda::Arithmetic;
use fissfuse::encoder::Fingerprint;
use fissfuse::llama::{Llama, Precision, Source};
use fissfuse::profile::decoding::DecodingBench;

use super::session::Session;
use super::values::{Values, combinations, expect_few, once, value};

/// Time of prompts and of the tokens that follow them, in a Llama from its files; with --ceilings beside what the machine does.
///
/// `fissfuse llm random --preset 7b --layers 4 --out DIR` writes a model of any size to measure.
#[derive(clap::Args)]
pub struct LlmArgs {
    /// GGUF file, or Hugging Face directory, of a Llama.
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,

    /// What the weights are kept in; each value is a row [default: as in the files].
    #[arg(long, value_enum, value_delimiter = ',')]
    precision: Vec<Precision>,

    /// Sequences that go through together.
    #[arg(long, default_value = "1", value_name = "LIST")]
    sequences: Values,

    /// Tokens of each prompt.
    #[arg(long, default_value = "512", value_name = "LIST")]
    prompt: Values,

    /// Steps after the prompts, each a token more of each sequence.
    #[arg(long, default_value = "32", value_name = "LIST")]
    steps: Values,

    /// What computes: cpu, cuda, cuda:N, or auto, which takes a CUDA device if a usable one is found.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
}

pub fn llm(args: LlmArgs, session: &mut Session) -> anyhow::Result<()> {
    let rows = combinations(&[("sequences", &args.sequences), ("prompt", &args.prompt), ("steps", &args.steps)])?;
    let asked: Vec<Option<Precision>> = match args.precision.is_empty() {
        true => vec![None],
        false => once(args.precision).into_iter().map(Some).collect(),
    };
    expect_few(&[("sizes", rows.len()), ("precision", asked.len())])?;
    let gpu = args.device.open(Arithmetic::Mixed)?;
    session.begin("llm", gpu.as_ref())?;
    session.set("model", Fingerprint::of_files(&Source::open(&args.model)?.files()?)?.as_str());
    for precision in asked {
        let llama = Llama::open(&args.model, precision, gpu.as_ref())?;
        for row in &rows {
            let bench = DecodingBench::new(&llama, value(row, "sequences"), value(row, "prompt"));
            let mut parameters = row.clone();
            parameters.insert("precision".into(), llama.precision().to_string().into());
            let steps = value(row, "steps");
            let measured = session.measure("decoding", parameters, |laps| bench.run(steps, laps))?;
            session.push(bench.with_rates(measured));
        }
    }
    Ok(())
}
