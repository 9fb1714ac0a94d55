//! KAR by the engine's own decoder. What prompts begin with in common is computed once: all of them the template's
//! fixed text, those of one mention its sentence besides.

use std::cmp::Reverse;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use rayon::prelude::*;

use super::instruction::{Prompt, letter};
use super::model::{LanguageModel, Question, Reply, Said, Wanted};
use crate::device::Gpu;
use crate::encoder::Fingerprint;
use crate::error::{Error, Result};
use crate::llama::{self, Generation, Llama, Message, Prefix, Sampling};

/// Fewer common tokens than this are not worth a prefix of their own.
const LEAST_SHARED: usize = 8;

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
        Ok(Decoder { llama, identity, style, batching })
    }

    /// Opens a Hugging Face directory ([`Llama::open`]).
    pub fn open(
        folder: &Path,
        precision: Option<llama::Precision>,
        gpu: Option<&Gpu>,
        plain: bool,
        batching: Batching,
    ) -> Result<Decoder> {
        let llama = Llama::open(folder, precision, gpu)?;
        let listed = std::fs::read_dir(folder).map_err(Error::io(folder, "read"))?;
        let names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> =
            names.filter(|n| [".json", ".jinja", ".safetensors"].iter().any(|end| n.ends_with(end))).collect();
        names.sort_unstable();
        let files = Fingerprint::of(folder, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
        let style = if plain { "plain" } else { "chat" };
        let identity = format!("llama {} ({}, {style})", files.as_str(), llama.precision());
        Decoder::new(llama, identity, plain, batching)
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
    fn letters(&self, options: usize) -> Result<Vec<Vec<usize>>> {
        let id = |before: &str, i: usize| self.llama.tokenizer().id(&format!("{before}{}", letter(i)));
        // As the vocabularies of byte-level and SentencePiece tokenizers write a space.
        let ways: Vec<&str> =
            ["", "\u{120}", "\u{2581}"].into_iter().filter(|b| (0..options).all(|i| id(b, i).is_some())).collect();
        if ways.is_empty() {
            let reason = "the model's tokenizer lacks a token for each of the options' letters; use --scoring generate";
            return Err(Error::invalid(reason));
        }
        Ok((0..options).map(|i| ways.iter().filter_map(|b| Some(id(b, i)? as usize)).collect()).collect())
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

    /// Logits of the options' letters after each prompt of a batch of groups.
    fn score(
        &self,
        batch: &[Group],
        prompts: &[Vec<u32>],
        questions: &[Question],
        prefix: Option<&Prefix>,
    ) -> Result<Vec<Vec<f32>>> {
        let engine = self.llama.engine();
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
        let logits = engine.forward(&mut work, llama::Wanted::Last)?;
        let members = batch.iter().flat_map(|g| &g.members);
        let rows = logits.chunks_exact(self.llama.config().vocab_size).zip(members);
        rows.map(|(row, &member)| self.of_letters(row, questions[member].options)).collect()
    }

    /// Log of the summed exponentials of each letter's tokens.
    fn of_letters(&self, logits: &[f32], options: usize) -> Result<Vec<f32>> {
        let sum = |tokens: &Vec<usize>| {
            let values = || tokens.iter().filter_map(|&t| logits.get(t).copied());
            let highest = values().fold(f32::NEG_INFINITY, f32::max);
            highest + values().map(|l| (l - highest).exp()).sum::<f32>().ln()
        };
        let letters: Vec<f32> = self.letters(options)?.iter().map(sum).collect();
        match letters.iter().all(|l| l.is_finite()) {
            true => Ok(letters),
            false => Err(Error::invalid("the model's logits are no finite numbers; are its weights whole?")),
        }
    }
}

/// Questions about one mention.
#[derive(Debug)]
struct Group {
    /// Their positions.
    members: Vec<usize>,
    /// Tokens in common with all other groups.
    common: usize,
    /// Tokens that all members have in common, at least as many.
    shared: usize,
    /// Tokens to compute for it.
    cost: usize,
}

impl Group {
    /// Whether its members share a prefix of their own.
    fn shares_more(&self) -> bool {
        self.shared > self.common
    }
}

/// Length of what all of these begin with, and at least one token less than any has.
fn common_len<'a>(prompts: impl Iterator<Item = &'a Vec<u32>>) -> usize {
    let mut prompts = prompts;
    let Some(first) = prompts.next() else { return 0 };
    prompts.fold(first.len().saturating_sub(1), |len, other| {
        let same = first.iter().zip(other).take(len).take_while(|(a, b)| a == b).count();
        same.min(other.len().saturating_sub(1))
    })
}

/// Groups of questions, the longest first, so that what needs most memory comes at once and the time left is not
/// underestimated.
fn groups(
    questions: &[Question],
    asked: &[usize],
    prompts: &[Vec<u32>],
    common: usize,
    share: bool,
    room: usize,
) -> Vec<Group> {
    let mut groups: Vec<Group> = asked
        .chunk_by(|&a, &b| questions[a].group == questions[b].group)
        .map(|members| {
            let in_common = common_len(members.iter().map(|&m| &prompts[m]));
            let more = share && members.len() > 1 && in_common >= common + LEAST_SHARED;
            let shared = if more { in_common } else { common };
            let own: usize = members.iter().map(|&m| prompts[m].len() - shared + room).sum();
            Group { members: members.to_vec(), common, shared, cost: own + shared - common }
        })
        .collect();
    groups.sort_by_key(|g| Reverse(g.cost));
    groups
}

/// Cuts groups into batches of at most so many tokens, or of one group.
fn batches(groups: &[Group], tokens: usize) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut used = 0;
    for (i, group) in groups.iter().enumerate() {
        match batches.last_mut().filter(|_| used + group.cost <= tokens) {
            Some(batch) => batch.end = i + 1,
            None => {
                batches.push(i..i + 1);
                used = 0;
            }
        }
        used += group.cost;
    }
    batches
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
        let prompts: Vec<Vec<u32>> = questions.par_iter().map(|q| self.tokens(&q.prompt)).collect::<Result<_>>()?;
        let room = match wanted {
            Wanted::Text { max_new_tokens } => max_new_tokens - 1,
            Wanted::Letters => 0,
        };
        let context = self.llama.config().context;
        let (asked, too_long): (Vec<usize>, Vec<usize>) =
            (0..questions.len()).partition(|&i| prompts[i].len() + room <= context);
        for i in too_long {
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
            Some(&first) if common > 0 => Some(self.llama.prefill_prefix(None, &prompts[first][..common])?),
            _ => None,
        };
        // Shared tokens count for whichever question comes first.
        let mut uncounted = common;
        let groups = groups(questions, &asked, &prompts, common, self.batching.share, room);
        for batch in batches(&groups, self.batching.tokens) {
            let batch = &groups[batch];
            let said: Vec<(Said, usize)> = match wanted {
                Wanted::Letters => {
                    let letters = self.score(batch, &prompts, questions, prefix.as_ref())?;
                    letters.into_iter().map(|logits| (Said::Letters(logits), 0)).collect()
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
                for (&member, (said, new_tokens)) in group.members.iter().zip(&mut said) {
                    let computed_tokens = prompts[member].len() - group.shared + std::mem::take(&mut uncounted);
                    let prompt_tokens = prompts[member].len();
                    on_reply(member, Reply { said, prompt_tokens, computed_tokens, new_tokens })?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_prompts_begin_with_leaves_each_a_token() {
        let common = |prompts: &[&[u32]]| common_len(prompts.iter().map(|p| p.to_vec()).collect::<Vec<_>>().iter());
        assert_eq!(common(&[&[1, 2, 3, 4], &[1, 2, 5], &[1, 2, 3]]), 2);
        assert_eq!(common(&[&[1, 2, 3], &[1, 2]]), 1);
        assert_eq!(common(&[&[1, 2, 3], &[1, 2, 3]]), 2);
        assert_eq!((common(&[&[1, 2]]), common(&[&[2], &[1]]), common(&[])), (1, 0, 0));
    }

    #[test]
    fn batches_hold_every_group_once_and_few_tokens() {
        let group = |cost| Group { members: vec![cost], common: 0, shared: 0, cost };
        let groups: Vec<Group> = [90, 40, 30, 30, 20, 10].map(group).into();
        assert_eq!(batches(&groups, 60), [0..1, 1..2, 2..4, 4..6]);
        assert_eq!(batches(&groups, 150), [0..2, 2..6]);
        assert!(batches(&[], 10).is_empty());
    }

    fn decoder(share: bool, tokens: usize) -> (Decoder, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let texts = ["Which one is meant? Answer with a letter: A, B or C.", "The king of Jordan, a river"];
        let config = llama::Preset::Tiny.config();
        llama::write_random(folder.path(), &config, llama::Precision::F32, 5, texts.into_iter()).unwrap();
        let decoder = Decoder::open(folder.path(), None, None, false, Batching { tokens, share }).unwrap();
        (decoder, folder)
    }

    /// Three mentions, the second of which is asked under three rotations.
    fn questions() -> Vec<Question> {
        let texts = ["The king of Jordan spoke.", "A river that is in the north of Jordan.", "Jordan."];
        let question = |group: usize, options: [&str; 3]| {
            let user = format!("Which one is meant? {} {}", texts[group], options.join(", "));
            let prompt = Prompt { system: "Answer with a letter.".into(), user, reply: "Answer:".into() };
            Question { mention: group.to_string(), group, prompt, options: 3 }
        };
        let one = ["A. the river", "B. the king", "C. the place"];
        let rotated =
            [["A. the king", "B. the place", "C. the river"], ["A. the place", "B. the river", "C. the king"]];
        vec![question(0, one), question(1, one), question(1, rotated[0]), question(1, rotated[1]), question(2, one)]
    }

    fn replies(decoder: &mut Decoder, wanted: Wanted) -> Vec<Reply> {
        let questions = questions();
        let mut replies = vec![None; questions.len()];
        decoder
            .answer(&questions, wanted, &mut |i, reply| {
                assert!(replies[i].replace(reply).is_none());
                Ok(())
            })
            .unwrap();
        replies.into_iter().map(Option::unwrap).collect()
    }

    #[test]
    fn shared_and_batched_prompts_give_what_each_alone_gives() {
        let questions = questions();
        for (share, tokens) in [(true, 4096), (true, 1), (false, 4096), (false, 90)] {
            let (mut decoder, _folder) = decoder(share, tokens);
            let letters = replies(&mut decoder, Wanted::Letters);
            let texts = replies(&mut decoder, Wanted::Text { max_new_tokens: 5 });
            let prompts: Vec<Vec<u32>> = questions.iter().map(|q| decoder.tokens(&q.prompt).unwrap()).collect();
            for (i, prompt) in prompts.iter().enumerate() {
                let logits = decoder.llama.logits(prompt).unwrap();
                let last = &logits.data()[(prompt.len() - 1) * decoder.llama.config().vocab_size..];
                let id = |i: usize| decoder.llama.tokenizer().id(["A", "B", "C"][i]).unwrap() as usize;
                let Said::Letters(got) = &letters[i].said else { panic!("{:?}", letters[i]) };
                for (letter, got) in got.iter().enumerate() {
                    // This tokenizer knows letters without a space only. Summation in another order costs some bits.
                    let want = last[id(letter)];
                    assert!((got - want).abs() < 1e-4 * want.abs().max(1.0), "{got} {want}");
                }
                let how =
                    Generation { sampling: Sampling { temperature: 0.0, top_p: 1.0, seed: 0 }, max_new_tokens: 5 };
                let go_on = |_, _| ControlFlow::Continue(());
                let (answers, _) = decoder.llama.generate(None, &[prompt], how, go_on).unwrap();
                let want = decoder.llama.tokenizer().decode(&answers[0].tokens).unwrap();
                assert_eq!(texts[i].said, Said::Text(want));
                assert_eq!((letters[i].prompt_tokens, letters[i].new_tokens), (prompt.len(), 0));
            }
            let sum = |of: fn(&Reply) -> usize| letters.iter().map(of).sum::<usize>();
            let (all, computed) = (sum(|r| r.prompt_tokens), sum(|r| r.computed_tokens));
            if share {
                let common = common_len(prompts.iter());
                let of_one = common_len(prompts[1..4].iter());
                assert!(of_one >= common + LEAST_SHARED, "the sentence is shared by its rotations");
                assert_eq!(all - computed, 4 * common + 2 * (of_one - common));
            } else {
                assert_eq!(all, computed);
            }
        }
    }

    #[test]
    fn a_template_without_system_messages_gets_them_with_the_question() {
        let (decoder, _folder) = decoder(true, 100);
        assert_eq!(decoder.style, Style::ChatWithoutSystem);
        let tokens = decoder.tokens(&questions()[0].prompt).unwrap();
        let text = decoder.llama.tokenizer().decode(&tokens).unwrap();
        assert!(
            text.contains("[INST] Answer with a letter.\n\nWhich one") && text.ends_with("[/INST] Answer:"),
            "{text}"
        );
    }
}
