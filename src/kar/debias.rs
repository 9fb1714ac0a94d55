//! PriDe (Zheng et al., arXiv 2309.03882): language models prefer some option letters to others whatever the options
//! say. That prior is estimated on a few mentions, which are asked once for each cyclic permutation of their options,
//! and divided out of the answers about all others.

/// Least probability that counts: logarithms and quotients stay finite.
const LEAST: f64 = 1e-30;

/// Probabilities of logits.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    normalized(logits.iter().map(|&l| f64::from(l - highest).exp()).collect())
}

fn normalized(mut weights: Vec<f64>) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    weights
}

/// The options in the order in which rotation `r` lists them.
pub fn rotated(options: usize, rotation: usize) -> impl Iterator<Item = usize> {
    (0..options).map(move |position| (position + rotation) % options)
}

/// How much a model likes each letter, whatever it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Prior(Vec<f64>);

impl Prior {
    /// From some samples, each with the letters' probabilities under every rotation of its options (of each
    /// sample, the softmax of the letters' mean log-probabilities; then the mean over samples). `None`
    /// without samples.
    pub fn estimate(samples: &[Vec<Vec<f64>>]) -> Option<Prior> {
        let letters = samples.first()?.first()?.len();
        let mut prior = vec![0.0; letters];
        for rotations in samples {
            let mean_log = |letter: usize| {
                let logs = rotations.iter().map(|p| p[letter].max(LEAST).ln());
                logs.sum::<f64>() / rotations.len() as f64
            };
            let own = normalized((0..letters).map(|letter| mean_log(letter).exp()).collect());
            prior.iter_mut().zip(own).for_each(|(sum, p)| *sum += p);
        }
        Some(Prior(normalized(prior)))
    }

    /// Probability of each letter.
    pub fn letters(&self) -> &[f64] {
        &self.0
    }

    /// Probabilities of options, without what the model owes to their letters. Of fewer options than the prior has
    /// letters, the first letters count.
    pub fn divided_out(&self, observed: &[f64]) -> Vec<f64> {
        normalized(observed.iter().zip(&self.0).map(|(p, prior)| p / prior.max(LEAST)).collect())
    }
}

/// Probabilities of the options of a mention that was asked under every rotation: each option stood at each letter
/// once, so the mean is free of the letters.
pub fn over_rotations(rotations: &[Vec<f64>]) -> Vec<f64> {
    let options = rotations.len();
    let mut mean = vec![0.0; options];
    for (r, observed) in rotations.iter().enumerate() {
        rotated(options, r).zip(observed).for_each(|(option, p)| mean[option] += p / options as f64);
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIOR: [f64; 4] = [0.5, 0.1, 0.3, 0.1];

    /// What a model with this prior says of options with these true probabilities, listed by a rotation.
    fn observed(truth: &[f64], rotation: usize) -> Vec<f64> {
        normalized(rotated(truth.len(), rotation).zip(PRIOR).map(|(option, prior)| truth[option] * prior).collect())
    }

    fn near(got: &[f64], want: &[f64]) {
        assert!(
            got.len() == want.len() && got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12),
            "{got:?} {want:?}"
        );
    }

    #[test]
    fn the_prior_is_found_and_divided_out() {
        let truths = [[0.7, 0.1, 0.1, 0.1], [0.2, 0.2, 0.25, 0.35], [0.01, 0.01, 0.97, 0.01]];
        let samples: Vec<Vec<Vec<f64>>> = truths.iter().map(|t| (0..4).map(|r| observed(t, r)).collect()).collect();
        let prior = Prior::estimate(&samples).unwrap();
        near(prior.letters(), &PRIOR);
        let truth = [0.3, 0.35, 0.2, 0.15];
        // The letter A would have won by its prior.
        assert!(observed(&truth, 0)[0] > observed(&truth, 0)[1]);
        near(&prior.divided_out(&observed(&truth, 0)), &truth);
        // Of two options, the first two letters.
        near(&prior.divided_out(&normalized(vec![0.4 * 0.5, 0.6 * 0.1])), &[0.4, 0.6]);
    }

    #[test]
    fn rotations_that_are_averaged_favour_no_letter() {
        let uniform: Vec<Vec<f64>> = (0..4).map(|r| observed(&[0.25; 4], r)).collect();
        near(&over_rotations(&uniform), &[0.25; 4]);
        // A model that only looks at the options.
        let truth = [0.4, 0.3, 0.2, 0.1];
        let fair: Vec<Vec<f64>> = (0..4).map(|r| rotated(4, r).map(|o| truth[o]).collect()).collect();
        near(&over_rotations(&fair), &truth);
    }

    #[test]
    fn a_certain_model_gives_no_infinities() {
        let prior = Prior::estimate(&[vec![vec![1.0, 0.0], vec![1.0, 0.0]]]).unwrap();
        assert!(prior.divided_out(&[1.0, 0.0]).iter().all(|p| p.is_finite()));
        assert!(softmax(&[f32::MAX, f32::MIN]).iter().all(|p| p.is_finite()));
        assert_eq!(Prior::estimate(&[]), None);
    }
}
