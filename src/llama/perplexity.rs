//! How well a model foretells a text, and how far weights of another precision lead it away.

use super::Llama;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// What a model made of a text, and another one of the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Foretold {
    /// Tokens that were foretold: all but the first of each piece.
    pub tokens: usize,
    /// Sum of -log of the probability that each had, in nats.
    pub surprise: f64,
    /// Sum over tokens of the Kullback-Leibler divergence of the compared model's next token from this one's, in nats.
    pub divergence: f64,
    /// Places at which the compared model finds another token likeliest.
    pub changed: usize,
    /// Sum of -log of the probability that each token had with the compared model.
    pub compared_surprise: f64,
}

impl Foretold {
    /// e to the mean surprise.
    pub fn perplexity(&self) -> f64 {
        (self.surprise / self.tokens.max(1) as f64).exp()
    }

    /// The same of the compared model.
    pub fn compared_perplexity(&self) -> f64 {
        (self.compared_surprise / self.tokens.max(1) as f64).exp()
    }
}

/// Has a model foretell a text in pieces of `context` tokens, each of which begins anew, behind what the tokenizer puts
/// before a text; with `compared`, another model of the same vocabulary too. `on_piece` hears of each piece (done, all).
///
/// Fails if the text has fewer than two tokens, or if the models have other vocabularies.
pub fn foretell(
    llama: &Llama,
    compared: Option<&Llama>,
    text: &str,
    context: usize,
    mut on_piece: impl FnMut(usize, usize),
) -> Result<Foretold> {
    let vocabulary = llama.config().vocab_size;
    if compared.is_some_and(|other| other.config().vocab_size != vocabulary) {
        return Err(Error::invalid("the compared models have vocabularies of different sizes"));
    }
    let (first, pieces) = pieces(llama, text, context)?;
    let mut found = Foretold::default();
    for (number, fed) in pieces.iter().enumerate() {
        let logits = llama.logits(fed)?;
        let other = compared.map(|other| other.logits(fed)).transpose()?;
        for place in first..fed.len() - 1 {
            let row = |logits: &[f32]| log_probabilities(&logits[place * vocabulary..][..vocabulary]);
            let (own, next) = (row(logits.data()), fed[place + 1] as usize);
            found.tokens += 1;
            found.surprise -= own[next];
            let Some(other) = &other else { continue };
            let other = row(other.data());
            found.compared_surprise -= other[next];
            found.divergence += diverges(&own, &other);
            found.changed += usize::from(likeliest(&own) != likeliest(&other));
        }
        on_piece(number + 1, pieces.len());
    }
    match found.surprise.is_finite() && found.divergence.is_finite() {
        true => Ok(found),
        false => Err(Error::invalid("the model's logits are not finite")),
    }
}

/// A text's tokens in pieces of at most `context`, each behind what the tokenizer puts before a text: how many tokens that is,
/// and the pieces.
///
/// Fails if the text has fewer than two tokens.
pub(super) fn pieces(llama: &Llama, text: &str, context: usize) -> Result<(usize, Vec<Vec<u32>>)> {
    let most = llama.config().context;
    if context > most {
        let reason = format!("pieces of {context} tokens are longer than the model's context of {most}");
        return Err(Error::invalid(reason));
    }
    let start = llama.tokenizer().encode("", true)?;
    let tokens = llama.tokenizer().encode(text, false)?;
    let each = context.saturating_sub(start.len());
    if each < 2 || tokens.len() < 2 {
        return Err(Error::invalid("nothing can be foretold of fewer than two tokens"));
    }
    Ok((start.len(), tokens.chunks(each).map(|piece| [&start[..], piece].concat()).collect()))
}

/// Sum over rows of the Kullback-Leibler divergence of what other logits (rows, vocabulary) foretell from what these do, in nats.
pub(super) fn divergence(logits: &Tensor, other: &Tensor) -> f64 {
    let rows = |of: &Tensor| of.data().chunks_exact(of.width()).map(log_probabilities).collect::<Vec<_>>();
    rows(logits).iter().zip(rows(other)).map(|(own, other)| diverges(own, &other)).sum()
}

/// The same of one row's logarithms of probabilities.
fn diverges(own: &[f64], other: &[f64]) -> f64 {
    own.iter().zip(other).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// Logarithms of the probabilities that logits stand for.
fn log_probabilities(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - largest).exp()).sum();
    logits.iter().map(|&x| f64::from(x - largest) - sum.ln()).collect()
}

fn likeliest(values: &[f64]) -> Option<usize> {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]).then(b.cmp(&a)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_become_logarithms_of_probabilities() {
        let all = log_probabilities(&[10.0, 10.0, 10.0 - 2f32.ln()]);
        for (found, want) in all.iter().zip([0.4f64, 0.4, 0.2]) {
            assert!((found.exp() - want).abs() < 1e-6, "{found}");
        }
        assert!((log_probabilities(&[1e30, 1e30])[1] + 2f64.ln()).abs() < 1e-12);
        assert_eq!(likeliest(&all), Some(0));
        let found = Foretold { tokens: 2, surprise: 8f64.ln(), ..Foretold::default() };
        assert!((found.perplexity() - 8f64.sqrt()).abs() < 1e-12);
    }
}
