//! The decoder (Touvron et al., 2023): the one definition, for every device.
//!
//! ```text
//! x = embedding[tokens]
//! x += attention(rms_norm(x));  x += down(silu(gate(n)) · up(n)), n = rms_norm(x)     for each layer
//! logits = head(rms_norm(x))
//! ```

use std::any::Any;
use std::sync::Arc;

use super::backend::{Backend, KvCache, Span};
use super::checkpoint::Checkpoint;
use super::sequence::{Prefix, Sequence};
use super::{LlamaConfig, layout};
use crate::error::{Error, Result};

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
}

/// Weights on a device.
pub struct Decoder<B: Backend> {
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
    gate_up: B::Weight,
    down: B::Weight,
}

impl<B: Backend> Decoder<B> {
    /// Takes the weights of a checkpoint, one layer after the other, so that no more than one matrix exists twice.
    pub fn load(backend: B, checkpoint: &Checkpoint) -> Result<Decoder<B>> {
        let config = checkpoint.config().clone();
        let layer = |i: usize| -> Result<Layer<B>> {
            let name = |part: &str| format!("model.layers.{i}.{part}");
            let gain = |part: &str| backend.gain(checkpoint.vector(&name(part))?);
            let stacked = |parts: &[&str]| {
                let parts: Result<Vec<_>> = parts.iter().map(|part| checkpoint.matrix(&name(part))).collect();
                backend.weight(parts?)
            };
            Ok(Layer {
                attention_norm: gain("input_layernorm")?,
                qkv: stacked(&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"])?,
                out: stacked(&["self_attn.o_proj"])?,
                mlp_norm: gain("post_attention_layernorm")?,
                gate_up: stacked(&["mlp.gate_proj", "mlp.up_proj"])?,
                down: stacked(&["mlp.down_proj"])?,
            })
        };
        let layers = (0..config.layers).map(layer).collect::<Result<_>>()?;
        Ok(Decoder {
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
    fn pass(&self, tokens: &[u32], spans: &[Span], caches: &mut [&mut B::Cache], wanted: &[usize]) -> Result<Vec<f32>> {
        let backend = &self.backend;
        let plan = backend.plan(tokens, spans)?;
        let mut x = backend.embed(&plan, &self.embedding)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let qkv = backend.linear(&backend.rms_norm(&x, &layer.attention_norm)?, &layer.qkv)?;
            let context = backend.attend(&plan, index, qkv, caches)?;
            backend.add_linear(&mut x, &context, &layer.out)?;
            let gate_up = backend.linear(&backend.rms_norm(&x, &layer.mlp_norm)?, &layer.gate_up)?;
            backend.add_linear(&mut x, &backend.swiglu(gate_up)?, &layer.down)?;
        }
        caches.iter_mut().zip(spans).for_each(|(cache, span)| cache.advance(span.rows));
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let x = backend.rms_norm(&backend.select(&x, wanted)?, &self.norm)?;
        backend.read(&backend.linear(&x, self.head.as_ref().unwrap_or(&self.embedding))?)
    }

    fn check(&self, cache: &B::Cache, tokens: &[u32]) -> Result<()> {
        let vocabulary = self.config.vocab_size;
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= vocabulary) {
            let reason =
                format!("token {id} is beyond the vocabulary of {vocabulary}; is it another model's tokenizer?");
            return Err(Error::invalid(reason));
        }
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
        if before + room > self.config.context {
            return Err(Error::invalid(format!(
                "{} tokens are more than the model's context of {}; shorten the prompt or ask for fewer new tokens",
                before + room,
                self.config.context
            )));
        }
        let shared = prefix.map(|prefix| prefix.cache::<B::Cache>()).transpose()?;
        Ok(Sequence::new(Box::new(self.backend.cache(shared, room)?)))
    }

    fn share(&self, sequence: Sequence) -> Result<Prefix> {
        let cache: Arc<B::Cache> = Arc::new(sequence.into_cache()?);
        Ok(Prefix::new(cache.len(), cache as Arc<dyn Any + Send + Sync>))
    }

    fn forward(&self, batch: &mut [(&mut Sequence, &[u32])], wanted: Wanted) -> Result<Vec<f32>> {
        let mut work: Vec<(&mut B::Cache, &[u32])> = Vec::with_capacity(batch.len());
        for (sequence, tokens) in batch {
            let cache = sequence.cache_mut::<B::Cache>()?;
            self.check(cache, tokens)?;
            work.push((cache, tokens));
        }
        let mut logits = Vec::new();
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
            logits.extend(self.pass(&tokens, &spans, &mut caches, &rows)?);
        }
        Ok(logits)
    }
}
