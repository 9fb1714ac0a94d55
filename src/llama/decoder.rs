//! The decoder (Touvron et al., 2023): the one definition, for every device.
//!
//! ```text
//! x = embedding[tokens];  n = rms_norm(x)
//! x += out(attention(qkv(n)));  n = rms_norm(x);  x += down(silu(gate(n)) · up(n));  n = rms_norm(x)     for each layer
//! logits = head(n)
//! ```

use super::checkpoint::Checkpoint;
use super::pass::{Ask, Output, Passes};
use super::sequence::{Owner, Prefix, Sequence};
use super::{LlamaConfig, layout};
use crate::device::Gpu;
use crate::device::cuda::Arithmetic;
use crate::error::{Error, Result};
use crate::ops::linear::stored::{Input, StoredLinear, SwiGlu};
use crate::ops::paged_attention::{Batch, Cache, Heads, Span};
use crate::ops::rms_norm::RmsNorm;
use crate::ops::sample::Draw;
use crate::tensor::{Element, Precision, Tensor};

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
///
/// On a device weights are in their precision, activations in bf16 or f16, everything that is summed up in f32. With
/// f32 weights, or under f32 arithmetic, activations are f32 too: slow, for comparison. On the host weights are where
/// they are, activations f32.
pub struct Decoder {
    owner: Owner,
    config: LlamaConfig,
    heads: Heads,
    gpu: Option<Gpu>,
    passes: Passes,
    /// Bytes of the activations of a pass on a device.
    activations: usize,
    embedding: StoredLinear,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// `None` if the embedding's matrix is the last layer too.
    head: Option<StoredLinear>,
}

/// Hears what goes into a product of a pass: the block (none: behind all of them), the first of the matrices that take it,
/// and the rows (rows, columns).
type Observer<'a> = &'a mut (dyn FnMut(Option<usize>, &str, &Input) -> Result<()> + Send);

struct Layer {
    attention_norm: RmsNorm,
    qkv: StoredLinear,
    /// Of queries, keys and values, one behind the other.
    qkv_bias: Option<Tensor>,
    out: StoredLinear,
    mlp_norm: RmsNorm,
    gates: SwiGlu,
    down: StoredLinear,
}

/// The most rows of a forward pass; longer batches are cut. On a device they keep the tensor cores busy, and the widest
/// activations of a 7B model take 0.3 GB; on the host they pay for packing the weights, and those take some tens of MB.
const MAX_ROWS: [usize; 2] = [1024, 2048];

/// Type of cached keys and values, on a device of activations too.
pub(super) fn element(precision: Precision, device: Option<Arithmetic>) -> Element {
    match (device, precision) {
        (Some(Arithmetic::F32), _) | (None, Precision::F32) => Element::F32,
        (Some(_), precision) => precision.element(),
        (None, _) => Element::F16,
    }
}

/// Bytes of the activations of a pass of so many rows as a device takes, and of the weights that become f16 for it.
pub(super) fn activations(config: &LlamaConfig, precision: Precision, element: Element, device: bool) -> usize {
    let widest = config.intermediate_size.max(3 * config.query_width() + 2 * config.kv_width());
    let rows =
        MAX_ROWS[usize::from(device)] * ((widest + config.hidden_size) * element.size() + 4 * config.hidden_size);
    let unpacked = match precision {
        Precision::Blocks(_) if device => 2 * 2 * config.intermediate_size * config.hidden_size,
        _ => 0,
    };
    rows + unpacked
}

/// Most passes are not looked at.
fn unobserved(_: Option<usize>, _: &str, _: &Input) -> Result<()> {
    Ok(())
}

