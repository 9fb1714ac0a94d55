//! PriDe (Zheng et al., arXiv 2309.03882): language models prefer some option letters to others whatever the options
//! say. That prior is estimated on a few mentions, which are asked once for each cyclic permutation of their options,
//! and divided out of the answers about all others.

use serde::{Deserialize, Serialize};

use super::gain::{Gain, LEAST_MENTIONS};
use crate::error::{Error, Result};

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

/// What the mentions say that were asked under every rotation of their options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Mentions whose letters' probabilities are known under every rotation.
    pub mentions: usize,
    /// Share of the variance of the letters' log-probabilities, within a question, that goes with the letter: what dividing
    /// out takes away.
    pub by_letter: f64,
    /// Share that goes with the option, of a mention's own options.
    pub by_option: f64,
    /// Change of MRR by the model's answers to the unrotated questions, with the letters divided out as for all other
    /// mentions; over those of them that have a gold entity, if they are two at least.
    pub reciprocal: Option<Gain>,
    /// Mentions that this change is over.
    pub judged: usize,
}

impl Sample {
    /// Of the letters' probabilities under every rotation, and of changes of reciprocal ranks. `None` without samples.
    pub fn new(samples: &[Vec<Vec<f64>>], changes: &[f64]) -> Result<Option<Sample>> {
        let Some(letters) = samples.first().map(Vec::len) else { return Ok(None) };
        let (mut all, mut of_letter, mut by_option) = (0.0, vec![0.0; letters], 0.0);
        for rotations in samples {
            let mut of_option = vec![0.0; letters];
            for (r, observed) in rotations.iter().enumerate() {
                let logs: Vec<f64> = observed.iter().map(|p| p.max(LEAST).ln()).collect();
                let mean = logs.iter().sum::<f64>() / letters as f64;
                for ((letter, option), log) in rotated(letters, r).enumerate().zip(logs) {
                    all += (log - mean).powi(2);
                    of_letter[letter] += log - mean;
                    of_option[option] += log - mean;
                }
            }
            // Each option stands at each letter once: its mean is free of the letters.
            by_option += of_option.iter().map(|sum| sum * sum).sum::<f64>() / letters as f64;
        }
        let by_letter = of_letter.iter().map(|sum| sum * sum).sum::<f64>() / (samples.len() * letters) as f64;
        let share = |part: f64| if all > 0.0 { part / all } else { 0.0 };
        Ok(Some(Sample {
            mentions: samples.len(),
            by_letter: share(by_letter),
            by_option: share(by_option),
            reciprocal: (changes.len() >= 2).then(|| Gain::of(changes)).transpose()?,
            judged: changes.len(),
        }))
    }

    /// Whether the letters explain more of the answers than the options do.
    pub fn is_mostly_letters(&self) -> bool {
        self.by_letter > self.by_option
    }

    /// Fails if the sample says that the answers make the ranking worse, and is large enough to say so.
    pub fn check(&self) -> Result<()> {
        let surely_worse = self.reciprocal.filter(|gain| gain.interval.high < 0.0 && self.judged >= LEAST_MENTIONS);
        let Some(gain) = surely_worse else { return Ok(()) };
        Err(Error::invalid(format!(
            "--debias: on the {} sampled mentions the model's answers change MRR by {} %, which makes the ranking worse; \
             --fuse weighs them so that they do not, --allow-worse re-ranks all the same, and answers are kept in the journal",
            self.judged,
            gain.shown(100.0, 2)
        )))
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
    fn a_sample_says_what_letters_and_options_explain() {
        let samples = |truths: &[[f64; 4]]| -> Vec<Vec<Vec<f64>>> {
            truths.iter().map(|truth| (0..4).map(|r| observed(truth, r)).collect()).collect()
        };
        let letters_alone = Sample::new(&samples(&[[0.25; 4]; 3]), &[]).unwrap().unwrap();
        near(&[letters_alone.by_letter, letters_alone.by_option], &[1.0, 0.0]);
        assert!(letters_alone.is_mostly_letters() && letters_alone.reciprocal.is_none());
        // Logarithms of the truth and of the prior add up: shares are those of their variances.
        let (clear, vague) = ([0.97, 0.01, 0.01, 0.01], [0.28, 0.24, 0.24, 0.24]);
        for (truth, mostly_letters) in [(clear, false), (vague, true)] {
            let sample = Sample::new(&samples(&[truth; 2]), &[]).unwrap().unwrap();
            let variance = |p: [f64; 4]| {
                let mean = p.iter().map(|p| p.ln()).sum::<f64>() / 4.0;
                p.iter().map(|p| (p.ln() - mean).powi(2)).sum::<f64>()
            };
            let all = variance(truth) + variance(PRIOR);
            near(&[sample.by_letter, sample.by_option], &[variance(PRIOR) / all, variance(truth) / all]);
            assert_eq!(sample.is_mostly_letters(), mostly_letters);
        }
        assert_eq!(Sample::new(&[], &[]).unwrap(), None);
    }

    #[test]
    fn a_sample_that_gets_worse_for_sure_is_refused() {
        let of = |changes: &[f64]| Sample::new(&[vec![vec![0.5, 0.5]; 2]], changes).unwrap().unwrap();
        let worse: Vec<f64> = (0..40).map(|i| if i % 4 == 0 { 0.0 } else { -0.5 }).collect();
        let error = of(&worse).check().unwrap_err().to_string();
        for says in ["40 sampled mentions", "MRR by -37.50 (-4", "makes the ranking worse", "--fuse", "--allow-worse"] {
            assert!(error.contains(says), "{error}");
        }
        let unsure: Vec<f64> = (0..40).map(|i| if i % 2 == 0 { 0.4 } else { -0.5 }).collect();
        let better: Vec<f64> = worse.iter().map(|change| -change).collect();
        for changes in [&unsure[..], &better, &worse[..LEAST_MENTIONS - 1], &[-0.5], &[]] {
            of(changes).check().unwrap();
        }
    }

    #[test]
    fn a_certain_model_gives_no_infinities() {
        let prior = Prior::estimate(&[vec![vec![1.0, 0.0], vec![1.0, 0.0]]]).unwrap();
        assert!(prior.divided_out(&[1.0, 0.0]).iter().all(|p| p.is_finite()));
        assert!(softmax(&[f32::MAX, f32::MIN]).iter().all(|p| p.is_finite()));
        assert_eq!(Prior::estimate(&[]), None);
    }
}
