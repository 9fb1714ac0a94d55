//! KAR by the engine's own decoder. What prompts begin with in common is computed once: all of them the template's
//! fixed text, those of one mention its sentence besides.

mod plan;
mod share;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;

use rayon::prelude::*;

use self::plan::{Group, LEAST_SHARED, batches, common_len, groups};
use self::share::{NOT_FINITE, Tokens};
use crate::device::Gpu;
use crate::encoder::Fingerprint;
use crate::error::{Error, Result};
use crate::kar::answer::thought;
use crate::kar::instruction::{Prompt, letter};
use crate::kar::model::{LanguageModel, Question, Reply, Said, Wanted};
use crate::llama::{self, Checkpoint, Generation, Llama, Message, Prefix, Sampling, Source};
use crate::ops::linear::stored::prompts_in_bytes;
use crate::span;
use crate::trace::{next_step, on_device};

/// How prompts go through the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Most tokens that go through together, new ones included; their keys and values must fit in memory.
    pub tokens: usize,
    /// Whether prompts share keys and values of what they have in common.
    pub share: bool,
}

impl Default for Batching {
    fn default() -> Batching {
        Batching { tokens: 4096, share: true }
    }
}

/// A Llama that answers questions.
pub struct Decoder {
    llama: Llama,
    identity: String,
    style: Style,
    batching: Batching,
    /// What its tokens are at the beginning of an answer; made when letters are first asked for.
    tokens: OnceLock<Tokens>,
}

/// How a prompt becomes one text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// By the chat template.
    Chat,
    /// By a chat template that knows no system message, which goes before the question.
    ChatWithoutSystem,
    /// Without a template, for models that are no chat models.
    Plain,
}

/// A model by what decides about its answers: its files' contents, its weights' precision, what these are multiplied by, and how it
/// is asked.
fn identity(source: &Source, precision: llama::Precision, plain: bool) -> Result<String> {
    let files = Fingerprint::of_files(&source.files()?)?;
    let style = if plain { "plain" } else { "chat" };
    let in_bytes = matches!(precision, llama::Precision::Blocks(_)) && prompts_in_bytes()?;
    let prompts = if in_bytes { ", prompts in bytes" } else { "" };
    Ok(format!("llama {} ({precision}{prompts}, {style})", files.as_str()))
}

impl Decoder {
    /// Takes a model. Its chat template writes the prompts unless `plain`; without one it is refused.
    pub fn new(llama: Llama, identity: String, plain: bool, batching: Batching) -> Result<Decoder> {
        let style = match plain {
            true => Style::Plain,
            false => {
                let example = [Message::system("be-brief"), Message::user("hello")];
                let template = llama
                    .template()
                    .map_err(|e| Error::invalid(format!("{e}; --plain asks a model that is no chat model")))?;
                match template.render(&example, true) {
                    Ok(text) if text.contains("be-brief") => Style::Chat,
                    _ => Style::ChatWithoutSystem,
                }
            }
        };
        Ok(Decoder { llama, identity, style, batching, tokens: OnceLock::new() })
    }

    /// Opens a Hugging Face directory or a GGUF file ([`Llama::open`]).
    pub fn open(
        folder: &Path,
        precision: Option<llama::Precision>,
        gpu: Option<&Gpu>,
        plain: bool,
        batching: Batching,
    ) -> Result<Decoder> {
        let llama = Llama::open(folder, precision, gpu)?;
        let identity = identity(llama.source(), llama.precision(), plain)?;
        Decoder::new(llama, identity, plain, batching)
    }

    /// What [`LanguageModel::identity`] of the model says once it is opened; its files are read, but no weights are made of them.
    pub fn identity_of(folder: &Path, precision: Option<llama::Precision>, plain: bool) -> Result<String> {
        let source = Source::open(folder)?;
        let precision = Checkpoint::open(&source, precision)?.precision();
        identity(&source, precision, plain)
    }

    /// Lets prompts go through otherwise from now on.
    pub fn set_batching(&mut self, batching: Batching) {
        self.batching = batching;
    }

    /// The prompt's tokens, ready for the answer.
    fn tokens(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let Prompt { system, user, reply } = prompt;
        let merged = [system.as_str(), user].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join("\n\n");
        let mut text = match self.style {
            Style::Plain => merged + "\n\n",
            Style::ChatWithoutSystem => self.llama.template()?.render(&[Message::user(merged)], true)?,
            Style::Chat if system.is_empty() => self.llama.template()?.render(&[Message::user(user)], true)?,
            Style::Chat => self.llama.template()?.render(&[Message::system(system), Message::user(user)], true)?,
        };
        if !reply.is_empty() {
            if !text.ends_with(char::is_whitespace) {
                text.push(' ');
            }
            text.push_str(reply);
        }
        // Chat templates write the start token themselves.
        self.llama.tokenizer().encode(&text, self.style == Style::Plain)
    }

