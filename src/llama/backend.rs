//! What a device must be able to do for the decoder; `decoder` says in which order.

use std::sync::Arc;

use crate::error::Result;
pub use crate::ops::paged_attention::Span;
use crate::ops::sample::{Draw, choose};
use crate::tensor::Weight;

/// Keys and values of one sequence, on top of a prefix that it may share with others.
pub trait KvCache: Send + Sync + 'static {
    /// Tokens whose keys and values are held, the prefix's included.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most tokens that it can hold, the prefix's included.
    fn capacity(&self) -> usize;

    /// Counts tokens whose keys and values every layer has stored.
    fn advance(&mut self, tokens: usize);
}

/// What becomes of the logits that a forward pass computes.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// All of them go to the host.
    Logits,
    /// Those of these tokens do.
    Of(&'a [u32]),
    /// A token is chosen by each row of them, and only tokens go to the host.
    Tokens(&'a [Draw]),
}

/// What a forward pass gave: what was asked for; the rest is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// Row by row (rows, vocabulary), or (rows, tokens asked for).
    pub logits: Vec<f32>,
    /// One for each row.
    pub tokens: Vec<u32>,
}

impl Ask<'_> {
    /// What is asked of logits (rows, vocabulary) that lie in the host's memory.
    pub fn answer(self, logits: &[f32], vocabulary: usize) -> Output {
        let rows = logits.chunks_exact(vocabulary);
        match self {
            Ask::Logits => Output { logits: logits.to_vec(), ..Output::default() },
            Ask::Of(tokens) => {
                let of_row = |row: &[f32]| tokens.iter().map(|&token| row[token as usize]).collect::<Vec<_>>();
                Output { logits: rows.flat_map(of_row).collect(), ..Output::default() }
            }
            Ask::Tokens(draws) => {
                Output { tokens: rows.zip(draws).map(|(row, &draw)| choose(row, draw)).collect(), ..Output::default() }
            }
        }
    }
}

/// A device's side of the decoder. Rows are activations (n, width) in the device's memory; a batch is ragged, with the
/// rows of its sequences one after the other and padding nowhere.
pub trait Backend: Send + Sync + 'static {
    /// A matrix (outputs, inputs), in its precision.
    type Weight: Send + Sync;
    /// The matrices (inner, inputs) of an MLP's gates and ups.
    type Gates: Send + Sync;
    /// Gains of an RMSNorm (width).
    type Gain: Send + Sync;
    /// Activations (n, width).
    type Rows;
    /// Keys and values of a sequence.
    type Cache: KvCache;
    /// What a forward pass derives from its tokens and spans once for all layers: positions, angles, offsets.
    type Plan;

    /// Takes the matrices of one layer, stacked by rows: query, key and value; or one alone.
    fn weight(&self, stacked: Vec<Weight>) -> Result<Self::Weight>;

    /// Takes the matrices of an MLP's gates and ups.
    fn gates(&self, gate: Weight, up: Weight) -> Result<Self::Gates>;

    /// Takes the gains of a norm.
    fn gain(&self, values: Vec<f32>) -> Result<Self::Gain>;

    /// An empty cache of `room` tokens after those of `prefix`.
    ///
    /// Fails if the device has no memory for it; the error says how many tokens would fit.
    fn cache(&self, prefix: Option<Arc<Self::Cache>>, room: usize) -> Result<Self::Cache>;

    /// The most rows of one forward pass; longer batches are cut.
    fn max_rows(&self) -> usize;

    /// Prepares a forward pass over these tokens. `spans` cover them in order; one cache per span.
    fn plan(&self, tokens: &[u32], spans: &[Span], caches: &[&mut Self::Cache]) -> Result<Self::Plan>;

    /// Runs the forward pass: `network` computes the logits of the rows in `wanted` from what the plan holds, of which
    /// `ask` says what to give. A device may record what it does and repeat that instead for a plan of the same shape.
    fn execute(
        &self,
        plan: Self::Plan,
        wanted: &[usize],
        ask: Ask,
        network: impl FnMut(&Self::Plan) -> Result<Option<Self::Rows>> + Send,
    ) -> Result<Output>;

    /// The embedding's rows of the plan's tokens.
    fn embed(&self, plan: &Self::Plan, table: &Self::Weight) -> Result<Self::Rows>;

    /// gain · x / sqrt(mean(x²) + eps), row by row.
    fn rms_norm(&self, x: &Self::Rows, gain: &Self::Gain) -> Result<Self::Rows>;

    /// x Wᵀ
    fn linear(&self, x: &Self::Rows, weight: &Self::Weight) -> Result<Self::Rows>;

    /// x Wᵀ, in f32 whatever activations are.
    fn logits(&self, x: &Self::Rows, weight: &Self::Weight) -> Result<Self::Rows>;

    /// sum += x Wᵀ
    fn add_linear(&self, sum: &mut Self::Rows, x: &Self::Rows, weight: &Self::Weight) -> Result<()>;

    /// Rotates queries and keys, stores keys and values at the spans' positions of `layer`, and attends causally over
    /// everything each sequence has cached.
    ///
    /// `qkv` (n, (heads + 2 kv_heads) · head_dim) -> context (n, heads · head_dim). One cache per span.
    fn attend(
        &self,
        plan: &Self::Plan,
        layer: usize,
        qkv: Self::Rows,
        caches: &mut [&mut Self::Cache],
    ) -> Result<Self::Rows>;

    /// SwiGLU: silu(x Wᵀ of the gates) · (x Wᵀ of the ups).
    fn gated(&self, x: &Self::Rows, gates: &Self::Gates) -> Result<Self::Rows>;

    /// The rows of these numbers.
    fn select(&self, x: Self::Rows, rows: &[usize]) -> Result<Self::Rows>;
}
