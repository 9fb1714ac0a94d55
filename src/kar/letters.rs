//! Tokens that an answer by a letter may begin with.

use super::instruction::letter;

/// A token without the spaces that texts or vocabularies write before it.
pub fn bare(token: &str) -> &str {
    token.trim_start_matches(['\u{120}', '\u{2581}', '\u{10a}']).trim()
}

/// Whether a token is nothing that an answer could not begin with: space, a quote, a bracket, markup.
pub fn is_opening(token: &str) -> bool {
    bare(token)
        .chars()
        .all(|c| matches!(c, '*' | '(' | '[' | '"' | '\'' | '`' | '“' | '‘' | '«' | '_' | '#' | '-' | '$'))
}

/// Whether a token is an opening that is seen: a markup before a letter is no answer of its own; a line break or a word is.
pub fn is_markup(token: &str) -> bool {
    is_opening(token) && !bare(token).is_empty()
}

/// The letter that a token is, with what may stand around it: `B.`, `(B`, `**B**`.
pub fn letter_of(token: &str) -> Option<char> {
    let alone = bare(token).trim_matches(|c: char| !c.is_alphanumeric() && c != '<' && c != '>');
    let mut chars = alone.chars();
    chars.next().filter(|c| chars.next().is_none() && (letter(0)..=letter(super::MOST_OPTIONS - 1)).contains(c))
}
