//! A ranking's evidence and a language model's, added: `log p = a · ranker + w · model + letter`, up to a constant, over the
//! options of a mention. The weights are those of the largest likelihood of the right options of other mentions (a
//! conditional logit), and count only where mentions that they were not fitted on say that they help.

mod logit;

use serde::{Deserialize, Serialize};

pub use self::logit::log_softmax;
use self::logit::{Case, fit as maximum};
use super::gain::{Gain, LEAST_MENTIONS};
use super::types::Spent;
use crate::data::Ranking;
use crate::error::{Error, Result};

/// Parts of the mentions, each of which is judged by weights that are fitted on the others.
pub const FOLDS: usize = 5;

/// What is known of a mention whose right entity is one of its options. All lists are in the order of the letters.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Each option's position in the ranking.
    pub shown: Vec<usize>,
    /// The ranker's scores, up to a constant.
    pub ranker: Vec<f64>,
    /// The model's log-probabilities of the letters.
    pub model: Vec<f64>,
    /// The letter that the right option stands at.
    pub right: usize,
}

impl Evidence {
    /// Fails if there is a number that is none.
    fn check(&self) -> Result<()> {
        let numbers = self.ranker.iter().chain(&self.model);
        let (n, finite) = (self.shown.len(), numbers.clone().all(|number| number.is_finite()));
        match (self.ranker.len() == n && self.model.len() == n && self.right < n, finite) {
            (true, true) => Ok(()),
            (false, _) => Err(Error::invalid(format!(
                "{n} options with {} scores, {} log-probabilities and number {} right are no evidence",
                self.ranker.len(),
                self.model.len(),
                self.right
            ))),
            (true, false) => Err(Error::invalid("a score or a log-probability is no finite number")),
        }
    }

    /// The right option's rank in the ranking, from 1.
    fn before(&self) -> usize {
        1 + self.shown[self.right]
    }

    /// Its rank by these weights; of equal ones the ranking's better one stands before.
    fn after(&self, weights: &Weights) -> usize {
        if weights.model == 0.0 {
            return self.before();
        }
        let p = weights.log_probabilities(&self.ranker, &self.model);
        let ahead =
            |at: usize| p[at] > p[self.right] || p[at] == p[self.right] && self.shown[at] < self.shown[self.right];
        1 + (0..p.len()).filter(|&at| at != self.right && ahead(at)).count()
    }
}

/// How much the ranking and the model count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// Of the ranker's scores; of `-ln(rank)` where it has none.
    pub ranker: f64,
    /// Of the letters' log-probabilities; where it is 0, nothing moves.
    pub model: f64,
    /// What is added at each letter: it takes out the model's preference for letters, and says how far the place in the order
    /// of the options is to be believed beyond the scores.
    pub letters: Vec<f64>,
    /// Whether the ranking that they were fitted on has scores.
    pub scored: bool,
}

impl Weights {
    /// The ranking as it is.
    fn of_the_ranking_alone(scored: bool) -> Weights {
        Weights { ranker: 0.0, model: 0.0, letters: Vec::new(), scored }
    }

    /// Log-probabilities of options, in the order of the letters.
    fn log_probabilities(&self, ranker: &[f64], model: &[f64]) -> Vec<f64> {
        let letters = self.letters.iter().chain(std::iter::repeat(&0.0));
        let sums = ranker.iter().zip(model).zip(letters);
        log_softmax(sums.map(|((ranker, model), letter)| self.ranker * ranker + self.model * model + letter).collect())
    }

    /// Probabilities of options, in the order of the letters.
    pub fn probabilities(&self, ranker: &[f64], model: &[f64]) -> Vec<f64> {
        self.log_probabilities(ranker, model).into_iter().map(f64::exp).collect()
    }
}

/// What a ranking says of these of its candidates: their scores less the best one's, or where it has none, `-ln(rank)`.
pub fn of_ranking(ranking: &Ranking, shown: &[usize]) -> Vec<f64> {
    match &ranking.scores {
        Some(scores) => {
            let highest = shown.iter().map(|&at| scores[at]).fold(f32::NEG_INFINITY, f32::max);
            shown.iter().map(|&at| f64::from(scores[at]) - f64::from(highest)).collect()
        }
        None => shown.iter().map(|&at| -((1 + at) as f64).ln()).collect(),
    }
}

