//! Time of prompts and of the tokens that follow them.

use tempfile::TempDir;

use super::llama::prompt_cost;
use super::measurement::Measurement;
use super::sampling::Laps;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::llama::{Llama, LlamaConfig, Precision, write_random};
use crate::ops::sample::Draw;

/// All prompts together, up to the first new tokens.
pub const PROMPT: &str = "prompt";
/// A token more of each sequence.
pub const TOKEN: &str = "token";

/// A decoder, and the prompt of some sequences.
pub struct DecodingBench<'a> {
    llama: &'a Llama,
    prompt: Vec<u32>,
    sequences: usize,
}

/// A decoder with random weights.
pub struct RandomLlama {
    pub llama: Llama,
    /// Holds the weights, which may stay mapped.
    _folder: TempDir,
}

impl RandomLlama {
    /// Draws a model of these sizes.
    pub fn new(config: &LlamaConfig, precision: Precision, gpu: Option<&Gpu>) -> Result<RandomLlama> {
        let folder = tempfile::tempdir().map_err(Error::io(std::env::temp_dir(), "create"))?;
        let drawn = if precision == Precision::F32 { Precision::F32 } else { Precision::Bf16 };
        write_random(folder.path(), config, drawn, 0, ["a word"].into_iter())?;
        Ok(RandomLlama { llama: Llama::open(folder.path(), Some(precision), gpu)?, _folder: folder })
    }
}

impl DecodingBench<'_> {
    /// Of so many sequences whose prompts have so many tokens each.
    pub fn new(llama: &Llama, sequences: usize, prompt: usize) -> DecodingBench<'_> {
        let prompt = (0..prompt).map(|i| (i * 37 % llama.config().vocab_size) as u32).collect();
        DecodingBench { llama, prompt, sequences }
    }

    /// Runs the prompts and `steps` steps after them, each of which appends the likeliest token to each sequence: parts
    /// [`PROMPT`] and, for each step, [`TOKEN`].
    pub fn run(&self, steps: usize, laps: &mut Laps) -> Result<()> {
        let (engine, draws) = (self.llama.engine(), vec![Draw::LIKELIEST; self.sequences]);
        let room = self.prompt.len() + steps;
        let mut sequences = (0..self.sequences).map(|_| engine.sequence(None, room)).collect::<Result<Vec<_>>>()?;
        laps.start();
        let mut batch: Vec<_> = sequences.iter_mut().map(|sequence| (sequence, &self.prompt[..])).collect();
        let mut tokens = engine.choose(&mut batch, &draws)?;
        laps.lap(PROMPT);
        for _ in 0..steps {
            let mut batch: Vec<_> = sequences.iter_mut().zip(tokens.chunks_exact(1)).collect();
            tokens = engine.choose(&mut batch, &draws)?;
            laps.lap(TOKEN);
        }
        Ok(())
    }

    /// FLOPs of the prompts.
    pub fn prefill_flops(&self) -> f64 {
        (prompt_cost(self.llama.config(), self.prompt.len()) * self.sequences as u64).forward as f64
    }

    /// Bytes of weights that a step reads at least.
    pub fn step_bytes(&self) -> u64 {
        self.llama.bytes_per_token()
    }

    /// A measurement of [`DecodingBench::run`] with the rates that follow from it.
    pub fn with_rates(&self, measured: Measurement) -> Measurement {
        let (flops, bytes, sequences) = (self.prefill_flops(), self.step_bytes() as f64, self.sequences as f64);
        let rate = |part: &str, amount: f64| measured.parts.get(part).map_or(f64::NAN, |time| amount / time.p50());
        let rates = [
            ("prompt_flops", flops),
            ("prompt_flops_per_second", rate(PROMPT, flops)),
            ("prompt_tokens_per_second", rate(PROMPT, sequences * self.prompt.len() as f64)),
            ("weight_bytes", bytes),
            ("weight_bytes_per_second", rate(TOKEN, bytes)),
            ("tokens_per_second", rate(TOKEN, sequences)),
        ];
        rates.into_iter().fold(measured, |row, (name, rate)| row.with(name, rate))
    }
}
