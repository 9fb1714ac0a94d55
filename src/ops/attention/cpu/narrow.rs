//! One head in bf16, by the micro-kernel of products: queries times keys, and attention times values.

use half::bf16;

use super::Heads;
use crate::device::cpu::{has_bf16, simd, vector};
use crate::ops::linear::Value;
use crate::ops::linear::packed::{PANEL, Panels};

/// Memory of one head of one sequence.
#[derive(Default)]
pub struct Narrow {
    keys: Panels,
    values: Panels,
    /// A panel's sums (length, 64).
    sums: Vec<f32>,
    /// (length, length), its rows padded to whole panels.
    logits: Vec<f32>,
    /// The same, after softmax.
    attention: Vec<bf16>,
}

impl Narrow {
    /// Whether heads of this width can be computed here.
    pub fn takes(head: usize) -> bool {
        head.is_multiple_of(2) && has_bf16()
    }

    /// Contexts of the head whose columns begin at `first`: qkv (length, 3 · width), context (length, width).
    pub fn head(&mut self, qkv: &[bf16], context: &mut [bf16], heads: Heads, first: usize) {
        let (width, head) = (heads.count * heads.width, heads.width);
        let length = context.len() / width;
        let rows = |part: usize| qkv.chunks_exact(3 * width).map(move |row| &row[part * width + first..][..head]);
        self.keys.set_rows(rows(1), head);
        self.values.set_columns(rows(2), head);
        let padded = length.next_multiple_of(PANEL);
        self.sums.resize(length * PANEL, 0.0);
        self.logits.resize(length * padded, 0.0);
        self.attention.resize(length * padded, bf16::ZERO);
        for panel in 0..padded / PANEL {
            self.keys.multiply(&qkv[first..], 3 * width, panel, &mut self.sums);
            for (row, sums) in self.logits.chunks_exact_mut(padded).zip(self.sums.chunks_exact(PANEL)) {
                row[panel * PANEL..][..PANEL].copy_from_slice(sums);
            }
        }
        let scale = 1.0 / (head as f32).sqrt();
        simd!({
            let rows = self.logits.chunks_exact_mut(padded).zip(self.attention.chunks_exact_mut(padded));
            for (i, (logits, attention)) in rows.enumerate() {
                // Whole vectors: what no token sees gets a weight of zero.
                let (seen, whole) = if heads.causal { (i + 1, length) } else { (length, length) };
                let whole = whole.next_multiple_of(16);
                logits[seen..whole].fill(f32::NEG_INFINITY);
                vector::scale(&mut logits[..whole], scale);
                vector::softmax(&mut logits[..whole]);
                bf16::store(&mut attention[..whole], &logits[..whole]);
            }
        });
        for panel in 0..head.div_ceil(PANEL) {
            self.values.multiply(&self.attention, padded, panel, &mut self.sums);
            let (column, part) = (first + panel * PANEL, PANEL.min(head - panel * PANEL));
            simd!({
                for (row, sums) in context.chunks_exact_mut(width).zip(self.sums.chunks_exact(PANEL)) {
                    bf16::store(&mut row[column..][..part], &sums[..part]);
                }
            });
        }
    }
}
