//! Llama decoders (Touvron et al., 2023) from Hugging Face directories and GGUF files: Llama 2 and 3, TinyLlama and their
//! kin.
//!
//! [`Llama`] is what callers use. Inside, `decoder` is the one definition of the network, made of [`ops`](crate::ops);
//! keys and values of a [`Prefix`] are computed once and shared by all sequences that start with it.

mod calibration;
mod chat;
mod checkpoint;
mod config;
mod convert;
mod decoder;
mod generation;
mod gguf;
mod layout;
mod pass;
mod perplexity;
mod plan;
mod quantize;
mod random;
mod sampling;
mod sequence;
mod shards;
mod source;

use std::path::Path;
use std::sync::OnceLock;

pub use crate::tensor::Precision;
pub use calibration::Calibration;
pub use chat::{ChatTemplate, Message};
pub use checkpoint::{Checkpoint, rounded_by_a_text};
pub use config::{LlamaConfig, QuantizedConfig, Rope, RopeScaling};
pub use convert::convert;
pub use decoder::{Decoder, Wanted};
pub use generation::{Answer, Generation, GenerationConfig, Spent, Stop};
pub use perplexity::{Foretold, foretell};
pub use plan::Plan;
pub use quantize::quantize;
pub use random::{Preset, write_random};
pub use sampling::{Sampler, Sampling};
pub use sequence::{Prefix, Sequence};
pub use source::Source;

use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::tokenizer::Tokenizer;

/// A decoder with its tokenizer, chat template and generation settings.
pub struct Llama {
    config: LlamaConfig,
    precision: Precision,
    bytes_per_token: u64,
    tokenizer: Tokenizer,
    source: Source,
    /// Read when it is first asked for: a model whose template is broken still continues plain prompts.
    template: OnceLock<ChatTemplate>,
    generation: GenerationConfig,
    engine: Decoder,
}

impl Llama {
    /// Opens a GGUF file, or a Hugging Face directory: `config.json`, `tokenizer.json`, safetensors;
    /// `tokenizer_config.json`, `chat_template.jinja` and `generation_config.json` where there are any. `precision` converts the weights;
    /// without one they stay as they are in the files. `gpu` is where it computes, `None` the CPU.
    ///
    /// Fails before anything is allocated if a file, a shard or a tensor is missing or not as `config.json` says, or if
    /// the architecture is another.
    pub fn open(path: &Path, precision: Option<Precision>, gpu: Option<&Gpu>) -> Result<Llama> {
        let source = Source::open(path)?;
        let checkpoint = Checkpoint::open(&source, precision)?;
        Llama::of(source, &checkpoint, gpu)
    }

    /// The model of an opened checkpoint, whose files are `source`. Fails as [`Llama::open`] does.
    pub fn of(source: Source, checkpoint: &Checkpoint, gpu: Option<&Gpu>) -> Result<Llama> {
        let config = checkpoint.config().clone();
        let tokenizer = source.tokenizer()?;
        let generation = source.generation()?;
        let engine = Decoder::load(checkpoint, gpu)?;
        let (precision, bytes_per_token) = (checkpoint.precision(), checkpoint.bytes_per_token()?);
        let template = OnceLock::new();
        Ok(Llama { config, precision, bytes_per_token, tokenizer, source, template, generation, engine })
    }

    /// Its files.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Sizes and constants.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// What the weights of its blocks are kept in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of weights that a decoding step reads: the matrices of all blocks and of the last layer.
    pub fn bytes_per_token(&self) -> u64 {
        self.bytes_per_token
    }

    /// Texts to token numbers and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// End tokens and the model's own sampling settings.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// How the model wants conversations written. Fails if the directory has no chat template, or one that cannot be
    /// read.
    pub fn template(&self) -> Result<&ChatTemplate> {
        if let Some(template) = self.template.get() {
            return Ok(template);
        }
        let template = self.source.template()?.ok_or_else(|| {
            Error::invalid(
                "the model has no chat template (chat_template.jinja, or `chat_template` in tokenizer_config.json): it is \
                 no chat model; give it plain prompts, or put a template there",
            )
        })?;
        Ok(self.template.get_or_init(|| template))
    }

    /// Token numbers of a conversation, ready for the assistant's answer.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        // The template writes the special tokens itself.
        self.tokenizer.encode(&self.template()?.render(messages, true)?, false)
    }

    /// The decoder alone, for callers that keep sequences of their own.
    pub fn engine(&self) -> &Decoder {
        &self.engine
    }

    /// Computes keys and values of tokens that many sequences start with, once. `onto` is a prefix that they continue.
    pub fn prefill_prefix(&self, onto: Option<&Prefix>, tokens: &[u32]) -> Result<Prefix> {
        let mut sequence = self.engine.sequence(onto, tokens.len())?;
        self.engine.forward(&mut [(&mut sequence, tokens)], Wanted::None)?;
        self.engine.share(sequence)
    }

    /// Logits (vocab) after the last token of each sequence: a prefix, if there is one, and the sequence's own tokens.
    /// All sequences go through the network together; their keys and values are dropped.
    pub fn continue_from(&self, prefix: Option<&Prefix>, batch: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let mut sequences =
            batch.iter().map(|tokens| self.engine.sequence(prefix, tokens.len())).collect::<Result<Vec<_>>>()?;
        let mut work: Vec<_> = sequences.iter_mut().zip(batch.iter().copied()).collect();
        let logits = self.engine.forward(&mut work, Wanted::Last)?;
        Ok(logits.chunks_exact(self.config.vocab_size).map(<[f32]>::to_vec).collect())
    }

    /// Logits (tokens, vocab) after every token of a text.
    pub fn logits(&self, tokens: &[u32]) -> Result<Tensor> {
        let mut sequence = self.engine.sequence(None, tokens.len())?;
        let logits = self.engine.forward(&mut [(&mut sequence, tokens)], Wanted::All)?;
        Tensor::new([tokens.len(), self.config.vocab_size], logits)
    }
}
