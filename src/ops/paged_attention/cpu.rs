//! Rotary embedding and causal attention over cached keys and values, on the CPU.

use rayon::prelude::*;

use super::cache::{Cache, Part};
use super::{Heads, Span};
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::ops::matmul::{Mat, matmul};

/// Positions whose keys and values are read at a time.
const KEYS: usize = 256;
/// New tokens of a sequence that one task takes.
const QUERIES: usize = 64;

/// Adds a bias (width) and turns the queries and keys of each row (n, (queries + 2 kv) · size) by its position's angles (n, size / 2), given as (cos, sin):
/// pair i is dimensions i and i + size / 2.
pub fn rotate(heads: &Heads, qkv: &mut [f32], bias: Option<&[f32]>, turns: &[[f32; 2]]) {
    let (dim, half) = (heads.size, heads.size / 2);
    let turned = (heads.queries + heads.kv) * dim;
    qkv.par_chunks_mut(heads.width()).zip(turns.par_chunks(half)).for_each(|(row, turns)| {
        if let Some(bias) = bias {
            simd!(vector::add(row, bias));
        }
        for head in row[..turned].chunks_exact_mut(dim) {
            let (first, second) = head.split_at_mut(half);
            for ((a, b), [cos, sin]) in first.iter_mut().zip(second).zip(turns) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    });
}

/// One task: some new tokens of a sequence, one key and value head.
struct Task<'a> {
    cache: &'a Cache,
    /// First row in the batch, rows, position of the first.
    span: Span,
    kv_head: usize,
}

/// Context (n, query width) of each row over its sequence's positions up to its own.
pub fn attend(heads: &Heads, layer: usize, qkv: &[f32], spans: &[Span], caches: &[&mut Cache]) -> Result<Buffer> {
    let (dim, group) = (heads.size, heads.queries / heads.kv);
    let tasks: Vec<Task> = spans
        .iter()
        .zip(caches)
        .flat_map(|(span, cache)| (0..span.rows).step_by(QUERIES).map(move |row| (span, cache, row)))
        .flat_map(|(span, cache, row)| {
            let rows = QUERIES.min(span.rows - row);
            let span = Span { start: span.start + row, rows, position: span.position + row };
            (0..heads.kv).map(move |kv_head| Task { cache, span, kv_head })
        })
        .collect();
    let contexts: Vec<Vec<f32>> =
        tasks.par_iter().map(|task| attend_task(heads, layer, qkv, task)).collect::<Result<_>>()?;
    let width = heads.queries * dim;
    let mut out = Buffer::scratch(qkv.len() / heads.width() * width);
    for (task, context) in tasks.iter().zip(&contexts) {
        for (row, context) in context.chunks_exact(group * dim).enumerate() {
            let at = (task.span.start + row) * width + task.kv_head * group * dim;
            out[at..at + group * dim].copy_from_slice(context);
        }
    }
    Ok(out)
}

/// Context (rows, group, head_dim) of the query heads that share one key and value head, in one pass over the keys with
/// a running maximum and sum (online softmax).
fn attend_task(heads: &Heads, layer: usize, qkv: &[f32], task: &Task) -> Result<Vec<f32>> {
    let (dim, group, width) = (heads.size, heads.queries / heads.kv, heads.width());
    let Task { cache, span, kv_head } = task;
    let queries_held = span.rows * group;
    let mut queries = Vec::with_capacity(queries_held * dim);
    for row in span.start..span.start + span.rows {
        queries.extend_from_slice(&qkv[row * width + kv_head * group * dim..][..group * dim]);
    }
    let scale = 1.0 / (dim as f32).sqrt();
    let (mut keys, mut values, mut logits) = (Vec::new(), Vec::new(), vec![0.0; queries_held * KEYS]);
    let (mut context, mut sums) = (vec![0.0; queries_held * dim], vec![0.0; queries_held]);
    let mut largest = vec![f32::NEG_INFINITY; queries_held];
    let (end, mut position) = (span.position + span.rows, 0);
    while position < end {
        let keys = cache.read((layer, Part::Keys, *kv_head), position, KEYS.min(end - position), &mut keys);
        let count = keys.len() / dim;
        let logits = &mut logits[..queries_held * count];
        matmul(logits, count, 0.0, scale, Mat::new(&queries, queries_held, dim), Mat::new(keys, count, dim).t())?;
        for (i, logits) in logits.chunks_exact_mut(count).enumerate() {
            let seen = (span.position + i / group + 1).saturating_sub(position).min(count);
            let (now, later) = logits.split_at_mut(seen);
            later.fill(0.0);
            let max = now.iter().copied().fold(largest[i], f32::max);
            let kept = vector::exp(largest[i] - max);
            if kept != 1.0 {
                sums[i] *= kept;
                simd!(vector::scale(&mut context[i * dim..][..dim], kept));
            }
            largest[i] = max;
            sums[i] += simd!(vector::exp_sum(now, max));
        }
        let values = cache.read((layer, Part::Values, *kv_head), position, count, &mut values);
        matmul(&mut context, dim, 1.0, 1.0, Mat::new(logits, queries_held, count), Mat::new(values, count, dim))?;
        position += count;
    }
    for (context, sum) in context.chunks_exact_mut(dim).zip(&sums) {
        simd!(vector::scale(context, 1.0 / sum));
    }
    Ok(context)
}
