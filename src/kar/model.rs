//! What KAR asks of a language model.

use serde::{Deserialize, Serialize};

use super::instruction::Prompt;
use crate::error::Result;

/// One thing to ask.
#[derive(Clone, Debug)]
pub struct Question {
    /// The mention's identifier, for messages.
    pub mention: String,
    /// Questions of one group, which stand together, have more in common than with others: they are about one mention.
    pub group: usize,
    /// What the model reads.
    pub prompt: Prompt,
    /// Options that it lists, by the letters A, B, ...
    pub options: usize,
    /// Whether its answer is known. It is not asked again; it is here since what goes through a model together decides
    /// about the last bits, and a run that is resumed must give the same ones.
    pub answered: bool,
}

/// What to answer a question with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// A text of at most so many tokens, greedily chosen.
    Text { max_new_tokens: usize },
    /// Logits of the options' letters as the next token, if the letters have at least this share of the probability
    /// together. What may open an answer, such as a quote, has no part in it.
    Letters { least_share: f64 },
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Said {
    /// A text.
    Text(String),
    /// A logit per option, up to a constant.
    Letters(Vec<f32>),
    /// A text that ended within the model's thoughts: it takes more tokens, or a model that does not think.
    Unfinished(String),
    /// A text whose first tokens are hardly ever a letter: their probabilities say nothing about the options.
    Unsure(String),
    /// Nothing, for a reason that lies in this question: it is too long, or the server refuses its text. Asking again
    /// would not help, and other questions are not concerned.
    Refused(String),
}

/// An answer with what it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The answer.
    pub said: Said,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, the ones that were computed for it and not shared with questions before it. Servers that say nothing
    /// about it count as sharing nothing.
    pub computed_tokens: usize,
    /// Tokens of the answer.
    pub new_tokens: usize,
}

impl Reply {
    /// Fails with a reason if it cannot be the answer to this question: neither a file nor a server is taken at its word.
    pub fn fits(&self, question: &Question, wanted: Wanted) -> Result<(), String> {
        let Said::Letters(logits) = &self.said else { return Ok(()) };
        if !matches!(wanted, Wanted::Letters { .. }) {
            return Err("has letters' logits where a text was asked for".into());
        }
        if logits.len() != question.options {
            return Err(format!("has {} letters' logits for {} options", logits.len(), question.options));
        }
        match logits.iter().find(|logit| !logit.is_finite()) {
            Some(logit) => Err(format!("has a letter's logit that is no finite number ({logit})")),
            None => Ok(()),
        }
    }
}

/// A language model, wherever it runs.
pub trait LanguageModel {
    /// Which model it is, for journals and reports. Holds no secret.
    fn identity(&self) -> String;

    /// Answers the questions that are not answered, in any order; `on_reply` hears of each by its position. An error of `on_reply` ends the work.
    ///
    /// Fails if the model cannot answer at all; what was answered before has been heard.
    fn answer(
        &mut self,
        questions: &[Question],
        wanted: Wanted,
        on_reply: &mut dyn FnMut(usize, Reply) -> Result<()>,
    ) -> Result<()>;
}
