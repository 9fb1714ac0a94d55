//! What each mention of the demo says and shows.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Emoji, Split};
use crate::random::{Purpose, generator};

/// Candidates of each mention.
const CANDIDATES: usize = 10;

/// Shares of the keywords that go to validation and test, in percent.
const HELD_OUT: [usize; 2] = [9, 18];

/// Number of mentions of each split.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub train: usize,
    pub valid: usize,
    pub test: usize,
}

impl Sizes {
    /// The demo as the README describes it.
    pub const FULL: Sizes = Sizes { train: 12_000, valid: 500, test: 1000 };

    fn of(&self, split: Split) -> usize {
        [self.train, self.valid, self.test][split as usize]
    }
}

/// A mention before it is written.
#[derive(Debug)]
pub(super) struct Recipe {
    pub mention: String,
    pub sentence: String,
    /// Index of the right entity.
    pub target: usize,
    /// Indices of what stands beside it.
    pub others: Vec<usize>,
    /// Indices, the target among them at a place drawn by seed.
    pub candidates: Vec<usize>,
}

/// Entities of every keyword that at least two share.
fn ambiguous(emoji: &[Emoji]) -> BTreeMap<&str, Vec<usize>> {
    let mut by_keyword: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, e) in emoji.iter().enumerate() {
        let words: std::collections::BTreeSet<&str> =
            e.keywords.iter().map(String::as_str).chain([e.name.as_str()]).collect();
        words.into_iter().for_each(|word| by_keyword.entry(word).or_default().push(i));
    }
    by_keyword.retain(|_, sharing| sharing.len() >= 2);
    by_keyword
}

/// Draws the mentions of a split. No keyword is a mention in two splits: were its entities shared out among them, those of the
/// test would be wrong answers in training wherever they are candidates, and a model would learn never to give them.
pub(super) fn draw(emoji: &[Emoji], split: Split, sizes: Sizes, seed: u64) -> Vec<Recipe> {
    let rng = generator(seed, Purpose::Demo, 1 + split as u64);
    draw_with(emoji, split, sizes.of(split), seed, rng)
}

/// Draws `count` recipes of a split's keywords, which depend on the seed alone, by `rng`.
pub(super) fn draw_with(emoji: &[Emoji], split: Split, count: usize, seed: u64, mut rng: ChaCha8Rng) -> Vec<Recipe> {
    let keywords = ambiguous(emoji);
    let mut words: Vec<&str> = keywords.keys().copied().collect();
    words.shuffle(&mut generator(seed, Purpose::Demo, 0));
    let [valid, test] = HELD_OUT.map(|percent| words.len() * percent / 100);
    let range = match split {
        Split::Test => 0..test,
        Split::Valid => test..test + valid,
        Split::Train => test + valid..words.len(),
    };
    let mut pairs: Vec<(&str, usize)> =
        words[range].iter().flat_map(|word| keywords[word].iter().map(|&i| (*word, i))).collect();
    pairs.shuffle(&mut rng);
    let one = |i: usize| {
        let (word, target) = pairs[i % pairs.len()];
        recipe(emoji, word, target, &keywords[word], &mut rng)
    };
    (0..count).map(one).collect()
}

fn recipe(emoji: &[Emoji], word: &str, target: usize, sharing: &[usize], rng: &mut ChaCha8Rng) -> Recipe {
    let count = rng.random_range(2..=4);
    let mut others = Vec::with_capacity(count);
    while others.len() < count {
        let other = rng.random_range(0..emoji.len());
        if other != target && !others.contains(&other) && !sharing.contains(&other) {
            others.push(other);
        }
    }
    let candidates = candidates(emoji.len(), target, sharing, rng);
    let property = rng.random_bool(0.5).then(|| property(emoji, target, word, &candidates, rng)).flatten();
    let names: Vec<&str> = others.iter().map(|&i| emoji[i].name.as_str()).collect();
    let sentence = sentence(word, &names, property, rng);
    Recipe { mention: word.to_string(), sentence, target, others, candidates }
}

