//! How well a mention agrees with a name.

use rapidfuzz::fuzz;

use super::words::words;

/// Share of the score that the agreement of words decides; the rest is that of the whole texts, which puts short names
/// before longer ones that hold the same words.
const BY_WORDS: f64 = 0.9;

/// A mention, prepared for comparison with many names.
pub struct Name {
    whole: fuzz::RatioBatchComparator<char>,
    /// Each word with its number of letters.
    words: Vec<(fuzz::RatioBatchComparator<char>, f64)>,
    letters: f64,
}

impl Name {
    /// Prepares a normalized text.
    pub fn new(normalized: &str) -> Name {
        let prepare = |word: &str| (fuzz::RatioBatchComparator::new(word.chars()), word.chars().count() as f64);
        let words: Vec<_> = words(normalized).map(prepare).collect();
        let letters = words.iter().map(|(_, n)| n).sum();
        Name { whole: fuzz::RatioBatchComparator::new(normalized.chars()), words, letters }
    }

    /// Agreement with a normalized name, from 0 to 1: each of the mention's words is compared with the most similar word of
    /// the name (Monge and Elkan, 1996), by its normalized indel similarity, and counts by its letters. So a surname
    /// agrees with the full name, and a misspelt one nearly does.
    pub fn agreement(&self, name: &str) -> f32 {
        if self.letters == 0.0 {
            return 0.0;
        }
        let best = |word: &fuzz::RatioBatchComparator<char>| {
            words(name).map(|other| word.similarity(other.chars())).fold(0.0, f64::max)
        };
        let by_words: f64 = self.words.iter().map(|(word, letters)| letters * best(word)).sum::<f64>() / self.letters;
        (BY_WORDS * by_words + (1.0 - BY_WORDS) * self.whole.similarity(name.chars())) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_as_people_would() {
        let order = ["powers", "stefanie powers", "stefanie powers junior", "power", "tower", "noel harrison"];
        let mention = Name::new("powers");
        let scores = order.map(|name| mention.agreement(name));
        assert!(scores.is_sorted_by(|a, b| a > b), "{scores:?}");
        assert_eq!((scores[0], Name::new("").agreement("powers")), (1.0, 0.0));
        assert!(Name::new("gert steegmanns").agreement("gert steegmans") > 0.9);
    }
}
