//! Generating text: many sequences at once, each until it ends.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::sampling::{Sampler, Sampling};
use super::{Llama, Prefix, Sequence};
use crate::error::Result;
use crate::fields::Fields;
use crate::ops::sample::Draw;
use crate::span;
use crate::trace::on_device;

/// `generation_config.json`: where the model's answers end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenerationConfig {
    /// Tokens that end an answer.
    pub end: Vec<u32>,
}

impl GenerationConfig {
    /// Reads `generation_config.json`; end tokens that it does not give are those of `config.json`.
    ///
    /// The other settings say how the authors sample, which is up to whoever asks: `Generation` has all of it.
    pub fn read(folder: &Path) -> Result<GenerationConfig> {
        let mut found = GenerationConfig::default();
        for name in ["config.json", "generation_config.json"] {
            let path = folder.join(name);
            if !path.exists() {
                continue;
            }
            let fields = Fields::read(&path)?;
            if let Some(value) = fields.get("eos_token_id") {
                let number = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
                let wrong = || fields.wrong("eos_token_id", "a token's number or a list of them");
                found.end = match value {
                    Value::Array(list) => fields.each("eos_token_id", list, number, "a token's number")?,
                    one => vec![number(one).ok_or_else(wrong)?],
                };
            }
        }
        Ok(found)
    }
}

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct Generation {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The most new tokens of a sequence.
    pub max_new_tokens: usize,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model wrote an end token.
    End,
    /// It wrote as many tokens as it might.
    Length,
    /// The caller had enough.
    Caller,
}

/// One generated answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its tokens, without the end token.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub stop: Stop,
}

/// Where the time of a generation went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Prompt tokens, without those of the prefix.
    pub prompt_tokens: usize,
    /// From the first prompt tokens to the first new ones.
    pub prefill: Duration,
    /// Tokens that were generated after the first of each sequence.
    pub decoded_tokens: usize,
    /// From the first new tokens to the last.
    pub decode: Duration,
}

impl Llama {
    /// Continues prompts, all of which start with the prefix, if there is one. `on_token` hears of each new token (number
    /// of the prompt, token) as it is chosen, end tokens excepted, and may end that answer.
    ///
    /// Fails if a prompt and its new tokens are longer than the model's context, or have no room in memory.
    pub fn generate(
        &self,
        prefix: Option<&Prefix>,
        prompts: &[&[u32]],
        how: Generation,
        mut on_token: impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<(Vec<Answer>, Spent)> {
        how.sampling.check()?;
        let engine = self.engine();
        let mut answers = vec![Answer { tokens: Vec::new(), stop: Stop::Length }; prompts.len()];
        let mut spent = Spent { prompt_tokens: prompts.iter().map(|p| p.len()).sum(), ..Spent::default() };
        if how.max_new_tokens == 0 || prompts.is_empty() {
            return Ok((answers, spent));
        }
        let mut running = Vec::with_capacity(prompts.len());
        for (number, prompt) in prompts.iter().enumerate() {
            // The last token is never fed back.
            let sequence = engine.sequence(prefix, prompt.len().saturating_add(how.max_new_tokens - 1))?;
            running.push(Running { number, sequence, sampler: Sampler::new(how.sampling, number), token: 0 });
        }
        let start = Instant::now();
        let prefill = (span!("prefill"), on_device(engine.gpu(), "prefill", ""));
        let draws = draw(&mut running);
        let mut work: Vec<_> = running.iter_mut().map(|r| (&mut r.sequence, prompts[r.number])).collect();
        let mut chosen = engine.choose(&mut work, &draws)?;
        drop(prefill);
        spent.prefill = start.elapsed();
        let start = Instant::now();
        loop {
            let mut tokens = chosen.iter();
            running.retain_mut(|r| {
                let Some(&token) = tokens.next() else { return false };
                let answer = &mut answers[r.number];
                r.token = token;
                if self.generation.end.contains(&token) {
                    answer.stop = Stop::End;
                    return false;
                }
                answer.tokens.push(token);
                if on_token(r.number, token).is_break() {
                    answer.stop = Stop::Caller;
                    return false;
                }
                answer.tokens.len() < how.max_new_tokens
            });
            if running.is_empty() {
                break;
            }
            spent.decoded_tokens += running.len();
            let _step = (span!("decode step"), on_device(engine.gpu(), "decode step", ""));
            let draws = draw(&mut running);
            let fed: Vec<u32> = running.iter().map(|r| r.token).collect();
            let tokens = fed.chunks_exact(1);
            let mut work: Vec<_> = running.iter_mut().map(|r| &mut r.sequence).zip(tokens).collect();
            chosen = engine.choose(&mut work, &draws)?;
        }
        spent.decode = start.elapsed();
        Ok((answers, spent))
    }
}

/// How the next token of each sequence is chosen.
fn draw(running: &mut [Running]) -> Vec<Draw> {
    running.iter_mut().map(|r| r.sampler.draw()).collect()
}

/// A sequence whose answer has not ended.
struct Running {
    number: usize,
    sequence: Sequence,
    sampler: Sampler,
    /// The token chosen last, which goes in next.
    token: u32,
}
