//! The conditional logit (McFadden, 1974): which of several options is right, by a linear function of what is known of each.

/// Options of which one is right.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is known of each option, in units of about 1.
    pub options: Vec<Vec<f64>>,
    /// The right one.
    pub right: usize,
}

/// How much a coefficient's square costs: that of a normal prior with a deviation of 2. A hundred cases outweigh it; of a few
/// dozen, it keeps coefficients from being so sure of what these cases happen to say that one other case costs ten nats.
const PENALTY: f64 = 0.25;

/// Newton's steps; about eight are needed.
const MOST_STEPS: usize = 100;

/// A step that promises less than this, in nats over all cases, is not taken.
const LEAST_PROMISE: f64 = 1e-10;

/// Log-probability of each option under these coefficients.
pub fn log_probabilities(options: &[Vec<f64>], coefficients: &[f64]) -> Vec<f64> {
    log_softmax(options.iter().map(|option| dot(option, coefficients)).collect())
}

/// Logarithms of the softmax.
pub fn log_softmax(mut values: Vec<f64>) -> Vec<f64> {
    let highest = values.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f64 = values.iter().map(|value| (value - highest).exp()).sum();
    values.iter_mut().for_each(|value| *value -= highest + sum.ln());
    values
}

/// The coefficients of the largest penalised likelihood among those whose first `signed` are not negative; those not in
/// `free` are 0. There is one maximum: the likelihood's logarithm is concave, and the penalty strictly so.
pub fn fit(cases: &[Case], width: usize, free: &[usize], signed: usize) -> Vec<f64> {
    let all = newton(cases, width, free);
    let Some(negative) = free.iter().position(|&at| at < signed && all[at] < 0.0) else { return all };
    // The maximum lies where at least one of the negative ones is 0; each is tried, and the best is kept.
    let without = |at: usize| {
        let rest: Vec<usize> = free.iter().copied().filter(|&other| other != free[at]).collect();
        fit(cases, width, &rest, signed)
    };
    let tried = (negative..free.len()).filter(|&at| free[at] < signed && all[free[at]] < 0.0).map(without);
    let best = tried.max_by(|a, b| objective(cases, a).total_cmp(&objective(cases, b)));
    best.unwrap_or(all)
}

/// The maximum over the free coefficients, of either sign.
fn newton(cases: &[Case], width: usize, free: &[usize]) -> Vec<f64> {
    let mut at = vec![0.0; width];
    let mut value = objective(cases, &at);
    for _ in 0..MOST_STEPS {
        let (gradient, curvature) = derivatives(cases, &at, free);
        let Some(step) = solve(curvature, &gradient) else { break };
        let promise = dot(&gradient, &step);
        // No number is no promise either.
        if promise.is_nan() || promise <= LEAST_PROMISE {
            break;
        }
        let moved = |scale: f64| {
            let mut to = at.clone();
            free.iter().zip(&step).for_each(|(&which, step)| to[which] += scale * step);
            let reached = objective(cases, &to);
            (to, reached)
        };
        // Halved until the gain is a part of what was promised; at the limit of rounding it is not, and the step is none.
        let scales = (0..30).map(|halvings| 0.5f64.powi(halvings));
        let mut tried = scales.map(|scale| (scale, moved(scale)));
        let enough = |(scale, (_, reached)): &(f64, (Vec<f64>, f64))| *reached >= value + 1e-4 * scale * promise;
        let Some((_, better)) = tried.find(enough) else { break };
        (at, value) = better;
    }
    at
}

/// Log-likelihood less the penalty.
fn objective(cases: &[Case], coefficients: &[f64]) -> f64 {
    let likelihood: f64 = cases.iter().map(|case| log_probabilities(&case.options, coefficients)[case.right]).sum();
    likelihood - 0.5 * PENALTY * dot(coefficients, coefficients)
}

/// Gradient of the objective by the free coefficients, and its negative second derivatives, which are positive definite.
fn derivatives(cases: &[Case], coefficients: &[f64], free: &[usize]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut gradient: Vec<f64> = free.iter().map(|&which| -PENALTY * coefficients[which]).collect();
    let diagonal = |i: usize| (0..free.len()).map(|j| if i == j { PENALTY } else { 0.0 }).collect();
    let mut curvature: Vec<Vec<f64>> = (0..free.len()).map(diagonal).collect();
    for case in cases {
        let p: Vec<f64> = log_probabilities(&case.options, coefficients).into_iter().map(f64::exp).collect();
        let mean = |which: usize| p.iter().zip(&case.options).map(|(p, option)| p * option[which]).sum::<f64>();
        let means: Vec<f64> = free.iter().map(|&which| mean(which)).collect();
        for (i, &which) in free.iter().enumerate() {
            gradient[i] += case.options[case.right][which] - means[i];
        }
        for (p, option) in p.iter().zip(&case.options) {
            let apart: Vec<f64> = free.iter().zip(&means).map(|(&which, mean)| option[which] - mean).collect();
            for (row, left) in curvature.iter_mut().zip(&apart) {
                row.iter_mut().zip(&apart).for_each(|(sum, right)| *sum += p * left * right);
            }
        }
    }
    (gradient, curvature)
}

