//! The decoder (Touvron et al., 2023): the one definition, for every device.
//!
//! ```text
//! x = embedding[tokens]
//! x += attention(rms_norm(x));  x += down(silu(gate(n)) · up(n)), n = rms_norm(x)     for each layer
//! logits = head(rms_norm(x))
//! ```

use std::sync::Arc;

use super::backend::{Ask, Backend, KvCache, Output, Span};
use super::checkpoint::Checkpoint;
use super::sequence::{Owner, Prefix, Sequence};
use super::{LlamaConfig, layout};
use crate::error::{Error, Result};
use crate::ops::sample::Draw;

/// Which positions' logits a forward pass is to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those of each sequence's last token.
    Last,
    /// Those of every token.
    All,
    /// None: only keys and values are needed.
    None,
}

/// A decoder on any device: what [`super::Llama`] calls.
pub trait Engine: Send + Sync {
    /// An empty sequence of up to `room` tokens after those of a prefix.
    fn sequence(&self, prefix: Option<&Prefix>, room: usize) -> Result<Sequence>;

    /// Makes a sequence's tokens a prefix for others.
    fn share(&self, sequence: Sequence) -> Result<Prefix>;

    /// Appends tokens to each sequence (at least one to each), and returns the wanted logits, row by row (rows, vocab).
    fn forward(&self, batch: &mut [(&mut Sequence, &[u32])], wanted: Wanted) -> Result<Vec<f32>>;

    /// The same of the logits after each sequence's last token; of these, those of some tokens (sequences, tokens).
    fn logits_of(&self, batch: &mut [(&mut Sequence, &[u32])], tokens: &[u32]) -> Result<Vec<f32>>;

    /// The same, and chooses the token that follows each sequence, as its draw says. Only tokens leave the device, and
    /// one that goes in next, with the same sequences beside it, is there already.
    fn choose(&self, batch: &mut [(&mut Sequence, &[u32])], draws: &[Draw]) -> Result<Vec<u32>>;
}

/// Weights on a device.
pub struct Decoder<B: Backend> {
    owner: Owner,
    backend: B,
    config: LlamaConfig,
    embedding: B::Weight,
    layers: Vec<Layer<B>>,
    norm: B::Gain,
    /// `None` if the embedding's matrix is the last layer too.
    head: Option<B::Weight>,
}

struct Layer<B: Backend> {
    attention_norm: B::Gain,
    qkv: B::Weight,
    out: B::Weight,
    mlp_norm: B::Gain,
    gates: B::Gates,
    down: B::Weight,
}

impl<B: Backend> Decoder<B> {
    /// Takes the weights of a checkpoint, one layer after the other, so that no more than one matrix exists twice.
    pub fn load(backend: B, checkpoint: &Checkpoint) -> Result<Decoder<B>> {
        let config = checkpoint.config().clone();
        let layer = |i: usize| -> Result<Layer<B>> {
            let name = |part: &str| format!("model.layers.{i}.{part}");
            let gain = |part: &str| backend.gain(checkpoint.vector(&name(part))?);
            let matrix = |part: &str| checkpoint.matrix(&name(part));
            let stacked =
                |parts: &[&str]| backend.weight(parts.iter().map(|part| matrix(part)).collect::<Result<_>>()?);
            Ok(Layer {
                attention_norm: gain("input_layernorm")?,
                qkv: stacked(&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"])?,
                out: stacked(&["self_attn.o_proj"])?,
                mlp_norm: gain("post_attention_layernorm")?,
                gates: backend.gates(matrix("mlp.gate_proj")?, matrix("mlp.up_proj")?)?,
                down: stacked(&["mlp.down_proj"])?,
            })
        };
        let layers = (0..config.layers).map(layer).collect::<Result<_>>()?;
        Ok(Decoder {
            owner: Owner::new(),
            embedding: backend.weight(vec![checkpoint.matrix(layout::EMBEDDING)?])?,
            layers,
            norm: backend.gain(checkpoint.vector(layout::NORM)?)?,
            head: match config.tied {
                true => None,
                false => Some(backend.weight(vec![checkpoint.matrix(layout::HEAD)?])?),
            },
            backend,
            config,
        })
    }

    /// One pass over at most `max_rows` tokens.
    fn pass(
        &self,
        tokens: &[u32],
        spans: &[Span],
        caches: &mut [&mut B::Cache],
        wanted: &[usize],
        ask: Ask,
    ) -> Result<Output> {
        let plan = self.backend.plan(tokens, spans, caches)?;
        let output = self.backend.execute(plan, wanted, ask, |plan| self.network(plan, caches, wanted))?;
        caches.iter_mut().zip(spans).for_each(|(cache, span)| cache.advance(span.rows));
        Ok(output)
    }

    /// Logits of the wanted rows (wanted, vocab), if there are any.
    fn network(&self, plan: &B::Plan, caches: &mut [&mut B::Cache], wanted: &[usize]) -> Result<Option<B::Rows>> {
        let backend = &self.backend;
        let mut x = backend.embed(plan, &self.embedding)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let qkv = backend.linear(&backend.rms_norm(&x, &layer.attention_norm)?, &layer.qkv)?;
            let mut context = backend.attend(plan, index, qkv, caches)?;
            // Behind the last keys and values only the wanted rows matter.
            if index + 1 == self.layers.len() {
                if wanted.is_empty() {
                    return Ok(None);
                }
                (context, x) = (backend.select(context, wanted)?, backend.select(x, wanted)?);
            }
            backend.add_linear(&mut x, &context, &layer.out)?;
            let inner = backend.gated(&backend.rms_norm(&x, &layer.mlp_norm)?, &layer.gates)?;
            backend.add_linear(&mut x, &inner, &layer.down)?;
        }
        let x = backend.rms_norm(&x, &self.norm)?;
        backend.logits(&x, self.head.as_ref().unwrap_or(&self.embedding)).map(Some)
    }

