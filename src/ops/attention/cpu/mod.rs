//! Attention of ragged sequences to themselves: per head, `softmax(q kᵀ / sqrt(c)) v`.

mod narrow;
mod wide;

use bytemuck::{try_cast_slice, try_cast_slice_mut};
use half::bf16;
use rayon::prelude::*;

use self::narrow::Narrow;
use self::wide::Wide;
use crate::error::{Error, Result};
use crate::ops::linear::Value;

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
    run(qkv, lengths, heads, context, Narrow::takes(heads.width))
}

fn run<T: Value>(qkv: &[T], lengths: &[usize], heads: Heads, context: &mut [T], native: bool) -> Result<()> {
    let (width, rows) = (heads.count * heads.width, lengths.iter().sum::<usize>());
    if qkv.len() != rows * 3 * width || context.len() != rows * width || width == 0 {
        let reason = format!("{} values for {rows} rows of {} heads of {}", qkv.len(), heads.count, heads.width);
        return Err(Error::shape("self-attention", reason));
    }
    let (mut rest, mut start) = (context, 0);
    let mut work = Vec::with_capacity(lengths.len());
    for &length in lengths {
        let (this, tail) = rest.split_at_mut(length * width);
        work.push((&qkv[start * 3 * width..(start + length) * 3 * width], this));
        (rest, start) = (tail, start + length);
    }
    let narrow = native && size_of::<T>() == size_of::<bf16>();
    let each = |(own, wide): &mut (Narrow, Wide), (qkv, context): (&[T], &mut [T])| -> Result<()> {
        for first in (0..width).step_by(heads.width) {
            match (narrow, try_cast_slice::<T, bf16>(qkv), try_cast_slice_mut::<T, bf16>(context)) {
                (true, Ok(qkv), Ok(context)) => own.head(qkv, context, heads, first),
                _ => wide.head(qkv, context, heads, first)?,
            }
        }
        Ok(())
    };
    work.into_par_iter().filter(|(qkv, _)| !qkv.is_empty()).try_for_each_init(Default::default, each)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in f64.
    fn expected(qkv: &[f64], lengths: &[usize], Heads { count, width: head, causal }: Heads) -> Vec<f64> {
        let width = count * head;
        let (mut out, mut start) = (Vec::new(), 0);
        for &length in lengths {
            let at = |row: usize, part: usize, column: usize| qkv[(start + row) * 3 * width + part * width + column];
            for (i, h, c) in (0..length * width).map(|i| (i / width, i % width / head * head, i % width)) {
                let seen = if causal { i + 1 } else { length };
                let logit = |j: usize| (0..head).map(|c| at(i, 0, h + c) * at(j, 1, h + c)).sum::<f64>();
                let weights: Vec<f64> = (0..seen).map(|j| (logit(j) / (head as f64).sqrt()).exp()).collect();
                let context: f64 = weights.iter().enumerate().map(|(j, weight)| weight * at(j, 2, c)).sum();
                out.push(context / weights.iter().sum::<f64>());
            }
            start += length;
        }
        out
    }

    #[test]
    fn agrees_with_the_definition() {
        for (count, width, causal) in [(2, 8, false), (3, 64, true), (1, 80, false), (2, 33, true)] {
            let heads = Heads { count, width, causal };
            let lengths = [1, 17, 0, 64, 50, 130];
            let n = lengths.iter().sum::<usize>() * 3 * count * width;
            let narrow: Vec<bf16> = (0..n).map(|i| bf16::from_f32((i as f32 * 0.37).sin())).collect();
            let wide: Vec<f32> = narrow.iter().map(|x| x.to_f32()).collect();
            let want = expected(&narrow.iter().map(|x| x.to_f64()).collect::<Vec<_>>(), &lengths, heads);
            let mut out = vec![0.0f32; want.len()];
            self_attention(&wide, &lengths, heads, &mut out).unwrap();
            // Logits of up to 80 products, then sums of up to 130.
            want.iter().zip(&out).for_each(|(want, out)| assert!((want - *out as f64).abs() < 1e-5, "{want} {out}"));
            for native in [false, Narrow::takes(width)] {
                let mut out = vec![bf16::ZERO; want.len()];
                run(&narrow, &lengths, heads, &mut out, native).unwrap();
                // Weights and contexts, of at most 1, are rounded to 8 bits.
                want.iter()
                    .zip(&out)
                    .for_each(|(want, out)| assert!((want - out.to_f64()).abs() < 6e-3, "{want} {out}"));
            }
        }
    }

    #[test]
    fn refuses_shapes_that_do_not_fit() {
        let heads = Heads { count: 1, width: 4, causal: false };
        assert!(self_attention(&[0.0f32; 12], &[2], heads, &mut [0.0; 4]).is_err());
        assert!(self_attention(&[0.0f32; 12], &[1], heads, &mut [0.0; 8]).is_err());
        assert!(self_attention(&[0.0f32; 12], &[1], heads, &mut [0.0; 4]).is_ok());
    }
}