impl Decoder {
    /// Takes the weights of a checkpoint, one layer after the other, so that no more than one matrix exists twice.
    ///
    /// Fails if a device's kernels do not take its sizes, or if the weights do not fit into the device's memory; the
    /// error says in which precision they would.
    pub fn load(checkpoint: &Checkpoint, gpu: Option<&Gpu>) -> Result<Decoder> {
        let config = checkpoint.config().clone();
        let element = element(checkpoint.precision(), gpu.map(Gpu::arithmetic));
        let heads = Heads { queries: config.heads, kv: config.kv_heads, size: config.head_dim, element };
        let activations = activations(&config, checkpoint.precision(), element, true);
        if let Some(gpu) = gpu {
            heads.check()?;
            checkpoint.expect_room(gpu, activations)?;
        }
        let norm = |layer: &str| RmsNorm::new(&checkpoint.vector(layer)?, config.rms_norm_eps, element, gpu);
        let linear = |layers: &[&str]| {
            StoredLinear::new(layers.iter().map(|layer| checkpoint.matrix(layer)).collect::<Result<_>>()?, gpu)
        };
        let bias = |layers: &[&str]| -> Result<Tensor> {
            let parts = layers.iter().map(|layer| checkpoint.vector(&format!("{layer}.bias")));
            let values = parts.map(|part| Ok(part?.data().to_vec())).collect::<Result<Vec<_>>>()?.concat();
            Tensor::new([values.len()], values)?.to(gpu)
        };
        let layer = |i: usize| -> Result<Layer> {
            let name = |part: &str| layout::of_block(i, part);
            let [q, k, v] = ["q", "k", "v"].map(|part| name(&format!("self_attn.{part}_proj")));
            let matrix = |part: &str| checkpoint.matrix(&name(part));
            Ok(Layer {
                attention_norm: norm(&name("input_layernorm"))?,
                qkv_bias: match config.qkv_bias {
                    true => Some(bias(&[&q, &k, &v])?),
                    false => None,
                },
                qkv: linear(&[&q, &k, &v])?,
                out: linear(&[&name("self_attn.o_proj")])?,
                mlp_norm: norm(&name("post_attention_layernorm"))?,
                gates: SwiGlu::new(matrix("mlp.gate_proj")?, matrix("mlp.up_proj")?, gpu)?,
                down: linear(&[&name("mlp.down_proj")])?,
            })
        };
        Ok(Decoder {
            owner: Owner::new(),
            passes: Passes::new(gpu, heads, config.rope.frequencies(config.head_dim)),
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            embedding: linear(&[layout::EMBEDDING])?,
            norm: norm(layout::NORM)?,
            head: if config.tied { None } else { Some(linear(&[layout::HEAD])?) },
            gpu: gpu.cloned(),
            heads,
            activations,
            config,
        })
    }

    /// One pass over at most as many tokens as the device takes.
    fn pass(
        &self,
        tokens: &[u32],
        spans: &[Span],
        caches: &mut [&mut Cache],
        wanted: &[usize],
        ask: Ask,
        observe: Observer,
    ) -> Result<Output> {
        let pass = self.passes.plan(tokens, spans, caches)?;
        let output = self.passes.run(pass, wanted, ask, |batch| self.network(batch, caches, wanted, &mut *observe))?;
        caches.iter_mut().zip(spans).for_each(|(cache, span)| cache.advance(span.rows));
        Ok(output)
    }

    /// Logits of the wanted rows (wanted, vocab), if there are any.
    fn network(
        &self,
        batch: &Batch,
        caches: &mut [&mut Cache],
        wanted: &[usize],
        observe: Observer,
    ) -> Result<Option<Tensor>> {
        let mut x = self.embedding.embed(batch.tokens())?;
        let norms = self.layers.iter().map(|layer| &layer.attention_norm).chain([&self.norm]);
        let mut normalized = norms.clone().next().unwrap_or(&self.norm).forward(&x)?.into();
        for (index, (layer, next_norm)) in self.layers.iter().zip(norms.skip(1)).enumerate() {
            observe(Some(index), "self_attn.q_proj", &normalized)?;
            let qkv = layer.qkv.forward(&normalized)?;
            let mut context = self.heads.attend(batch, index, (qkv, layer.qkv_bias.as_ref()), caches)?;
            // Behind the last keys and values only the wanted rows matter.
            if index + 1 == self.layers.len() {
                if wanted.is_empty() {
                    return Ok(None);
                }
                if !wanted.iter().copied().eq(0..x.count()) {
                    (context, x) = (context.select(wanted)?, x.select(wanted)?);
                }
            }
            let context = context.into();
            observe(Some(index), "self_attn.o_proj", &context)?;
            let attended = layer.mlp_norm.of_sums(&mut x, &layer.out, &context)?;
            observe(Some(index), "mlp.gate_proj", &attended)?;
            let inner = layer.gates.forward(&attended)?.into();
            observe(Some(index), "mlp.down_proj", &inner)?;
            normalized = next_norm.of_sums(&mut x, &layer.down, &inner)?;
        }
        observe(None, layout::HEAD, &normalized)?;
        self.head.as_ref().unwrap_or(&self.embedding).forward_wide(&normalized).map(Some)
    }

