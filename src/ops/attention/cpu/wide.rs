//! One head by products of f32: the reference.

use super::Heads;
use crate::device::cpu::{simd, vector};
use crate::error::Result;
use crate::ops::linear::Value;
use crate::ops::matmul::{Mat, matmul};

/// Memory of one head of one sequence.
#[derive(Default)]
pub struct Wide {
    /// Queries, keys, values (length, head).
    parts: [Vec<f32>; 3],
    /// (length, length)
    logits: Vec<f32>,
    /// (length, head)
    out: Vec<f32>,
}

impl Wide {
    /// Contexts of the head whose columns begin at `first`: qkv (length, 3 · width), context (length, width).
    pub fn head<T: Value>(&mut self, qkv: &[T], context: &mut [T], heads: Heads, first: usize) -> Result<()> {
        let (width, head) = (heads.count * heads.width, heads.width);
        let length = context.len() / width;
        let Wide { parts, logits, out } = self;
        parts.iter_mut().chain([&mut *out]).for_each(|part| part.resize(length * head, 0.0));
        logits.resize(length * length, 0.0);
        for (i, part) in parts.iter_mut().enumerate() {
            simd!(for (to, row) in part.chunks_exact_mut(head).zip(qkv.chunks_exact(3 * width)) {
                T::load(to, &row[i * width + first..][..head]);
            });
        }
        let [q, k, v] = parts.each_ref().map(|part| Mat::new(part, length, head));
        matmul(logits, length, 0.0, 1.0 / (head as f32).sqrt(), q, k.t())?;
        simd!(for (i, row) in logits.chunks_exact_mut(length).enumerate() {
            let (seen, unseen) = row.split_at_mut(if heads.causal { i + 1 } else { length });
            unseen.fill(0.0);
            vector::softmax(seen);
        });
        matmul(out, head, 0.0, 1.0, Mat::new(logits, length, length), v)?;
        simd!(for (row, out) in context.chunks_exact_mut(width).zip(out.chunks_exact(head)) {
            T::store(&mut row[first..][..head], out);
        });
        Ok(())
    }
}