/// What came of fitting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fusion {
    /// Mentions that it was tried on.
    pub mentions: usize,
    /// Of these, the ones that the weights were fitted on; the others' ranks cannot change.
    pub fitted: usize,
    /// Parts that were judged by weights fitted on the others.
    pub folds: usize,
    /// The weights that count.
    pub weights: Weights,
    /// Why the model has none, if so.
    pub reason: Option<String>,
    /// Gain in log-likelihood of the right options, in nats per fitted mention, over the ranking's scores and letters without
    /// the model; of mentions that the weights were not fitted on, as the two below.
    pub likelihood: Gain,
    /// Change of H@1 over all mentions.
    pub hits1: Gain,
    /// Change of MRR.
    pub reciprocal: Gain,
    /// What the model's answers took.
    pub spent: Spent,
}

/// Fits the weights on these mentions, which come in an order that says nothing; `others` are further ones whose ranks
/// cannot change, and `scored` says whether the ranker has scores. What the answers took is left to who asked.
///
/// Fails if there are fewer than [`LEAST_MENTIONS`], or if one has a number that is not finite.
pub fn fit(evidence: &[Evidence], others: usize, scored: bool) -> Result<Fusion> {
    evidence.iter().try_for_each(Evidence::check)?;
    if evidence.len() < LEAST_MENTIONS {
        let reason = format!("{} mentions are too few to fit weights on; needs {LEAST_MENTIONS}", evidence.len());
        return Err(Error::invalid(reason));
    }
    let (mut likelihood, mut hits1, mut reciprocal) = (Vec::new(), Vec::new(), Vec::new());
    for fold in 0..FOLDS {
        let (own, rest): (Vec<_>, Vec<_>) = evidence.iter().enumerate().partition(|(i, _)| *i % FOLDS == fold);
        let rest: Vec<&Evidence> = rest.into_iter().map(|(_, evidence)| evidence).collect();
        let fitted = Fitted::on(&rest, scored);
        for (_, evidence) in own {
            likelihood.push(fitted.gain(evidence));
            let [first, inverse] = changes(evidence, &fitted.weights);
            hits1.push(first);
            reciprocal.push(inverse);
        }
    }
    hits1.resize(evidence.len() + others, 0.0);
    reciprocal.resize(evidence.len() + others, 0.0);
    let all: Vec<&Evidence> = evidence.iter().collect();
    let weights = Fitted::on(&all, scored).weights;
    let mut fusion = Fusion {
        mentions: evidence.len() + others,
        fitted: evidence.len(),
        folds: FOLDS,
        weights: Weights::of_the_ranking_alone(scored),
        reason: None,
        likelihood: Gain::of(&likelihood)?,
        hits1: Gain::of(&hits1)?,
        reciprocal: Gain::of(&reciprocal)?,
        spent: Spent::default(),
    };
    fusion.reason = fusion.objection(evidence, &weights);
    if fusion.reason.is_none() {
        fusion.weights = weights;
    }
    Ok(fusion)
}

impl Fusion {
    /// Why the model should not count by these weights, if so.
    fn objection(&self, evidence: &[Evidence], weights: &Weights) -> Option<String> {
        if weights.model == 0.0 {
            return Some("with its answers, the right options are no more likely than without them".into());
        }
        let Fusion { likelihood, hits1, reciprocal, .. } = self;
        if likelihood.interval.low <= 0.0 {
            let gain = likelihood.shown(1.0, 4);
            return Some(format!("its gain in log-likelihood per mention, {gain}, is not surely above 0"));
        }
        let own: Vec<[f64; 2]> = evidence.iter().map(|evidence| changes(evidence, weights)).collect();
        let sum = |which: usize| own.iter().map(|change| change[which]).sum::<f64>();
        let worse = hits1.mean < 0.0 || reciprocal.mean < 0.0 || sum(0) < 0.0 || sum(1) < 0.0;
        worse.then(|| "it makes the right options more likely, but H@1 or MRR worse".into())
    }
}

/// How H@1 and MRR of a mention change.
fn changes(evidence: &Evidence, weights: &Weights) -> [f64; 2] {
    let (before, after) = (evidence.before(), evidence.after(weights));
    let first = |rank: usize| f64::from(u8::from(rank == 1));
    [first(after) - first(before), 1.0 / after as f64 - 1.0 / before as f64]
}