    /// Appends tokens to each sequence, in passes of at most as many rows as the device takes.
    fn run(&self, batch: &mut [(&mut Sequence, &[u32])], wanted: Wanted, ask: Ask) -> Result<Output> {
        let mut work: Vec<(&mut B::Cache, &[u32])> = Vec::with_capacity(batch.len());
        for (sequence, tokens) in batch {
            let cache = sequence.cache_mut::<B::Cache>(self.owner)?;
            self.check(cache, tokens)?;
            work.push((cache, tokens));
        }
        let mut output = Output::default();
        // Passes of at most `max_rows` rows; the batch's order stays, and a long sequence goes through several.
        let limit = self.backend.max_rows().max(1);
        let (mut next, mut done) = (0, 0);
        while next < work.len() {
            let (mut tokens, mut spans, mut rows) = (Vec::new(), Vec::new(), Vec::new());
            let first = next;
            while next < work.len() && tokens.len() < limit {
                let (cache, all) = &work[next];
                let taken = (all.len() - done).min(limit - tokens.len());
                let start = tokens.len();
                spans.push(Span { start, rows: taken, position: cache.len() });
                tokens.extend_from_slice(&all[done..done + taken]);
                done += taken;
                match wanted {
                    Wanted::All => rows.extend(start..start + taken),
                    Wanted::Last if done == all.len() => rows.push(start + taken - 1),
                    _ => {}
                }
                if done == all.len() {
                    (next, done) = (next + 1, 0);
                }
            }
            let mut caches: Vec<&mut B::Cache> =
                work[first..].iter_mut().take(spans.len()).map(|(cache, _)| &mut **cache).collect();
            let ask = match ask {
                Ask::Tokens(draws) => Ask::Tokens(&draws[output.tokens.len()..][..rows.len()]),
                other => other,
            };
            let Output { logits, tokens } = self.pass(&tokens, &spans, &mut caches, &rows, ask)?;
            output.logits.extend(logits);
            output.tokens.extend(tokens);
        }
        Ok(output)
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let vocabulary = self.config.vocab_size;
        match tokens.iter().find(|&&id| id as usize >= vocabulary) {
            None => Ok(()),
            Some(id) => Err(Error::invalid(format!(
                "token {id} is beyond the vocabulary of {vocabulary}; is it another model's tokenizer?"
            ))),
        }
    }

    fn check(&self, cache: &B::Cache, tokens: &[u32]) -> Result<()> {
        self.check_tokens(tokens)?;
        if tokens.is_empty() {
            return Err(Error::shape("llama", "a sequence without new tokens"));
        }
        if cache.len() + tokens.len() > cache.capacity() {
            let reason = format!("{} tokens onto {} of {}", tokens.len(), cache.len(), cache.capacity());
            return Err(Error::shape("llama", reason));
        }
        Ok(())
    }
}

impl<B: Backend> Engine for Decoder<B> {
    fn sequence(&self, prefix: Option<&Prefix>, room: usize) -> Result<Sequence> {
        let before = prefix.map_or(0, Prefix::len);
        let (all, context) = (before.saturating_add(room), self.config.context);
        if all > context {
            return Err(Error::invalid(format!(
                "{all} tokens are more than the model's context of {context}; shorten the prompt or ask for fewer new tokens"
            )));
        }
        let shared = prefix.map(|prefix| prefix.cache::<B::Cache>(self.owner)).transpose()?;
        Ok(Sequence::new(self.owner, self.backend.cache(shared, room)?))
    }

    fn share(&self, sequence: Sequence) -> Result<Prefix> {
        let cache: B::Cache = sequence.into_cache(self.owner)?;
        Ok(Prefix::new(self.owner, cache.len(), Arc::new(cache)))
    }

    fn forward(&self, batch: &mut [(&mut Sequence, &[u32])], wanted: Wanted) -> Result<Vec<f32>> {
        Ok(self.run(batch, wanted, Ask::Logits)?.logits)
    }

    fn logits_of(&self, batch: &mut [(&mut Sequence, &[u32])], tokens: &[u32]) -> Result<Vec<f32>> {
        self.check_tokens(tokens)?;
        Ok(self.run(batch, Wanted::Last, Ask::Of(tokens))?.logits)
    }

    fn choose(&self, batch: &mut [(&mut Sequence, &[u32])], draws: &[Draw]) -> Result<Vec<u32>> {
        if batch.len() != draws.len() {
            return Err(Error::shape("llama", format!("{} draws for {} sequences", draws.len(), batch.len())));
        }
        Ok(self.run(batch, Wanted::Last, Ask::Tokens(draws))?.tokens)
    }
}
