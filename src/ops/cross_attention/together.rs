//! Several queries against one sequence, whose rows are read once for all of them. Inline into `simd!`.
//!
//! A query has the same bits however many there are with it: sums run over the same lanes and in the same order, whether a lane
//! holds a column of one query or a query of its own.

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::cpu::weighted_sum;
use crate::device::cpu::has_floats;
use crate::device::cpu::vector::{self, LANES};

/// [`super::attend`] of `N` queries of one head over the same sequence.
///
/// Each of `u` has d values and then zeros up to a multiple of [`LANES`]; behind the rows of `sequence` (L, d) are as many finite
/// values more, since a row is read as if it were as long. probabilities (N, L) is overwritten; contexts have d values each.
#[inline(always)]
pub fn attend_together<const N: usize>(
    u: [&[f32]; N],
    sequence: &[f32],
    d: usize,
    probabilities: &mut [f32],
    mut contexts: [&mut [f32]; N],
) {
    let length = sequence.len().saturating_sub(LANES) / d;
    let padded = d.next_multiple_of(LANES);
    for l in 0..length {
        for (n, logit) in vector::dots(&sequence[l * d..][..padded], u).into_iter().enumerate() {
            probabilities[n * length + l] = logit;
        }
    }
    for row in probabilities.chunks_exact_mut(length).take(N) {
        vector::softmax(row);
    }
    if N == 1 {
        // Alone, a sum per column would wait for itself row by row.
        return weighted_sum(&probabilities[..length], &sequence[..length * d], d, contexts[0]);
    }
    for column in (0..d).step_by(LANES) {
        let mut sums = [[0.0; LANES]; N];
        for l in 0..length {
            if let Some(row) = sequence[l * d + column..].first_chunk::<LANES>() {
                for (n, sums) in sums.iter_mut().enumerate() {
                    let weight = probabilities[n * length + l];
                    for i in 0..LANES {
                        sums[i] = weight.mul_add(row[i], sums[i]);
                    }
                }
            }
        }
        for (context, sums) in contexts.iter_mut().zip(&sums) {
            context[column..].iter_mut().zip(sums).for_each(|(to, from)| *to = *from);
        }
    }
}

/// A value of each of [`LANES`] queries.
pub type Lanes = [f32; LANES];

/// [`attend_together`] of [`LANES`] queries, which lie side by side: `u` has a row for each column up to a multiple of [`LANES`],
/// of zeros behind d, and `probabilities` one for each row of the sequence, which is overwritten. Contexts that are empty are
/// left out.
#[inline(always)]
pub fn attend_lanes(
    u: &[Lanes],
    sequence: &[f32],
    d: usize,
    probabilities: &mut [Lanes],
    mut contexts: [&mut [f32]; LANES],
) {
    let length = sequence.len().saturating_sub(LANES) / d;
    products(u, sequence, d, &mut probabilities[..length]);
    softmax(&mut probabilities[..length]);
    weighted_sums(&probabilities[..length], sequence, d, &mut contexts);
}

/// Whether lanes for queries pay: what the compiler makes of sums of this shape by itself is slower than queries one by one.
pub fn lanes_pay() -> bool {
    has_floats()
}

/// Products of rows with all queries, each with the bits of [`vector::dot`].
#[inline(always)]
fn products(u: &[Lanes], sequence: &[f32], d: usize, products: &mut [Lanes]) {
    #[cfg(target_arch = "x86_64")]
    if lanes_pay() {
        // SAFETY: the processor has the instructions.
        return unsafe { avx512::products(u, sequence, d, products) };
    }
    for (l, product) in products.iter_mut().enumerate() {
        let mut sums = [[0.0; LANES]; LANES];
        for (column, (u, x)) in u.iter().zip(&sequence[l * d..]).enumerate() {
            for lane in 0..LANES {
                sums[column % LANES][lane] = u[lane].mul_add(*x, sums[column % LANES][lane]);
            }
        }
        *product = total(sums);
    }
}

/// Sums of sixteen, in the order of [`vector::sum`].
#[inline(always)]
fn total(mut sums: [Lanes; LANES]) -> Lanes {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            let other = sums[i + width];
            add(&mut sums[i], &other);
        }
    }
    sums[0]
}

#[inline(always)]
fn add(to: &mut Lanes, from: &Lanes) {
    for lane in 0..LANES {
        to[lane] += from[lane];
    }
}