    /// Tokens that stand for each option's letter: alone and after a space, where the tokenizer has both for all.
    fn letters(&self, options: usize) -> Result<Vec<Vec<u32>>> {
        let id = |before: &str, i: usize| self.llama.tokenizer().id(&format!("{before}{}", letter(i)));
        // As the vocabularies of byte-level and SentencePiece tokenizers write a space.
        let ways: Vec<&str> =
            ["", "\u{120}", "\u{2581}"].into_iter().filter(|b| (0..options).all(|i| id(b, i).is_some())).collect();
        if ways.is_empty() {
            let reason = "the model's tokenizer lacks a token for each of the options' letters; use --scoring generate";
            return Err(Error::invalid(reason));
        }
        Ok((0..options).map(|i| ways.iter().filter_map(|b| id(b, i)).collect()).collect())
    }

    /// Keys and values of several continuations of a prefix, computed together.
    fn prefixes(&self, onto: Option<&Prefix>, parts: &[&[u32]]) -> Result<Vec<Prefix>> {
        let engine = self.llama.engine();
        let mut sequences =
            parts.iter().map(|tokens| engine.sequence(onto, tokens.len())).collect::<Result<Vec<_>>>()?;
        let mut work: Vec<_> = sequences.iter_mut().zip(parts.iter().copied()).collect();
        engine.forward(&mut work, llama::Wanted::None)?;
        sequences.into_iter().map(|sequence| engine.share(sequence)).collect()
    }

    /// What the letters of its tokens are.
    fn letter_tokens(&self) -> Result<&Tokens> {
        match self.tokens.get() {
            Some(tokens) => Ok(tokens),
            None => {
                let tokens = Tokens::of(self.llama.tokenizer())?;
                Ok(self.tokens.get_or_init(|| tokens))
            }
        }
    }

    /// What the options' letters are worth after each prompt of a batch of groups.
    fn score(
        &self,
        batch: &[Group],
        prompts: &[Vec<u32>],
        questions: &[Question],
        prefix: Option<&Prefix>,
        least_share: f64,
    ) -> Result<Vec<Said>> {
        let engine = self.llama.engine();
        let _span = (span!("prefill"), on_device(engine.gpu(), "prefill", ""));
        let nested: Vec<&Group> = batch.iter().filter(|g| g.shares_more()).collect();
        let parts: Vec<&[u32]> = nested.iter().map(|g| &prompts[g.members[0]][g.common..g.shared]).collect();
        let mut own = match parts.is_empty() {
            true => Vec::new(),
            false => self.prefixes(prefix, &parts)?,
        }
        .into_iter();
        let (mut sequences, mut inputs) = (Vec::new(), Vec::new());
        for group in batch {
            let of_group = if group.shares_more() { own.next() } else { None };
            for &member in &group.members {
                let tokens = &prompts[member][group.shared..];
                sequences.push(engine.sequence(of_group.as_ref().or(prefix), tokens.len())?);
                inputs.push(tokens);
            }
        }
        let mut work: Vec<_> = sequences.iter_mut().zip(inputs).collect();
        let members = || batch.iter().flat_map(|g| &g.members);
        let letters = members().map(|&member| self.letters(questions[member].options)).collect::<Result<Vec<_>>>()?;
        if least_share > 0.0 {
            let tokens = self.letter_tokens()?;
            let logits = engine.forward(&mut work, llama::Wanted::Last)?;
            let options: Vec<usize> = members().map(|&member| questions[member].options).collect();
            let rows = logits.par_chunks_exact(self.llama.config().vocab_size).zip(&letters).zip(options);
            return rows
                .map(|((row, letters), options)| match tokens.share(row, options)? {
                    share if share < least_share => Ok(begun(self.likeliest(row)?)),
                    _ => Ok(Said::Letters(Decoder::of_letters(letters, |token| row.get(token as usize).copied())?)),
                })
                .collect();
        }
        // Whatever else the model would say, the letters are compared: the rest of the last layer is spared.
        let wanted: BTreeSet<u32> = letters.iter().flatten().flatten().copied().collect();
        let wanted: Vec<u32> = wanted.into_iter().collect();
        let logits = engine.logits_of(&mut work, &wanted)?;
        let of_token = |row: &[f32], token| row.get(wanted.partition_point(|&other| other < token)).copied();
        let rows = logits.chunks_exact(wanted.len().max(1)).zip(&letters);
        rows.map(|(row, letters)| Ok(Said::Letters(Decoder::of_letters(letters, |token| of_token(row, token))?)))
            .collect()
    }

