//! Texts as the words and letter groups that indices know.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Small letters without accents, words separated by single spaces.
pub fn normalize(text: &str) -> String {
    let letters = text.nfkd().filter(|&c| !is_combining_mark(c)).flat_map(char::to_lowercase);
    let mut out = String::with_capacity(text.len());
    for c in letters {
        if c.is_alphanumeric() {
            out.push(c);
        } else if c != '\'' && c != '’' && !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// A name without what tells it from others of the same name, as in `Heroes (song)`.
pub fn bare(name: &str) -> &str {
    match name.trim_end().strip_suffix(')').and_then(|name| name.rsplit_once('(')) {
        Some((name, _)) if !name.trim().is_empty() => name.trim_end(),
        _ => name,
    }
}

/// The words of a normalized text.
pub fn words(normalized: &str) -> impl Iterator<Item = &str> {
    normalized.split(' ').filter(|word| !word.is_empty())
}

/// The groups of three letters of a normalized text, with a blank before and after each word.
pub fn trigrams(normalized: &str) -> impl Iterator<Item = String> {
    words(normalized).flat_map(|word| {
        let letters: Vec<char> = [' '].into_iter().chain(word.chars()).chain([' ']).collect();
        letters.windows(3).map(|group| group.iter().collect()).collect::<Vec<String>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_brought_to_one_form() {
        assert_eq!(normalize("  Björk\u{a0}Guðmundsdóttir, O'Neill-Smith. "), "bjork guðmundsdottir oneill smith");
        assert_eq!((bare("Heroes (song)"), bare("(What's) Up"), bare("(x)")), ("Heroes", "(What's) Up", "(x)"));
        assert_eq!(trigrams("ab c").collect::<Vec<_>>(), [" ab", "ab ", " c "]);
    }
}
