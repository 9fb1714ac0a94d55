//! Numbers beside options: places, or shares.

use std::sync::LazyLock;

use regex::Regex;

use crate::kar::answer::pattern;

/// A number beside an option: a place, or a share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub value: f64,
    pub share: bool,
}

/// A number or an ordinal.
pub(super) static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(\d{1,3}(?:\.\d+)?)(%)?|\b(first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|finally|lastly|last)\b|第([一二三四五])",
    )
});

pub(super) fn numbers(text: &str) -> Vec<Number> {
    let ordinals = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];
    let one = |c: regex::Captures| {
        if let Some(digits) = c.get(1) {
            let share = c.get(2).is_some() || digits.as_str().contains('.');
            return digits.as_str().parse().ok().map(|value| Number { value, share });
        }
        let word = c.get(3).map(|w| w.as_str().to_lowercase());
        let place = match word {
            Some(word) => ordinals.iter().position(|&o| o == word).map_or(99, |at| at + 1),
            None => 1 + "一二三四五".chars().position(|o| c.get(4).is_some_and(|w| w.as_str().starts_with(o)))?,
        };
        Some(Number { value: place as f64, share: false })
    };
    NUMBER.captures_iter(text).filter_map(one).collect()
}

/// Whether numbers beside options stand in the order in which the options do.
pub(super) fn agree(numbers: &[Number], options: usize) -> bool {
    let places = numbers.iter().all(|n| !n.share && (n.value <= options as f64 || n.value == 99.0));
    let pairs = || numbers.windows(2).map(|w| (w[0].value, w[1].value));
    if places { pairs().all(|(a, b)| a <= b) } else { pairs().all(|(a, b)| a >= b) }
}
