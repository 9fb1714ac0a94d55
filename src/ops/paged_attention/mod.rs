//! Rotary embedding and causal attention over cached keys and values, which lie in pages on a device (kernels/llama_rope.cu,
//! llama_prefill.cu, llama_decode.cu).

mod cpu;
mod cuda;

pub use cpu::{KeysValues, Part, attend, rotate};
pub use cuda::{Layer, PAGE, Page, Sequences, Tile};

use crate::autograd::Cost;
use crate::tensor::Element;

/// The rows of one sequence in a ragged batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first row in the batch.
    pub start: usize,
    /// Its rows: new tokens of the sequence.
    pub rows: usize,
    /// Position of the first row in the sequence: the tokens before it, whose keys and values are cached.
    pub position: usize,
}

/// What attention costs for rows of these spans: each sees the positions up to its own. Queries, keys, values and contexts of
/// the rows, and once for each sequence the keys and values before them.
pub fn cost(heads: &Heads, spans: &[Span]) -> Cost {
    let of = |span: &Span| {
        let seen: usize = (1..=span.rows).map(|row| span.position + row).sum();
        let values =
            span.rows * (heads.width() + heads.queries * heads.size) + 2 * span.position * heads.kv * heads.size;
        Cost::inference(4 * seen * heads.queries * heads.size, values * heads.element.size())
    };
    spans.iter().map(of).sum()
}

/// Heads of a decoder.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub queries: usize,
    /// Key and value heads; each serves `queries / kv` query heads.
    pub kv: usize,
    /// Values of a head.
    pub size: usize,
    /// Type of cached keys and values.
    pub element: Element,
}

impl Heads {
    /// Values of a row of queries, keys and values side by side.
    pub fn width(&self) -> usize {
        (self.queries + 2 * self.kv) * self.size
    }
}
