//! Time of prompts and of the tokens that follow them, in a decoder with random weights.

use std::time::Instant;

use tempfile::TempDir;

use super::Timing;
use super::llama::prompt_cost;
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::llama::{Llama, LlamaConfig, Precision, write_random};
use crate::ops::sample::Draw;

/// A decoder with random weights, and the prompt of some sequences.
pub struct DecodingBench {
    llama: Llama,
    prompt: Vec<u32>,
    sequences: usize,
    /// Holds the weights, which may stay mapped.
    _folder: TempDir,
}

/// Seconds of some runs.
#[derive(Clone, Debug)]
pub struct DecodingTimes {
    /// Of all prompts together, up to the first new tokens.
    pub prefill: Timing,
    /// Of a step, which appends a token to each sequence.
    pub step: Timing,
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

    /// Times the prompts and `steps` steps after them, greedily chosen, `runs` times after `warmup` times that do not count.
    pub fn measure(&self, steps: usize, warmup: usize, runs: usize) -> Result<DecodingTimes> {
        let (engine, draws) = (self.llama.engine(), vec![Draw::LIKELIEST; self.sequences]);
        let (mut prefill, mut step) = (Vec::new(), Vec::new());
        for run in 0..warmup + runs {
            let room = self.prompt.len() + steps;
            let mut sequences = (0..self.sequences).map(|_| engine.sequence(None, room)).collect::<Result<Vec<_>>>()?;
            let mut start = Instant::now();
            let mut batch: Vec<_> = sequences.iter_mut().map(|sequence| (sequence, &self.prompt[..])).collect();
            let mut tokens = engine.choose(&mut batch, &draws)?;
            let mut seconds = vec![start.elapsed().as_secs_f64()];
            for _ in 0..steps {
                start = Instant::now();
                let mut batch: Vec<_> = sequences.iter_mut().zip(tokens.chunks_exact(1)).collect();
                tokens = engine.choose(&mut batch, &draws)?;
                seconds.push(start.elapsed().as_secs_f64());
            }
            if run >= warmup {
                prefill.push(seconds.remove(0));
                step.extend(seconds);
            }
        }
        Ok(DecodingTimes { prefill: Timing::new(prefill)?, step: Timing::new(step)? })
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