    /// Appends tokens to each sequence, in passes of at most as many rows as the device takes.
    fn run(
        &self,
        batch: &mut [(&mut Sequence, &[u32])],
        wanted: Wanted,
        ask: Ask,
        observe: Observer,
    ) -> Result<Output> {
        let mut work: Vec<(&mut Cache, &[u32])> = Vec::with_capacity(batch.len());
        for (sequence, tokens) in batch {
            let cache = sequence.cache_mut(self.owner)?;
            self.check(cache, tokens)?;
            work.push((cache, tokens));
        }
        let mut output = Output::default();
        // The batch's order stays, and a long sequence goes through several passes.
        let limit = MAX_ROWS[usize::from(self.gpu.is_some())];
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
            let mut caches: Vec<&mut Cache> =
                work[first..].iter_mut().take(spans.len()).map(|(cache, _)| &mut **cache).collect();
            let ask = match ask {
                Ask::Tokens(draws) => Ask::Tokens(&draws[output.tokens.len()..][..rows.len()]),
                other => other,
            };
            let Output { logits, tokens } = self.pass(&tokens, &spans, &mut caches, &rows, ask, &mut *observe)?;
            output.logits.extend(logits);
            output.tokens.extend(tokens);
        }
        Ok(output)
    }

    /// Where it computes; `None` is the host.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
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

    fn check(&self, cache: &Cache, tokens: &[u32]) -> Result<()> {
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

    /// An empty sequence of up to `room` tokens after those of a prefix.
    pub fn sequence(&self, prefix: Option<&Prefix>, room: usize) -> Result<Sequence> {
        let before = prefix.map_or(0, Prefix::len);
        let (all, context) = (before.saturating_add(room), self.config.context);
        if all > context {
            return Err(Error::invalid(format!(
                "{all} tokens are more than the model's context of {context}; shorten the prompt or ask for fewer new tokens"
            )));
        }
        let shared = prefix.map(|prefix| prefix.cache(self.owner)).transpose()?;
        let device = self.gpu.as_ref().map(|gpu| (gpu, self.activations));
        Ok(Sequence::new(self.owner, Cache::new(self.heads, self.config.layers, shared, room, device)?))
    }

    /// Makes a sequence's tokens a prefix for others.
    pub fn share(&self, sequence: Sequence) -> Result<Prefix> {
        sequence.into_prefix(self.owner)
    }

    /// Appends tokens to each sequence (at least one to each), and returns the wanted logits, row by row (rows, vocab).
    pub fn forward(&self, batch: &mut [(&mut Sequence, &[u32])], wanted: Wanted) -> Result<Vec<f32>> {
        Ok(self.run(batch, wanted, Ask::Logits, &mut unobserved)?.logits)
    }

    /// Passes one sequence through the network for what goes into its products alone.
    pub(super) fn observe(&self, tokens: &[u32], observe: Observer) -> Result<()> {
        let mut sequence = self.sequence(None, tokens.len())?;
        self.run(&mut [(&mut sequence, tokens)], Wanted::All, Ask::Of(&[0]), observe).map(drop)
    }

    /// The same of the logits after each sequence's last token; of these, those of some tokens (sequences, tokens).
    pub fn logits_of(&self, batch: &mut [(&mut Sequence, &[u32])], tokens: &[u32]) -> Result<Vec<f32>> {
        self.check_tokens(tokens)?;
        Ok(self.run(batch, Wanted::Last, Ask::Of(tokens), &mut unobserved)?.logits)
    }

    /// The same, and chooses the token that follows each sequence, as its draw says. Only tokens leave the device, and
    /// one that goes in next, with the same sequences beside it, is there already.
    pub fn choose(&self, batch: &mut [(&mut Sequence, &[u32])], draws: &[Draw]) -> Result<Vec<u32>> {
        if batch.len() != draws.len() {
            return Err(Error::shape("llama", format!("{} draws for {} sequences", draws.len(), batch.len())));
        }
        Ok(self.run(batch, Wanted::Last, Ask::Tokens(draws), &mut unobserved)?.tokens)
    }
}
