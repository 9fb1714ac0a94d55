//! Rotary embedding and causal attention over cached keys and values, on the CPU.

use rayon::prelude::*;

use super::super::LlamaConfig;
use super::super::backend::Span;
use super::Rows;
use super::cache::{Cache, Part};
use crate::device::cpu::{Mat, matmul, simd, vector};
use crate::error::Result;

/// Positions whose keys and values are read at a time.
const KEYS: usize = 256;
/// New tokens of a sequence that one task takes.
const QUERIES: usize = 64;

/// Turns the queries and keys of each row by its position's angles: pair i is dimensions i and i + head_dim / 2.
pub(super) fn rotate(config: &LlamaConfig, qkv: &mut Rows, turns: &[(f32, f32)]) {
    let (dim, half) = (config.head_dim, config.head_dim / 2);
    let turned = config.query_width() + config.kv_width();
    qkv.values.par_chunks_mut(qkv.width).zip(turns.par_chunks(half)).for_each(|(row, turns)| {
        for head in row[..turned].chunks_exact_mut(dim) {
            let (first, second) = head.split_at_mut(half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(turns) {
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
pub(super) fn attend(
    config: &LlamaConfig,
    layer: usize,
    qkv: &Rows,
    spans: &[Span],
    caches: &[&mut Cache],
) -> Result<Rows> {
    let (dim, group) = (config.head_dim, config.heads / config.kv_heads);
    let tasks: Vec<Task> = spans
        .iter()
        .zip(caches)
        .flat_map(|(span, cache)| (0..span.rows).step_by(QUERIES).map(move |row| (span, cache, row)))
        .flat_map(|(span, cache, row)| {
            let rows = QUERIES.min(span.rows - row);
            let span = Span { start: span.start + row, rows, position: span.position + row };
            (0..config.kv_heads).map(move |kv_head| Task { cache, span, kv_head })
        })
        .collect();
    let contexts: Vec<Vec<f32>> =
        tasks.par_iter().map(|task| attend_task(config, layer, qkv, task)).collect::<Result<_>>()?;
    let mut out = Rows::scratch(qkv.len(), config.query_width());
    for (task, context) in tasks.iter().zip(&contexts) {
        for (row, context) in context.chunks_exact(group * dim).enumerate() {
            let at = (task.span.start + row) * out.width + task.kv_head * group * dim;
            out.values[at..at + group * dim].copy_from_slice(context);
        }
    }
    Ok(out)
}

/// Context (rows, group, head_dim) of the query heads that share one key and value head, in one pass over the keys with
/// a running maximum and sum (online softmax).
fn attend_task(config: &LlamaConfig, layer: usize, qkv: &Rows, task: &Task) -> Result<Vec<f32>> {
    let (dim, group) = (config.head_dim, config.heads / config.kv_heads);
    let Task { cache, span, kv_head } = task;
    let heads = span.rows * group;
    let mut queries = Vec::with_capacity(heads * dim);
    for row in span.start..span.start + span.rows {
        queries.extend_from_slice(&qkv.values[row * qkv.width + kv_head * group * dim..][..group * dim]);
    }
    let scale = 1.0 / (dim as f32).sqrt();
    let (mut keys, mut values, mut logits) = (Vec::new(), Vec::new(), vec![0.0; heads * KEYS]);
    let (mut context, mut sums) = (vec![0.0; heads * dim], vec![0.0; heads]);
    let mut largest = vec![f32::NEG_INFINITY; heads];
    let (end, mut position) = (span.position + span.rows, 0);
    while position < end {
        let keys = cache.read(layer, Part::Keys, *kv_head, position, KEYS.min(end - position), &mut keys);
        let count = keys.len() / dim;
        let logits = &mut logits[..heads * count];
        matmul(logits, count, 0.0, scale, Mat::new(&queries, heads, dim), Mat::new(keys, count, dim).t())?;
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
        let values = cache.read(layer, Part::Values, *kv_head, position, count, &mut values);
        matmul(&mut context, dim, 1.0, 1.0, Mat::new(logits, heads, count), Mat::new(values, count, dim))?;
        position += count;
    }
    for (context, sum) in context.chunks_exact_mut(dim).zip(&sums) {
        simd!(vector::scale(context, 1.0 / sum));
    }
    Ok(context)
}