/// Coefficients of the ranker and of the model, which are not negative; those of the letters behind A follow.
const RANKER: usize = 0;
const MODEL: usize = 1;
const LETTERS: usize = 2;

/// Log-probabilities that vary less than this, in nats, say nothing about the options: what is left of them is rounding.
const LEAST_SPREAD: f64 = 1e-9;

/// In which units coefficients are fitted, so that one penalty does for all.
struct Units {
    /// Root of the mean square of the scores' differences from their mention's mean.
    ranker: f64,
    /// The same of the log-probabilities less the letters' means.
    model: f64,
    /// Mean log-probability of each letter, whatever stands at it.
    letters: Vec<f64>,
}

impl Units {
    fn of(evidence: &[&Evidence]) -> Units {
        let letters = evidence.iter().map(|e| e.shown.len()).max().unwrap_or_default();
        let of_letter = |letter: usize| mean(evidence.iter().filter_map(|e| e.model.get(letter).copied()));
        let letters: Vec<f64> = (0..letters).map(of_letter).collect();
        let spread = |values: &dyn Fn(&Evidence) -> Vec<f64>| {
            let squares = evidence.iter().flat_map(|e| {
                let values = values(e);
                let mean = mean(values.iter().copied());
                values.into_iter().map(move |value| (value - mean).powi(2))
            });
            mean(squares).sqrt()
        };
        let ranker = spread(&|e| e.ranker.clone());
        let model = spread(&|e| e.model.iter().zip(&letters).map(|(p, letter)| p - letter).collect());
        Units { ranker, model, letters }
    }

    /// What is known of each option; columns without a spread are 0.
    fn case(&self, evidence: &Evidence) -> Case {
        let part = |value: f64, unit: f64| if unit > 0.0 { value / unit } else { 0.0 };
        let option = |at: usize| {
            let mut known = vec![0.0; self.width()];
            known[RANKER] = part(evidence.ranker[at], self.ranker);
            known[MODEL] = part(evidence.model[at] - self.letters[at], self.model);
            if at > 0 {
                known[LETTERS + at - 1] = 1.0;
            }
            known
        };
        Case { options: (0..evidence.shown.len()).map(option).collect(), right: evidence.right }
    }

    /// Number of coefficients; the letter A has none, since letters count relative to each other.
    fn width(&self) -> usize {
        LETTERS + self.letters.len().saturating_sub(1)
    }
}

/// Weights that were fitted with the model, and without it.
struct Fitted {
    weights: Weights,
    without: Weights,
}

impl Fitted {
    fn on(evidence: &[&Evidence], scored: bool) -> Fitted {
        let units = Units::of(evidence);
        let cases: Vec<Case> = evidence.iter().map(|evidence| units.case(evidence)).collect();
        let weights = |with_model: bool| {
            let speaks = |which: &usize| match *which {
                RANKER => units.ranker > 0.0,
                MODEL => with_model && units.model > LEAST_SPREAD,
                _ => true,
            };
            let free: Vec<usize> = (0..units.width()).filter(speaks).collect();
            let found = maximum(&cases, units.width(), &free, LETTERS);
            let part = |which: usize, unit: f64| if found[which] > 0.0 { found[which] / unit } else { 0.0 };
            let model = part(MODEL, units.model);
            let own = [0.0].iter().chain(&found[LETTERS..]);
            let letters: Vec<f64> = own.zip(&units.letters).map(|(own, mean)| own - model * mean).collect();
            // Up to a constant: about 0, as a letter counts that was not seen.
            let middle = mean(letters.iter().copied());
            let letters = letters.into_iter().map(|letter| letter - middle).collect();
            Weights { ranker: part(RANKER, units.ranker), model, letters, scored }
        };
        Fitted { weights: weights(true), without: weights(false) }
    }

    /// How much more likely the right option is with the model than without it, in nats.
    fn gain(&self, evidence: &Evidence) -> f64 {
        let of = |weights: &Weights| weights.log_probabilities(&evidence.ranker, &evidence.model)[evidence.right];
        of(&self.weights) - of(&self.without)
    }
}

/// 0 of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), value| (sum + value, n + 1));
    if n > 0 { sum / f64::from(n) } else { 0.0 }
}

#[cfg(test)]
mod tests;