/// Something else that is known about the target, of what the fewest other candidates share.
fn property<'a>(
    emoji: &'a [Emoji],
    target: usize,
    word: &str,
    candidates: &[usize],
    rng: &mut ChaCha8Rng,
) -> Option<&'a str> {
    let mut known: Vec<&str> = emoji[target].keywords.iter().map(String::as_str).filter(|k| *k != word).collect();
    known.shuffle(rng);
    let sharing = |word: &str| candidates.iter().filter(|&&c| emoji[c].keywords.iter().any(|k| k == word)).count();
    known.into_iter().min_by_key(|word| sharing(word))
}

fn sentence(word: &str, beside: &[&str], property: Option<&str>, rng: &mut ChaCha8Rng) -> String {
    const SCENES: [&str; 4] =
        ["A {m} beside {o}.", "{o} around a {m}.", "The {m} stands with {o}.", "A {m}, then {o}."];
    const PROPERTIES: [&str; 3] = ["It is about {p}.", "Think of {p}.", "It has to do with {p}."];
    let (last, first) = beside.split_last().map_or(("nothing", &[][..]), |(last, first)| (*last, first));
    let others = format!("{} and {last}", first.join(", "));
    let mut text = SCENES[rng.random_range(0..SCENES.len())].replace("{m}", word).replace("{o}", &others);
    if let Some(property) = property {
        let clause = PROPERTIES[rng.random_range(0..PROPERTIES.len())];
        text = format!("{text} {}", clause.replace("{p}", property));
    }
    text
}

/// The target, others that share its keyword, then its neighbours in Unicode's order.
fn candidates(entities: usize, target: usize, sharing: &[usize], rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut rivals: Vec<usize> = sharing.iter().copied().filter(|&i| i != target).collect();
    rivals.shuffle(rng);
    rivals.truncate(CANDIDATES - 1);
    let mut distance = 1;
    while rivals.len() < CANDIDATES - 1 {
        for neighbour in [target.checked_sub(distance), Some(target + distance)].into_iter().flatten() {
            if neighbour < entities && !sharing.contains(&neighbour) && rivals.len() < CANDIDATES - 1 {
                rivals.push(neighbour);
            }
        }
        distance += 1;
    }
    rivals.insert(rng.random_range(0..CANDIDATES), target);
    rivals
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn recipes_are_what_the_demo_promises() {
        let emoji = Emoji::all().unwrap();
        assert_eq!(emoji.len(), 1356);
        let sizes = Sizes { train: 3000, valid: 300, test: 500 };
        let mut seen: HashSet<String> = HashSet::new();
        for split in Split::ALL {
            let recipes = draw(&emoji, split, sizes, 7);
            let keywords: HashSet<_> = recipes.iter().map(|r| r.mention.clone()).collect();
            assert!(keywords.is_disjoint(&seen), "{split} repeats keywords of another split");
            seen.extend(keywords);
            for r in &recipes {
                let distinct: HashSet<_> = r.candidates.iter().collect();
                assert_eq!((r.candidates.len(), distinct.len()), (CANDIDATES, CANDIDATES));
                assert!(r.candidates.contains(&r.target) && r.sentence.contains(&r.mention));
                assert!((2..=4).contains(&r.others.len()) && !r.others.contains(&r.target));
            }
            let first = recipes.iter().filter(|r| r.candidates[0] == r.target).count();
            assert!(first * 5 < recipes.len(), "the target stands first too often");
        }
        let again = draw(&emoji, Split::Test, sizes, 7);
        assert_eq!(draw(&emoji, Split::Test, sizes, 7)[3].sentence, again[3].sentence);
        assert_ne!(draw(&emoji, Split::Test, sizes, 8)[3].sentence, again[3].sentence);
    }
}