/// [`vector::softmax`] of each query's logits.
#[inline(always)]
fn softmax(logits: &mut [Lanes]) {
    let mut max = [f32::NEG_INFINITY; LANES];
    for logits in &*logits {
        for lane in 0..LANES {
            max[lane] = if logits[lane] > max[lane] { logits[lane] } else { max[lane] };
        }
    }
    for logits in logits.iter_mut() {
        for lane in 0..LANES {
            logits[lane] -= max[lane];
        }
    }
    // One long loop: of sixteen steps each, it would not become vector code.
    logits.as_flattened_mut().iter_mut().for_each(|x| *x = vector::exp(*x));
    let mut sums = [[0.0; LANES]; LANES];
    for block in logits.chunks(LANES) {
        for (sum, weights) in sums.iter_mut().zip(block) {
            add(sum, weights);
        }
    }
    let sum = total(sums);
    let mut scales = [0.0; LANES];
    for lane in 0..LANES {
        scales[lane] = 1.0 / sum[lane];
    }
    for weights in logits {
        for lane in 0..LANES {
            weights[lane] *= scales[lane];
        }
    }
}

/// Sums of the rows of `sequence` (L, d), with [`LANES`] values behind them, under each query's weights, in the rows' order.
#[inline(always)]
fn weighted_sums(weights: &[Lanes], sequence: &[f32], d: usize, contexts: &mut [&mut [f32]; LANES]) {
    #[cfg(target_arch = "x86_64")]
    if lanes_pay() {
        // SAFETY: the processor has the instructions.
        return unsafe { avx512::weighted_sums(weights, sequence, d, contexts) };
    }
    for (n, context) in contexts.iter_mut().enumerate() {
        context.fill(0.0);
        for (weights, row) in weights.iter().zip(sequence.chunks_exact(d)) {
            vector::add_scaled(context, weights[n], row);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::device::cpu::simd;
    use crate::ops::cross_attention::attend;

    #[test]
    fn a_query_has_the_same_bits_however_many_there_are() {
        let mut rng = StdRng::seed_from_u64(0);
        let mut draw = |count: usize| (0..count).map(|_| rng.random_range(-2.0..2.0)).collect::<Vec<f32>>();
        for d in [3, 16, 20, 100, 132] {
            for length in [1, 2, 15, 16, 17, 50, 77] {
                let (queries, sequence) = (draw(LANES * d), draw(length * d + LANES));
                let query = |n: usize| &queries[n * d..][..d];
                let padded = d.next_multiple_of(LANES);
                let rows: Vec<Vec<f32>> = (0..LANES).map(|n| [query(n), &vec![0.0; padded - d]].concat()).collect();
                let columns: Vec<Lanes> = (0..padded).map(|j| std::array::from_fn(|n| rows[n][j])).collect();
                let (mut weights, mut lanes) = (vec![0.0; 4 * length], vec![[0.0; LANES]; length]);
                let mut contexts = vec![0.0; LANES * d];
                let mut to = contexts.chunks_exact_mut(d);
                let to: [&mut [f32]; LANES] = std::array::from_fn(|_| to.next().unwrap());
                simd!(attend_lanes(&columns, &sequence, d, &mut lanes, to));
                for n in 0..LANES {
                    let (mut want, mut other) = (vec![0.0; d], vec![0.0; 4 * d]);
                    simd!(attend(query(n), &sequence[..length * d], d, &mut weights[..length], &mut want));
                    assert_eq!(
                        weights[..length],
                        lanes.iter().map(|lanes| lanes[n]).collect::<Vec<_>>(),
                        "{d}, {length}"
                    );
                    assert_eq!(want, contexts[n * d..][..d], "{d}, {length}");
                    let mut four = other.chunks_exact_mut(d);
                    let four: [&mut [f32]; 4] = std::array::from_fn(|_| four.next().unwrap());
                    let same: [&[f32]; 4] = std::array::from_fn(|_| &rows[n][..]);
                    simd!(attend_together(same, &sequence, d, &mut weights, four));
                    assert_eq!(want, other[3 * d..], "{d}, {length}");
                    simd!(attend_together([&rows[n]], &sequence, d, &mut weights, [&mut other[..d]]));
                    assert_eq!(want, other[..d], "{d}, {length}");
                }
            }
        }
    }
}