/// Solves a symmetric positive definite system by Cholesky's factors; `None` if it is none.
fn solve(mut matrix: Vec<Vec<f64>>, right: &[f64]) -> Option<Vec<f64>> {
    let n = right.len();
    for j in 0..n {
        let own = matrix[j][j] - dot(&matrix[j][..j], &matrix[j][..j]);
        if own.is_nan() || own <= 0.0 {
            return None;
        }
        matrix[j][j] = own.sqrt();
        for i in j + 1..n {
            matrix[i][j] = (matrix[i][j] - dot(&matrix[i][..j], &matrix[j][..j])) / matrix[j][j];
        }
    }
    let mut solution = right.to_vec();
    for i in 0..n {
        solution[i] = (solution[i] - dot(&matrix[i][..i], &solution[..i])) / matrix[i][i];
    }
    for i in (0..n).rev() {
        let below: f64 = (i + 1..n).map(|j| matrix[j][i] * solution[j]).sum();
        solution[i] = (solution[i] - below) / matrix[i][i];
    }
    Some(solution)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases of two options that differ in one number by `x`; the first is right in `right` of `all`.
    fn two_options(x: f64, right: usize, all: usize) -> Vec<Case> {
        (0..all).map(|i| Case { options: vec![vec![x], vec![0.0]], right: usize::from(i >= right) }).collect()
    }

    #[test]
    fn the_maximum_is_where_it_can_be_computed() {
        // Of two options, the coefficient's maximum is ln(right / wrong) / x, but for the penalty, which moves it by its
        // gradient (PENALTY times it) over the curvature (100 · 0.8 · 0.2 · x²), to first order in a move of 0.4 %.
        let x = 2.0;
        let got = fit(&two_options(x, 80, 100), 1, &[0], 0)[0];
        let want = 4f64.ln() / x;
        let moved = PENALTY * want / (16.0 * x * x);
        assert!((got - (want - moved)).abs() < 1e-2 * moved, "{got} {want}");
        // At the maximum of several, no gradient is left: a step that promises 1e-10 moves a curvature of 10 by 4e-6.
        let option = |i: usize| (0..3).map(|j| ((7 * i + 3 * j + i * j) % 11) as f64 / 5.0 - 1.0).collect::<Vec<_>>();
        let cases: Vec<Case> =
            (0..90).map(|i| Case { options: (i..i + 4).map(option).collect(), right: i % 3 }).collect();
        let found = fit(&cases, 3, &[0, 1, 2], 0);
        let (gradient, _) = derivatives(&cases, &found, &[0, 1, 2]);
        assert!(gradient.iter().all(|g| g.abs() < 1e-4), "{gradient:?}");
        for (which, by) in [(0, 0.01), (1, -0.01), (2, 0.01)] {
            let mut other = found.clone();
            other[which] += by;
            assert!(objective(&cases, &other) < objective(&cases, &found));
        }
    }

    #[test]
    fn cases_that_are_told_apart_without_an_error_give_a_finite_coefficient() {
        let got = fit(&two_options(1.0, 100, 100), 1, &[0], 1)[0];
        assert!(got > 3.0 && got < 20.0, "{got}");
    }

    #[test]
    fn coefficients_that_may_not_be_negative_are_zero_instead() {
        assert!(fit(&two_options(1.0, 20, 100), 1, &[0], 0)[0] < -1.0);
        assert_eq!(fit(&two_options(1.0, 20, 100), 1, &[0], 1), [0.0]);
        // The first is an echo of the second, and better off at 0 than the second is.
        let option = |x: f64, y: f64| vec![x, y];
        let case = |i: usize| {
            let noise = ((i * 37) % 19) as f64 / 9.0 - 1.0;
            Case {
                options: vec![option(-1.0, 1.0 + noise), option(1.0, -1.0)],
                right: usize::from(i.is_multiple_of(5)),
            }
        };
        let cases: Vec<Case> = (0..100).map(case).collect();
        let found = fit(&cases, 2, &[0, 1], 2);
        assert!(found[0] == 0.0 && found[1] > 0.0, "{found:?}");
        let alone = fit(&cases, 2, &[1], 2);
        assert_eq!(found, alone);
        assert!(found.iter().all(|c| *c >= 0.0) && fit(&cases, 2, &[], 2) == [0.0, 0.0]);
    }

    #[test]
    fn a_system_is_solved_or_refused() {
        let matrix = vec![vec![4.0, 2.0, 0.5], vec![2.0, 5.0, 1.0], vec![0.5, 1.0, 3.0]];
        let solution = solve(matrix.clone(), &[1.0, -2.0, 0.5]).unwrap();
        for (row, want) in matrix.iter().zip([1.0, -2.0, 0.5]) {
            assert!((dot(row, &solution) - want).abs() < 1e-14);
        }
        assert_eq!(solve(vec![vec![1.0, 2.0], vec![2.0, 1.0]], &[1.0, 1.0]), None);
        assert_eq!(solve(vec![vec![f64::NAN]], &[1.0]), None);
    }
}
