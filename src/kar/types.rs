//! What re-ranking is told, and what it gives.

use serde::{Deserialize, Serialize};

use super::debias::{Prior, Sample};
use super::fuse::Weights;
use super::instruction::{Budget, MOST_OPTIONS, Strategy};
use super::model::{Reply, Wanted};
use super::order::Order;
use crate::data::Ranking;
use crate::error::{Error, Result};

/// How a model answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scoring {
    /// By a text, which is parsed: the paper's way.
    Generate,
    /// By the logits of the options' letters after one prefill.
    #[default]
    #[value(name = "logits")]
    #[serde(rename = "logits")]
    Letters,
}

/// Share of the probability that the letters must have together for one of them to be the answer, if nothing else is asked
/// for: a model that means to answer by a letter gives them nearly all, one that begins with a word hardly any.
pub const LEAST_SHARE: f64 = 0.1;

/// How to re-rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What is asked.
    pub strategy: Strategy,
    /// Candidates that a model is asked about.
    pub k: usize,
    /// In which order it sees them. Reports of before there was a choice do not say it.
    #[serde(default, skip_serializing_if = "Order::is_default")]
    pub order: Order,
    /// How it answers.
    pub scoring: Scoring,
    /// Share of the probability that the letters must have together to be the answer.
    pub least_share: f64,
    /// Most tokens of an answer that is a text.
    pub max_new_tokens: usize,
    /// Ask only where the first candidate's confidence is less than this ahead of the second's.
    pub gate: Option<f32>,
    /// Share of the mentions on which the letters' prior is estimated.
    pub debias: Option<f64>,
    /// Re-rank although those mentions say that it makes the ranking worse.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_worse: bool,
    /// What the ranking and the model count, if their evidence is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// Draws mentions and orders.
    pub seed: u64,
    /// Lengths of the instruction's parts.
    pub budget: Budget,
    /// Keep the old ranking of a mention whose question the model refuses, instead of stopping there.
    pub skip_refused: bool,
}

impl Default for Settings {
    /// The paper's K and strategy, read off one prefill.
    fn default() -> Settings {
        Settings {
            strategy: Strategy::SelectOne,
            k: 5,
            order: Order::BestFirst,
            scoring: Scoring::Letters,
            least_share: LEAST_SHARE,
            max_new_tokens: 32,
            gate: None,
            debias: None,
            allow_worse: false,
            weights: None,
            seed: 0,
            budget: Budget::default(),
            skip_refused: false,
        }
    }
}

impl Settings {
    /// Says which setting makes no sense.
    pub fn check(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::invalid(reason));
        if !(2..=MOST_OPTIONS).contains(&self.k) {
            return refuse(format!("k = {}: a model can be asked about 2 to {MOST_OPTIONS} candidates", self.k));
        }
        if self.max_new_tokens == 0 {
            return refuse("max_new_tokens = 0 leaves no room for an answer".into());
        }
        if let Some(gate) = self.gate.filter(|gate| !(0.0..=1.0).contains(gate)) {
            return refuse(format!("gate = {gate} is no difference of confidences; give one from 0 to 1"));
        }
        if let Some(share) = self.debias.filter(|&share| !(share > 0.0 && share <= 1.0)) {
            return refuse(format!("debias = {share} is no share of the mentions; give one above 0 and up to 1"));
        }
        if !(0.0..=1.0).contains(&self.least_share) {
            let share = self.least_share;
            return refuse(format!("least_share = {share} is no share of the probability; give one from 0 to 1"));
        }
        if self.debias.is_some() && self.scoring != Scoring::Letters {
            return refuse("debiasing needs the letters' logits; add --scoring logits or leave out --debias".into());
        }
        if self.weights.is_some() {
            self.check_fusable()?;
        }
        Ok(())
    }

    /// Says what stands against adding the ranking's and the model's evidence.
    pub fn check_fusable(&self) -> Result<()> {
        if self.scoring != Scoring::Letters {
            let reason = "fusing adds the letters' log-probabilities; add --scoring logits (of a server, one that gives \
                          top_logprobs) or leave out --fuse";
            return Err(Error::invalid(reason));
        }
        match self.debias {
            Some(_) => {
                Err(Error::invalid("fusing takes out the letters' prior by itself; leave out --debias or --fuse"))
            }
            None => Ok(()),
        }
    }

    /// Options that a model is asked about, as positions in the ranking in the order of their letters.
    pub fn shown(&self, ranking: &Ranking) -> Vec<usize> {
        self.order.shown(self.k.min(ranking.candidates.len()), &ranking.mention.id, self.seed)
    }

    pub(super) fn wanted(&self) -> Wanted {
        match self.scoring {
            Scoring::Generate => Wanted::Text { max_new_tokens: self.max_new_tokens },
            Scoring::Letters => Wanted::Letters { least_share: self.least_share },
        }
    }
}

