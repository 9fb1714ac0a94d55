use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::random::{Purpose, generator};

const K: usize = 5;

/// Standard normal, by Box and Muller.
fn normal(draws: &mut ChaCha8Rng) -> f64 {
    let [u, v]: [f64; 2] = [draws.random_range(f64::MIN_POSITIVE..1.0), draws.random_range(0.0..1.0)];
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Mentions of a ranker that knows something, listed best first or shuffled. `model` gives the logit of an option, of whether it
/// is right and of its letter.
fn mentions(n: usize, seed: u64, shuffled: bool, model: impl Fn(&mut ChaCha8Rng, bool, usize) -> f64) -> Vec<Evidence> {
    let mut draws = generator(seed, Purpose::Language, 0);
    let mention = |_| {
        let mut scores: Vec<(f64, bool)> = (0..K).map(|i| (normal(&mut draws), i == 0)).collect();
        scores[0].0 += 1.5;
        scores.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut shown: Vec<usize> = (0..K).collect();
        if shuffled {
            shown.rotate_left(draws.random_range(0..K));
        }
        let ranker: Vec<f64> = shown.iter().map(|&at| scores[at].0).collect();
        let right = shown.iter().position(|&at| scores[at].1).unwrap();
        let logits = (0..K).map(|letter| model(&mut draws, letter == right, letter)).collect();
        Evidence { model: log_softmax(logits), shown, ranker, right }
    };
    (0..n).map(mention).collect()
}

fn ranks(evidence: &[Evidence], weights: &Weights) -> [Vec<usize>; 2] {
    let of = |rank: &dyn Fn(&Evidence) -> usize| evidence.iter().map(rank).collect();
    [of(&|e| e.before()), of(&|e| e.after(weights))]
}

fn hits(ranks: &[usize]) -> f64 {
    ranks.iter().filter(|&&rank| rank == 1).count() as f64 / ranks.len() as f64
}

#[test]
fn a_model_that_knows_gets_a_weight_and_keeps_what_is_expected_of_it() {
    for shuffled in [false, true] {
        let knows = |draws: &mut ChaCha8Rng, right: bool, letter: usize| {
            normal(draws) + if right { 2.0 } else { 0.0 } + [3.0, 0.0, 1.0, 0.5, 0.0][letter]
        };
        let fusion = fit(&mentions(500, 1, shuffled, knows), 100, true).unwrap();
        assert!(fusion.reason.is_none() && fusion.weights.model > 0.0 && fusion.weights.ranker > 0.0, "{fusion:?}");
        assert_eq!((fusion.mentions, fusion.fitted, fusion.folds), (600, 500, 5));
        // Scores of two classes of normals a distance d apart have a log-likelihood ratio of d times the score. The model's is
        // normalised; its right weight is 2 in a logit of variance 1, which the sample gives to within a tenth.
        assert!((fusion.weights.model / 2.0 - 1.0).abs() < 0.2, "{fusion:?}");
        // Listed best first, the place says a part of what the score does.
        assert!(!shuffled || (fusion.weights.ranker / 1.5 - 1.0).abs() < 0.3, "{fusion:?}");
        assert!(fusion.likelihood.interval.low > 0.2 && fusion.hits1.interval.low > 0.1, "{fusion:?}");
        // What is expected holds on mentions that were not there, of which 5 in 6 can change.
        let unseen = mentions(2000, 2, shuffled, knows);
        let [before, after] = ranks(&unseen, &fusion.weights);
        let gained = (hits(&after) - hits(&before)) * 5.0 / 6.0;
        assert!(fusion.hits1.interval.low < gained && gained < fusion.hits1.interval.high, "{gained} {fusion:?}");
        // And the letters' preference is taken out: A is right as often as it is chosen.
        let first = |e: &Evidence| (0..K).max_by(|&a, &b| e.weighed(&fusion.weights, a, b)).unwrap();
        let chosen = unseen.iter().filter(|e| first(e) == 0).count() as f64;
        let right = unseen.iter().filter(|e| e.right == 0).count() as f64;
        assert!(shuffled == (right < 600.0) && (chosen / right - 1.0).abs() < 0.25, "{chosen} {right}");
    }
}

impl Evidence {
    fn weighed(&self, weights: &Weights, a: usize, b: usize) -> std::cmp::Ordering {
        let p = weights.log_probabilities(&self.ranker, &self.model);
        p[a].total_cmp(&p[b])
    }
}

#[test]
fn a_model_that_answers_at_random_has_no_weight_and_moves_nothing() {
    let mut convinced = 0;
    for seed in 0..20 {
        let evidence = mentions(120, seed, seed % 2 == 0, |draws, _, _| 3.0 * normal(draws));
        let fusion = fit(&evidence, 0, true).unwrap();
        convinced += usize::from(fusion.weights.model > 0.0);
        if fusion.weights.model == 0.0 {
            let [before, after] = ranks(&evidence, &fusion.weights);
            assert_eq!(before, after);
            assert!(fusion.reason.is_some() && fusion.weights == Weights::of_the_ranking_alone(true));
        }
    }
    // Chance convinces a one-sided test at 2.5 % one time in 40, and two times or more in 9 % of such 20.
    assert!(convinced <= 1, "{convinced}");
}

#[test]
fn a_model_that_likes_a_letter_whatever_stands_there_has_no_weight() {
    for shuffled in [false, true] {
        let likes_a = |_: &mut ChaCha8Rng, _, letter: usize| if letter == 0 { 4.0 } else { letter as f64 / 3.0 };
        let evidence = mentions(300, 3, shuffled, likes_a);
        let fusion = fit(&evidence, 0, true).unwrap();
        assert_eq!(fusion.weights.model, 0.0);
        assert_eq!((fusion.likelihood.mean, fusion.hits1.mean, fusion.reciprocal.mean), (0.0, 0.0, 0.0));
        let reason = fusion.reason.unwrap();
        assert!(reason.contains("no more likely"), "{reason}");
        // By itself it looks better than chance where the ranking's choice stands at A.
        let right = evidence.iter().filter(|e| e.right == 0).count();
        assert!(shuffled || right > 150, "{right}");
    }
}

#[test]
fn a_model_that_is_wrong_for_sure_has_no_negative_weight() {
    let wrong = |draws: &mut ChaCha8Rng, right: bool, _| normal(draws) - if right { 3.0 } else { 0.0 };
    let fusion = fit(&mentions(300, 4, false, wrong), 0, true).unwrap();
    assert!(fusion.weights.model == 0.0 && fusion.likelihood.mean == 0.0, "{fusion:?}");
}

#[test]
fn rankings_without_scores_and_lists_of_other_lengths_are_weighed_too() {
    let knows = |draws: &mut ChaCha8Rng, right: bool, _| normal(draws) + if right { 2.0 } else { 0.0 };
    let mut evidence = mentions(400, 5, true, knows);
    for (i, mention) in evidence.iter_mut().enumerate() {
        mention.ranker = mention.shown.iter().map(|&at| -((1 + at) as f64).ln()).collect();
        // Every third list has lost what stands last and is not right.
        if i % 3 == 0 && mention.right < K - 1 {
            mention.shown = (0..K - 1).collect();
            mention.ranker.pop();
            mention.model.pop();
        }
    }
    let fusion = fit(&evidence, 0, false).unwrap();
    assert!(fusion.weights.model > 1.0 && fusion.weights.letters.len() == K && !fusion.weights.scored, "{fusion:?}");
    // A longer list than any that was seen has letters of no weight of their own.
    let p = fusion.weights.probabilities(&[0.0; 7], &[-2.0; 7]);
    assert!(p.len() == 7 && (p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn the_same_mentions_give_the_same_bits() {
    let knows = |draws: &mut ChaCha8Rng, right: bool, _| normal(draws) + if right { 1.0 } else { 0.0 };
    let [one, other] = [6, 6].map(|seed| fit(&mentions(200, seed, true, knows), 7, true).unwrap());
    assert_eq!((one.weights, one.likelihood, one.hits1), (other.weights, other.likelihood, other.hits1));
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let knows = |draws: &mut ChaCha8Rng, right: bool, _| normal(draws) + if right { 2.0 } else { 0.0 };
    let all = mentions(LEAST_MENTIONS, 7, false, knows);
    assert!(fit(&all, 0, true).is_ok());
    let refused = |evidence: &[Evidence]| fit(evidence, 0, true).unwrap_err().to_string();
    for few in [0, 1, LEAST_MENTIONS - 1] {
        let error = refused(&all[..few]);
        assert!(error.contains(&format!("{few} mentions are too few")) && error.contains("needs 20"), "{error}");
    }
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut evidence = all.clone();
        evidence[3].model[1] = bad;
        assert!(refused(&evidence).contains("no finite number"));
        let mut evidence = all.clone();
        evidence[3].ranker[1] = bad;
        assert!(refused(&evidence).contains("no finite number"));
    }
    let mut evidence = all.clone();
    evidence[3].right = K;
    assert!(refused(&evidence).contains("number 5 right"));
    // Numbers as large as scores may be are weighed.
    let mut evidence = all;
    evidence.iter_mut().for_each(|e| e.ranker.iter_mut().for_each(|score| *score *= 1e38));
    assert!(fit(&evidence, 0, true).unwrap().weights.ranker < 1e-36);
}
