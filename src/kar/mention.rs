//! Texts made fit for an instruction: the mention marked in its sentence, and all of it cut to a budget.

use std::ops::Range;

use super::words::{occurrences, stands_alone};

/// Characters that a word of a budget may have in the mean, so that scripts without spaces are cut too.
const CHARACTERS_PER_WORD: usize = 8;

/// Stands where something was cut.
const CUT: &str = "…";

/// A text in one line, cut to this many words.
pub fn cut(text: &str, words: usize) -> String {
    cut_end(&one_line(text), words)
}

/// The sentence in one line with the mention in `[[` and `]]`, cut to about this many words around the mention.
///
/// The mention is looked for as a whole word, then anywhere, then with its case ignored. A sentence that does not have
/// it stays unmarked.
pub fn marked(sentence: &str, mention: &str, words: usize) -> String {
    let (sentence, mention) = (one_line(sentence), one_line(mention));
    let Some(at) = find(&sentence, &mention) else { return cut_end(&sentence, words) };
    let (before, after) = (&sentence[..at.start], &sentence[at.end..]);
    // Half of the budget on either side; what one side does not need goes to the other.
    let count = |text: &str| text.split_whitespace().count();
    let spare = words.saturating_sub(count(&mention));
    let right = count(after).min((spare / 2).max(spare.saturating_sub(count(before))));
    format!("{}[[{}]]{}", cut_start(before, spare - right), &sentence[at], cut_end(after, right))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first words of a text whose words stand one space apart.
fn cut_end(text: &str, words: usize) -> String {
    // A space before the first word is no gap between words.
    let gaps = text.match_indices(' ').map(|(at, _)| at).filter(|&at| at > 0);
    let by_words = [0].into_iter().chain(gaps).nth(words);
    let by_characters = text.char_indices().nth(words.saturating_mul(CHARACTERS_PER_WORD)).map(|(at, _)| at);
    match by_words.into_iter().chain(by_characters).min() {
        Some(at) if !text.is_empty() => format!("{}{CUT}", &text[..at]),
        _ => text.to_string(),
    }
}

/// The last words of such a text.
fn cut_start(text: &str, words: usize) -> String {
    let gaps = text.rmatch_indices(' ').map(|(at, _)| at + 1).filter(|&at| at < text.len());
    let by_words = [text.len()].into_iter().chain(gaps).nth(words);
    let by_characters = text.char_indices().rev().map(|(at, _)| at).nth(words.saturating_mul(CHARACTERS_PER_WORD));
    match by_words.into_iter().chain(by_characters).max() {
        Some(at) if !text.is_empty() => format!("{CUT}{}", &text[at..]),
        _ => text.to_string(),
    }
}

/// Where the mention stands in the sentence.
fn find(sentence: &str, mention: &str) -> Option<Range<usize>> {
    [false, true].into_iter().find_map(|any_case| {
        let alone = occurrences(sentence, mention, any_case).find(|at| stands_alone(sentence, at));
        alone.or_else(|| occurrences(sentence, mention, any_case).next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mention_is_marked_where_it_stands_alone() {
        let mark = |sentence, mention| marked(sentence, mention, 100);
        assert_eq!(mark("Jordanians like Jordan.", "Jordan"), "Jordanians like [[Jordan]].");
        assert_eq!(mark("The\nKing of  JORDAN", "Jordan"), "The King of [[JORDAN]]");
        assert_eq!(mark("Jordanians", "Jordan"), "[[Jordan]]ians");
        assert_eq!(mark("He said so.", "Jordan"), "He said so.");
        assert_eq!(mark("in the U.S. (today)", "U.S."), "in the [[U.S.]] (today)");
        assert_eq!(mark("New\tYork", "New York"), "[[New York]]");
        assert_eq!(mark("约旦国王侯赛因", "侯赛因"), "约旦国王[[侯赛因]]");
    }

    #[test]
    fn a_long_sentence_is_cut_around_the_mention() {
        let words: Vec<String> = (0..100).map(|i| format!("w{i}")).collect();
        let sentence = words.join(" ");
        assert_eq!(marked(&sentence, "w50", 5), "…w48 w49 [[w50]] w51 w52…");
        assert_eq!(marked(&sentence, "w0", 4), "[[w0]] w1 w2 w3…");
        assert_eq!(marked(&sentence, "w99", 4), "…w96 w97 w98 [[w99]]");
        assert_eq!(marked(&sentence, "w50", 1), "…[[w50]]…");
        assert_eq!(marked(&sentence, "none", 3), "w0 w1 w2…");
    }

    #[test]
    fn a_cut_text_keeps_its_budget_in_any_script() {
        assert_eq!(cut(" one \n two  three ", 3), "one two three");
        assert_eq!(cut("one two three", 2), "one two…");
        assert_eq!(cut("", 2), "");
        assert_eq!(cut("one", 0), "…");
        assert_eq!(
            (cut("one two", usize::MAX), marked("one two", "one", usize::MAX)),
            ("one two".into(), "[[one]] two".into())
        );
        assert_eq!(cut(&"约".repeat(100), 2), format!("{}…", "约".repeat(16)));
        let long = "🙂".repeat(1000);
        assert!(marked(&format!("{long}x{long}"), "x", 4).chars().count() < 2 * 4 * CHARACTERS_PER_WORD + 10);
    }
}
