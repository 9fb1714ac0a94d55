//! `contrastive` on the CPU: tasks of some rows or columns each, so that every sum has one order.

use rayon::prelude::*;

use super::Products;
use crate::autograd::InputGrads;
use crate::device::cpu::{Buffer, simd, vector};
use crate::error::Result;
use crate::ops::matmul::{Mat, matmul};
use crate::tensor::Tensor;

/// Rows of a product that one task computes.
const ROWS: usize = 32;

/// `to += scale · a b`, or `to = a b` where nothing is kept, some rows of `to` (rows, d) to a task.
fn product(to: &mut [f32], d: usize, (keep, scale): (f32, f32), a: Mat, b: Mat) -> Result<()> {
    to.par_chunks_mut(ROWS * d).enumerate().try_for_each(|(chunk, to)| {
        let rows = to.len() / d;
        matmul(to, d, keep, scale, a.rows(chunk * ROWS, rows), b)
    })
}

pub(super) fn forward([texts, images]: [&Tensor; 2], log_scale: f32) -> Result<(Tensor, Products)> {
    let (n, d) = (texts.shape()[0], texts.shape()[1]);
    let [texts, images] = [texts, images].map(|side| Mat::new(side.data(), n, d));
    let mut dots = Buffer::scratch(n * n);
    product(&mut dots, n, (0.0, 1.0), texts, images.t())?;
    let scale = log_scale.exp();
    let mut sums = Buffer::scratch(2 * n);
    sums.par_iter_mut().enumerate().for_each_init(Vec::new, |logits: &mut Vec<f32>, (at, sum)| {
        logits.clear();
        match at.checked_sub(n) {
            None => logits.extend(&dots[at * n..][..n]),
            Some(column) => logits.extend(dots.iter().skip(column).step_by(n)),
        }
        simd!({
            vector::scale(logits, scale);
            let max = vector::max(logits);
            *sum = max + vector::exp_sum(logits, max).ln();
        });
    });
    let loss = |sums: &[f32]| -> f32 {
        let losses = sums.iter().zip(dots.iter().step_by(n + 1)).map(|(sum, dot)| sum - scale * dot);
        losses.sum::<f32>() / n as f32
    };
    let losses = sums.chunks_exact(n).map(loss).collect::<Vec<_>>();
    Ok((Tensor::new([2], losses)?, Products::Host { dots, sums }))
}

pub(super) fn backward(
    (sides, log_scale): (&[Tensor; 2], f32),
    (mut dots, sums): (Buffer, &Buffer),
    grad: &[f32],
    grads: &mut InputGrads,
) -> Result<()> {
    let (n, d) = (sides[0].shape()[0], sides[0].shape()[1]);
    let scale = log_scale.exp();
    let (by_text, by_image) = sums.split_at(n);
    let [of_text, of_image] = [0, 1].map(|i| grad[i] / n as f32);
    // From here on they are the logits' gradients; beside them, each row's part of the gradient of log_scale.
    let mut parts = vec![0.0; n];
    let rows = dots.par_chunks_exact_mut(n).zip(&mut parts).enumerate();
    rows.for_each(|(row, (dots, part))| {
        simd!({
            for (column, (dot, sum)) in dots.iter_mut().zip(by_image).enumerate() {
                let logit = scale * *dot;
                let (mut text, mut image) = (vector::exp(logit - by_text[row]), vector::exp(logit - sum));
                if row == column {
                    text -= 1.0;
                    image -= 1.0;
                }
                *dot = of_text * text + of_image * image;
                *part += *dot * logit;
            }
        });
    });
    let dlogits = Mat::new(&dots, n, n);
    let [texts, images] = [0, 1].map(|i| Mat::new(sides[i].data(), n, d));
    if let Some(to) = grads.get(0) {
        product(to, d, (1.0, scale), dlogits, images)?;
    }
    if let Some(to) = grads.get(1) {
        product(to, d, (1.0, scale), dlogits.t(), texts)?;
    }
    if let Some(to) = grads.get(2) {
        to[0] += parts.iter().sum::<f32>();
    }
    Ok(())
}
