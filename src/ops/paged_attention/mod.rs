//! Rotary embedding and causal attention over cached keys and values, which lie in pages on a device
//! (kernels/paged_attention_rope.cu, paged_attention_prefill.cu, paged_attention_decode.cu).

mod batch;
mod cache;
mod cpu;
mod cuda;

pub use batch::{Batch, Inputs, Shape};
pub use cache::Cache;
pub use cuda::{PAGE, Page, Queries, Sequences, Tile};

use crate::autograd::Cost;
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

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
    /// Type of cached keys and values, on a device also of queries and contexts.
    pub element: Element,
}

impl Heads {
    /// Values of a row of queries, keys and values side by side.
    pub fn width(&self) -> usize {
        (self.queries + 2 * self.kv) * self.size
    }

    /// Adds a bias (width), rotates queries and keys, stores keys and values at the batch's positions of `layer`, and attends
    /// causally over everything each sequence has cached. `qkv` (n, width) -> context (n, queries · size). One cache per
    /// sequence.
    pub fn attend(
        &self,
        batch: &Batch,
        layer: usize,
        (mut qkv, bias): (Tensor, Option<&Tensor>),
        caches: &mut [&mut Cache],
    ) -> Result<Tensor> {
        if let Some(bias) = bias {
            qkv.expect_beside("attention", bias, self.width())?;
        }
        match batch {
            Batch::Device(inputs) => self.attend_pages(&inputs.sequences(), layer, &qkv, bias),
            Batch::Host { spans, turns, .. } => {
                if caches.iter().any(|cache| cache.on_device()) {
                    return Err(Error::shape("attention", "rows lie on the host, cached keys on a device"));
                }
                let qkv = qkv.wide_mut("attention")?;
                cpu::rotate(self, qkv, bias.map(Tensor::data), turns);
                for (cache, span) in caches.iter_mut().zip(spans) {
                    cache.store(layer, &qkv[span.start * self.width()..][..span.rows * self.width()]);
                }
                let context = cpu::attend(self, layer, qkv, spans, caches)?;
                Tensor::of_rows(context, self.queries * self.size)
            }
        }
    }
}
