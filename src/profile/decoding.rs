//! Time of prompts and of the tokens that follow them, in a decoder with random weights.

use tempfile::TempDir;

use super::llama::prompt_cost;
use super::sampling::Laps;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::llama::{Llama, LlamaConfig, Precision, write_random};
use crate::ops::sample::Draw;

/// All prompts together, up to the first new tokens.
pub const PROMPT: &str = "prompt";
/// A token more of each sequence.
pub const TOKEN: &str = "token";

/// A decoder with random weights, and the prompt of some sequences.
pub struct DecodingBench {
    llama: Llama,
    prompt: Vec<u32>,
    sequences: usize,
    /// Holds the weights, which may stay mapped.
    _folder: TempDir,
}

impl DecodingBench {
    /// Draws a model of these sizes, for so many sequences whose prompts have so many tokens each.
    pub fn new(
        config: &LlamaConfig,
        precision: Precision,
        (sequences, prompt): (usize, usize),
        gpu: Option<&Gpu>,
    ) -> Result<DecodingBench> {
        let folder = tempfile::tempdir().map_err(Error::io(std::env::temp_dir(), "create"))?;
        let drawn = if precision == Precision::F32 { Precision::F32 } else { Precision::Bf16 };
        write_random(folder.path(), config, drawn, 0, ["a word"].into_iter())?;
        let llama = Llama::open(folder.path(), Some(precision), gpu)?;
        let prompt = (0..prompt).map(|i| (i * 37 % config.vocab_size) as u32).collect();
        Ok(DecodingBench { llama, prompt, sequences, _folder: folder })
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
}