    /// What the most likely token reads as.
    fn likeliest(&self, logits: &[f32]) -> Result<String> {
        let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(id, _)| id as u32);
        self.llama.tokenizer().decode(&best.into_iter().collect::<Vec<_>>())
    }

    /// Log of the summed exponentials of each letter's tokens.
    fn of_letters(letters: &[Vec<u32>], logit: impl Fn(u32) -> Option<f32>) -> Result<Vec<f32>> {
        if let Some(token) = letters.iter().flatten().find(|token| logit(**token).is_none()) {
            let reason = format!("the tokenizer numbers a letter {token}, which is beyond the model's vocabulary");
            return Err(Error::invalid(reason));
        }
        let sum = |tokens: &Vec<u32>| {
            let values = || tokens.iter().filter_map(|&token| logit(token));
            let highest = values().fold(f32::NEG_INFINITY, f32::max);
            highest + values().map(|l| (l - highest).exp()).sum::<f32>().ln()
        };
        let letters: Vec<f32> = letters.iter().map(sum).collect();
        match letters.iter().all(|l| l.is_finite()) {
            true => Ok(letters),
            false => Err(Error::invalid(NOT_FINITE)),
        }
    }
}

/// What an answer says that begins with this and with no letter.
fn begun(first: String) -> Said {
    if thought::opens(first.trim()) { Said::Unfinished(first) } else { Said::Unsure(first) }
}

impl LanguageModel for Decoder {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn answer(
        &mut self,
        questions: &[Question],
        wanted: Wanted,
        on_reply: &mut dyn FnMut(usize, Reply) -> Result<()>,
    ) -> Result<()> {
        let tokenizing = span!("tokens");
        let prompts: Vec<Vec<u32>> = questions.par_iter().map(|q| self.tokens(&q.prompt)).collect::<Result<_>>()?;
        drop(tokenizing);
        let room = match wanted {
            Wanted::Text { max_new_tokens } => max_new_tokens - 1,
            Wanted::Letters { .. } => 0,
        };
        let context = self.llama.config().context;
        let (asked, too_long): (Vec<usize>, Vec<usize>) =
            (0..questions.len()).partition(|&i| prompts[i].len().saturating_add(room) <= context);
        for i in too_long.into_iter().filter(|&i| !questions[i].answered) {
            let reason = format!(
                "its instruction has {} tokens and its answer up to {}, the model's context only {context}; lower --k, \
                 --description-words or --sentence-words",
                prompts[i].len(),
                room + 1
            );
            let said = Said::Refused(reason);
            on_reply(i, Reply { said, prompt_tokens: prompts[i].len(), computed_tokens: 0, new_tokens: 0 })?;
        }
        let shares = self.batching.share && asked.len() > 1;
        let common = if shares { common_len(asked.iter().map(|&i| &prompts[i])) } else { 0 };
        let common = if common < LEAST_SHARED { 0 } else { common };
        let prefix = match asked.first() {
            Some(&first) if common > 0 => {
                let _span = (span!("prefix"), on_device(self.llama.engine().gpu(), "prefix", ""));
                Some(self.llama.prefill_prefix(None, &prompts[first][..common])?)
            }
            _ => None,
        };
        // Shared tokens count for whichever question comes first.
        let mut uncounted = common;
        let groups = groups(questions, &asked, &prompts, common, self.batching.share, room);
        for batch in batches(&groups, self.batching.tokens) {
            next_step();
            let _span = span!("questions");
            let batch = &groups[batch];
            let open = batch.iter().flat_map(|g| &g.members).any(|&member| !questions[member].answered);
            let said: Vec<(Said, usize)> = match wanted {
                _ if !open => Vec::new(),
                Wanted::Letters { least_share } => {
                    let said = self.score(batch, &prompts, questions, prefix.as_ref(), least_share)?;
                    said.into_iter().map(|said| (said, 0)).collect()
                }
                Wanted::Text { max_new_tokens } => {
                    let members = batch.iter().flat_map(|g| &g.members);
                    let inputs: Vec<&[u32]> = members.map(|&m| &prompts[m][common..]).collect();
                    let sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 0 };
                    let how = Generation { sampling, max_new_tokens };
                    let go_on = |_, _| ControlFlow::Continue(());
                    let (answers, _) = self.llama.generate(prefix.as_ref(), &inputs, how, go_on)?;
                    let text =
                        |a: &llama::Answer| Ok((Said::Text(self.llama.tokenizer().decode(&a.tokens)?), a.tokens.len()));
                    answers.iter().map(text).collect::<Result<_>>()?
                }
            };
            let mut said = said.into_iter();
            for group in batch {
                uncounted += group.shared - group.common;
                for &member in &group.members {
                    let computed_tokens = prompts[member].len() - group.shared + std::mem::take(&mut uncounted);
                    let prompt_tokens = prompts[member].len();
                    let Some((said, new_tokens)) = said.next().filter(|_| !questions[member].answered) else {
                        continue;
                    };
                    on_reply(member, Reply { said, prompt_tokens, computed_tokens, new_tokens })?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
