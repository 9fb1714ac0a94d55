//! What the log-probabilities of an answer's first tokens say about the options' letters.

use serde_json::Value;

use crate::kar::answer::thought;
use crate::kar::instruction::letter;
use crate::kar::letters::{bare, is_markup, is_opening, letter_of};
use crate::kar::model::Said;

/// Most alternatives of a token that servers give.
pub const MOST_LOGPROBS: usize = 20;

/// Tokens that are asked for: a letter may stand behind an empty thought, a line break or a quote.
pub const LOOKED_AT: usize = 8;

/// An alternative at a position.
struct Alternative<'a> {
    token: &'a str,
    probability: f64,
}

/// What these positions say: the letters at the first one that is no mere opening, if they have this share there.
pub fn said(positions: &[Value], options: usize, least_share: f64, text: String) -> Said {
    let mut in_thought = false;
    let mut last = None;
    for position in positions {
        let alternatives = alternatives(position);
        let chosen = position["token"].as_str().or(alternatives.first().map(|a| a.token)).unwrap_or_default();
        match bare(chosen) {
            mark if thought::opens(mark) => in_thought = true,
            mark if thought::closes(mark) => in_thought = false,
            _ if is_opening(chosen) => {}
            _ if in_thought => return Said::Unfinished(text),
            _ => {
                last = Some(alternatives);
                break;
            }
        }
        last = Some(alternatives);
    }
    let Some(alternatives) = last else { return Said::Text(text) };
    match letters(&alternatives, options) {
        None => Said::Text(text),
        Some((_, share)) if share < least_share => Said::Unsure(text),
        Some((letters, _)) => Said::Letters(letters),
    }
}

/// The alternatives at a position, or its token alone where the server gives no others.
fn alternatives(position: &Value) -> Vec<Alternative<'_>> {
    let listed = position["top_logprobs"].as_array().filter(|list| !list.is_empty());
    let all: Vec<&Value> = listed.map_or_else(|| vec![position], |list| list.iter().collect());
    let read = |value: &'_ Value| -> Option<f64> { Some(value["logprob"].as_f64()?.min(0.0).exp()) };
    all.into_iter()
        .filter_map(|value| Some(Alternative { token: value["token"].as_str()?, probability: read(value)? }))
        .collect()
}

/// The letter's log-probability of each option, and the share of all letters among what is no opening. A letter that is
/// not among the alternatives is half as likely as the least likely of them. `None` if no letter is among them.
fn letters(alternatives: &[Alternative], options: usize) -> Option<(Vec<f32>, f64)> {
    let sum = |i: usize| {
        let own = alternatives.iter().filter(|a| letter_of(a.token) == Some(letter(i)));
        own.map(|a| a.probability).sum::<f64>()
    };
    let found: Vec<f64> = (0..options).map(sum).collect();
    let together: f64 = found.iter().sum();
    let opening: f64 = alternatives.iter().filter(|a| is_markup(a.token)).map(|a| a.probability).sum();
    let listed: f64 = alternatives.iter().map(|a| a.probability).sum();
    let share = together / (1.0 - opening).max(listed - opening).max(together);
    let likely = alternatives.iter().map(|a| a.probability).filter(|p| *p > 0.0);
    // Of the least numbers, half is none: its logarithm must stay finite.
    let least = (likely.fold(1.0, f64::min) / 2.0).max(f64::MIN_POSITIVE);
    let logit = |p: &f64| (if *p > 0.0 { *p } else { least }).ln() as f32;
    (together > 0.0).then(|| (found.iter().map(logit).collect(), share))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kar::LEAST_SHARE;

    fn position(alternatives: &[(&str, f64)]) -> Value {
        let top: Vec<Value> = alternatives.iter().map(|(t, l)| json!({"token": t, "logprob": l})).collect();
        json!({"token": alternatives[0].0, "logprob": alternatives[0].1, "top_logprobs": top})
    }

    fn first(positions: &[&[(&str, f64)]]) -> Option<char> {
        let positions: Vec<Value> = positions.iter().map(|p| position(p)).collect();
        let Said::Letters(logits) = said(&positions, 5, LEAST_SHARE, "x".into()) else { return None };
        let best = (0..5).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)))?;
        Some(letter(best))
    }

    #[test]
    fn letters_are_summed_over_their_tokens() {
        let half = 0.5f64.ln();
        let listed = [("B", half), (" B", half - 1.0), ("\u{120}A", -3.0), ("The", -4.0), ("b", -5.5)];
        let Said::Letters(logits) = said(&[position(&listed)], 3, LEAST_SHARE, String::new()) else { panic!() };
        let want = [-3.0, (0.5 + 0.5 * (-1f64).exp()).ln(), -5.5 - 2f64.ln()];
        assert!(logits.iter().zip(want).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6), "{logits:?}");
        let none = said(&[position(&[("The", -0.1)])], 3, LEAST_SHARE, "B".into());
        assert_eq!(none, Said::Text("B".into()));
        let Said::Letters(logits) = said(&[position(&[("B", -0.1), ("x", -744.5)])], 3, LEAST_SHARE, String::new())
        else {
            panic!()
        };
        assert!(logits.iter().all(|logit| logit.is_finite()), "{logits:?}");
    }

    #[test]
    fn a_letter_that_was_found_outranks_those_that_were_not() {
        assert_eq!(first(&[&[("B", -0.1)]]), Some('B'));
        assert_eq!(first(&[&[("The", -0.2), ("B", -2.0)]]), Some('B'));
        assert_eq!(first(&[&[("**", -0.01), ("(", -4.0), ("C", -5.0)]]), Some('C'));
        assert_eq!(first(&[&[("B.", -0.1), ("A.", -3.0), ("B", -4.0)]]), Some('B'));
        let bare = json!({"token": "E", "logprob": -0.5, "top_logprobs": null});
        let Said::Letters(logits) = said(&[bare], 5, LEAST_SHARE, String::new()) else { panic!() };
        assert!(logits[..4].iter().all(|l| *l < logits[4]));
    }

    #[test]
    fn letters_with_almost_no_probability_are_no_answer() {
        for (alternatives, sure) in [
            (&[("<think>", -0.0001), ("A", -20.0), ("The", -21.0)][..], false),
            (&[("\n", -0.01), ("A", -4.9), ("B", -5.0), ("x", -6.0)], false),
            (&[("I", -0.02), ("A", -9.0), ("As", -9.5)], false),
            (&[("I", -1.0), ("A", -1.5)], true),
        ] {
            let got = said(&[position(alternatives)], 5, LEAST_SHARE, "x".into());
            assert_eq!(matches!(got, Said::Letters(_)), sure, "{got:?}");
            assert!(sure || got == Said::Unsure("x".into()), "{got:?}");
        }
    }

    #[test]
    fn a_letter_behind_an_opening_is_found_and_one_within_thoughts_is_not() {
        let sure = |token: &'static str| [(token, -0.01)];
        assert_eq!(first(&[&sure("**"), &sure("D")]), Some('D'));
        assert_eq!(first(&[&sure("<think>"), &sure("\n\n"), &sure("</think>"), &sure("\n\n"), &sure("D")]), Some('D'));
        assert_eq!(first(&[&sure("\""), &sure("B"), &sure("C")]), Some('B'));
        let thoughts: Vec<Value> = ["<think>", "\n", "A"].iter().map(|t| position(&sure(t))).collect();
        assert_eq!(said(&thoughts, 5, LEAST_SHARE, "<think>\nA".into()), Said::Unfinished("<think>\nA".into()));
    }
}
