//! Words within a text.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::printable::bidirectional;

/// Where these words stand in a text, with any space between them; `any_case` takes letters of either case as the same.
pub fn occurrences<'a>(text: &'a str, words: &'a str, any_case: bool) -> impl Iterator<Item = Range<usize>> + 'a {
    let mut next = 0;
    text.char_indices().filter_map(move |(start, _)| {
        let len = prefix_len(&text[start..], words, any_case).filter(|&len| len > 0 && start >= next)?;
        next = start + len;
        Some(start..next)
    })
}

/// Length of the words, if the text begins with them.
fn prefix_len(text: &str, words: &str, any_case: bool) -> Option<usize> {
    let mut rest = text;
    for (i, word) in words.split_whitespace().enumerate() {
        let trimmed = rest.trim_start();
        if (i > 0) != (trimmed.len() < rest.len()) {
            return None;
        }
        rest = trimmed;
        for c in word.chars() {
            let mut left = rest.chars();
            let same = |d: char| c == d || any_case && c.to_lowercase().eq(d.to_lowercase());
            left.next().filter(|&d| same(d))?;
            rest = left.as_str();
        }
    }
    Some(text.len() - rest.len())
}

/// Whether no letter or digit of the same kind of script adjoins this part of a text: scripts without spaces end a word of
/// one that has them.
pub fn stands_alone(text: &str, at: &Range<usize>) -> bool {
    let same = |inner: Option<char>, outer: Option<char>| match (inner, outer) {
        (Some(inner), Some(outer)) => {
            (outer.is_alphanumeric() || outer == '_') && is_unspaced(inner) == is_unspaced(outer)
        }
        _ => false,
    };
    let words = &text[at.clone()];
    !same(words.chars().next(), text[..at.start].chars().next_back())
        && !same(words.chars().next_back(), text[at.end..].chars().next())
}

/// Whether a Latin letter beside this character is part of its word.
pub fn adjoins(c: char) -> bool {
    (c.is_alphanumeric() || c == '_') && !is_unspaced(c)
}

/// Characters of scripts that put no spaces around foreign words: Chinese, Japanese, Korean.
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11ff}' | '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

/// The beginning of a foreign text in one line, for messages: without control characters, escape sequences and signs that
/// turn the direction of writing.
pub fn excerpt(text: &str) -> String {
    const LENGTH: usize = 500;
    static ESCAPE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")
            .unwrap_or_else(|e| unreachable!("{e}"))
    });
    let start = text.char_indices().nth(8 * LENGTH).map_or(text, |(at, _)| &text[..at]);
    let text = ESCAPE.replace_all(start, "");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|&c| !c.is_control() && !bidirectional(c)).collect();
    match line.char_indices().nth(LENGTH) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_does_nothing_to_a_terminal() {
        assert_eq!(excerpt("a \x1b[31mred\x1b[0m\n\u{202e}b\u{7}\x1b]0;title\x07c"), "a red bc");
        assert_eq!(excerpt(&"x".repeat(1000)).chars().count(), 501);
    }

    #[test]
    fn words_are_found_in_any_case_and_spacing() {
        let all = |text, words, any_case| occurrences(text, words, any_case).collect::<Vec<_>>();
        assert_eq!(all("New York, new\n york", "New York", true), [0..8, 10..19]);
        assert_eq!(all("New York, new york, New York", "New York", false), [0..8, 20..28]);
        assert_eq!(all("ÉCOLE école", "école", true), [0..6, 7..13]);
        assert_eq!(all("aaaa", "aa", false), [0..2, 2..4]);
        assert!(
            all("x y", "", true).is_empty()
                && all("", "x", true).is_empty()
                && all("NewYork", "New York", true).is_empty()
        );
        assert!(stands_alone("答案是B选项", &(9..10)) && !stands_alone("大东京都", &(3..9)));
        assert!(stands_alone("a b", &(0..1)) && !stands_alone("ab", &(0..1)) && !stands_alone("éb", &(2..3)));
    }
}
