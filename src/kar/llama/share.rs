//! How much of the next token's probability the options' letters have, by the same rule as of a server's answer.

use crate::error::{Error, Result};
use crate::kar::letters::{is_markup, letter_of};
use crate::tokenizer::Tokenizer;

/// What a token is at the beginning of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// What may stand before a letter.
    Opening,
    /// The letter of the option at this position.
    Letter(usize),
    /// Anything else.
    Other,
}

impl Token {
    /// What the token is that reads as this.
    fn of(piece: &str) -> Token {
        match letter_of(piece) {
            Some(letter) => Token::Letter(letter as usize - 'A' as usize),
            None if is_markup(piece) => Token::Opening,
            None => Token::Other,
        }
    }
}

/// What each token of a vocabulary is, by its number.
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// Looks at each token of a tokenizer.
    pub fn of(tokenizer: &Tokenizer) -> Result<Tokens> {
        let mut tokens = Vec::new();
        for (id, piece) in tokenizer.pieces()? {
            let id = id as usize;
            if tokens.len() <= id {
                tokens.resize(id + 1, Token::Other);
            }
            tokens[id] = Token::of(&piece);
        }
        Ok(Tokens(tokens))
    }

    /// The share of the first letters among all that is no opening, by the logits of a whole vocabulary.
    ///
    /// Fails if the logits are no finite numbers.
    pub fn share(&self, logits: &[f32], options: usize) -> Result<f64> {
        let highest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        let (mut letters, mut others) = (0.0, 0.0);
        for (id, logit) in logits.iter().enumerate() {
            let weight = f64::from(logit - highest).exp();
            match self.0.get(id) {
                Some(Token::Opening) if weight.is_finite() => {}
                Some(Token::Letter(at)) if *at < options => letters += weight,
                _ => others += weight,
            }
        }
        let all: f64 = letters + others;
        match all.is_finite() {
            true => Ok(letters / all.max(f64::MIN_POSITIVE)),
            false => Err(Error::invalid(NOT_FINITE)),
        }
    }
}

/// What is wrong with logits of which some are no numbers.
pub const NOT_FINITE: &str = "the model's logits are no finite numbers; are its weights whole?";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_in_any_dress_count_and_openings_do_not() {
        let tokens = Tokens(["A", " B", "C.", "**", "\n", "I"].map(Token::of).to_vec());
        let logits = |weights: [f32; 6]| weights.map(f32::ln);
        let share = |weights, options| tokens.share(&logits(weights), options).unwrap();
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-6, "{got} {want}");
        near(share([1.0, 2.0, 3.0, 100.0, 3.0, 1.0], 3), 0.6);
        // The third letter is no option.
        near(share([1.0, 2.0, 3.0, 100.0, 3.0, 1.0], 2), 0.3);
        near(share([1.0, 0.0, 0.0, 0.0, 500.0, 499.0], 3), 0.001);
        // Numbers that no tokenizer has belong to nothing.
        near(tokens.share(&[0.0; 12], 3).unwrap(), 3.0 / 11.0);
        let broken = tokens.share(&[0.0, 1.0, 2.0, f32::NAN, 0.0, 0.0], 3).unwrap_err().to_string();
        assert!(broken.contains("no finite numbers"), "{broken}");
    }
}
