//! Attention of ragged sequences to themselves: per head, `softmax(q kᵀ / sqrt(c)) v`.

use rayon::prelude::*;

use super::{Mat, Value, matmul, vector};
use crate::error::{Error, Result};

/// How attention is split into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// How many.
    pub count: usize,
    /// Width of each.
    pub width: usize,
    /// Whether a row sees only those before it and itself.
    pub causal: bool,
}

/// Contexts (n, heads · width) from queries, keys and values side by side (n, 3 · heads · width), for sequences of
/// these lengths one after the other.
pub fn self_attention<T: Value>(qkv: &[T], lengths: &[usize], heads: Heads, context: &mut [T]) -> Result<()> {
    let Heads { count, width: head, causal } = heads;
    let (width, rows) = (count * head, lengths.iter().sum::<usize>());
    if qkv.len() != rows * 3 * width || context.len() != rows * width {
        let reason = format!("{} values for {rows} rows of {count} heads of {head}", qkv.len());
        return Err(Error::shape("self-attention", reason));
    }
    let (mut rest, mut start) = (context, 0);
    let mut work = Vec::with_capacity(lengths.len());
    for &length in lengths {
        let (this, tail) = rest.split_at_mut(length * width);
        work.push((&qkv[start * 3 * width..(start + length) * 3 * width], length, this));
        (rest, start) = (tail, start + length);
    }
    let scale = 1.0 / (head as f32).sqrt();
    work.into_par_iter().try_for_each_init(Scratch::default, |scratch, (qkv, length, context)| {
        scratch.resize(length, head);
        for h in (0..width).step_by(head) {
            let Scratch { parts, logits, out } = scratch;
            for (i, part) in parts.iter_mut().enumerate() {
                simd!(for (to, row) in part.chunks_exact_mut(head).zip(qkv.chunks_exact(3 * width)) {
                    T::load(to, &row[i * width + h..][..head]);
                });
            }
            let [q, k, v] = parts.each_ref().map(|part| Mat::new(part, length, head));
            matmul(logits, length, 0.0, scale, q, k.t())?;
            simd!(for (i, row) in logits.chunks_exact_mut(length).enumerate() {
                let (seen, unseen) = row.split_at_mut(if causal { i + 1 } else { length });
                unseen.fill(0.0);
                vector::softmax(seen);
            });
            matmul(out, head, 0.0, 1.0, Mat::new(logits, length, length), v)?;
            simd!(for (row, out) in context.chunks_exact_mut(width).zip(out.chunks_exact(head)) {
                T::store(&mut row[h..][..head], out);
            });
        }
        Ok(())
    })
}

/// One head of one sequence.
#[derive(Default)]
struct Scratch {
    /// Queries, keys, values (length, head).
    parts: [Vec<f32>; 3],
    /// (length, length)
    logits: Vec<f32>,
    /// (length, head)
    out: Vec<f32>,
}

impl Scratch {
    fn resize(&mut self, length: usize, head: usize) {
        self.parts.iter_mut().chain([&mut self.out]).for_each(|part| part.resize(length * head, 0.0));
        self.logits.resize(length * length, 0.0);
    }
}