/// What became of a mention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It has fewer than two candidates: there is nothing to ask.
    TooFew,
    /// The gate found its ranking sure enough.
    Sure,
    /// The model's answers have no weight: it is not asked.
    Weightless,
    /// The answer, quoted here, names no option.
    Invalid(String),
    /// The answer ended within the model's thoughts.
    Unfinished(String),
    /// The letters' probabilities are too small to say anything.
    Unsure(String),
    /// The model said nothing, for this reason.
    Refused(String),
    /// The answer counts. Probabilities are those of the first K candidates in their old order.
    Answered { probabilities: Option<Vec<f64>> },
}

impl Verdict {
    /// In a word, as run files have it.
    pub fn label(&self) -> &'static str {
        match self {
            Verdict::TooFew => "too-few",
            Verdict::Sure => "sure",
            Verdict::Weightless => "weightless",
            Verdict::Invalid(_) => "invalid",
            Verdict::Unfinished(_) => "unfinished",
            Verdict::Unsure(_) => "unsure",
            Verdict::Refused(_) => "refused",
            Verdict::Answered { .. } => "answered",
        }
    }
}

/// A mention's new ranking.
#[derive(Clone, Debug, PartialEq)]
pub struct Reranked {
    /// Positions in the old ranking, best first.
    pub order: Vec<usize>,
    /// Why it is as it is.
    pub verdict: Verdict,
    /// What the model saw and chose, if its answer counts.
    pub choice: Option<Choice>,
}

/// What a model chose by itself: before a prior was divided out or the ranking's evidence added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The options as positions in the old ranking, in the order of their letters.
    pub shown: Vec<usize>,
    /// The letter of its choice.
    pub letter: usize,
}

/// What the answers took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Questions that a model was asked in this run.
    pub calls: usize,
    /// Questions whose answers stood in the journal.
    pub from_journal: usize,
    /// Questions that the gate spared.
    pub calls_saved: usize,
    /// Tokens of all prompts, in the journal or not.
    pub prompt_tokens: usize,
    /// Of these, the ones that were computed and not shared.
    pub computed_tokens: usize,
    /// Tokens of all answers.
    pub new_tokens: usize,
    /// Time of this run's calls.
    pub seconds: f64,
}

impl Spent {
    /// What several took together.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Spent>) -> Spent {
        all.into_iter().fold(Spent::default(), |sum, one| Spent {
            calls: sum.calls + one.calls,
            from_journal: sum.from_journal + one.from_journal,
            calls_saved: sum.calls_saved + one.calls_saved,
            prompt_tokens: sum.prompt_tokens.saturating_add(one.prompt_tokens),
            computed_tokens: sum.computed_tokens.saturating_add(one.computed_tokens),
            new_tokens: sum.new_tokens.saturating_add(one.new_tokens),
            seconds: sum.seconds + one.seconds,
        })
    }

    /// Adds what an answer took. Servers and journals say what they like: no number is too large.
    pub fn count(&mut self, reply: &Reply) {
        for (sum, tokens) in [
            (&mut self.prompt_tokens, reply.prompt_tokens),
            (&mut self.computed_tokens, reply.computed_tokens),
            (&mut self.new_tokens, reply.new_tokens),
        ] {
            *sum = sum.saturating_add(tokens);
        }
    }
}

/// New rankings, in the order of the old ones.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One per ranking.
    pub reranked: Vec<Reranked>,
    /// What it took.
    pub spent: Spent,
    /// The letters' prior that was divided out.
    pub prior: Option<Prior>,
    /// What the mentions that it was estimated on say.
    pub sample: Option<Sample>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An experiment compares the settings in the reports that it finds with its own.
    #[test]
    fn settings_that_are_not_used_stand_in_no_report() {
        let names = |settings: &Settings| -> Vec<String> {
            let value = serde_json::to_value(settings).unwrap();
            value.as_object().unwrap().keys().cloned().collect()
        };
        let before = [
            "strategy",
            "k",
            "scoring",
            "least_share",
            "max_new_tokens",
            "gate",
            "debias",
            "seed",
            "budget",
            "skip_refused",
        ];
        assert_eq!(names(&Settings::default()), before);
        let used = Settings { order: Order::Shuffled, allow_worse: true, ..Settings::default() };
        assert_eq!(names(&used).len(), before.len() + 2);
    }
}
