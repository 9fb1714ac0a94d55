//! Words within a text.

use std::ops::Range;

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

#[cfg(test)]
mod tests {
    use super::*;

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
