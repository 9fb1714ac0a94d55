//! In which order a model sees the options.

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::random::{Purpose, generator};

/// Which option stands at which letter. A model that prefers A looks good where A is the ranking's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The ranking's.
    #[default]
    BestFirst,
    /// One that is drawn for each mention.
    Shuffled,
    /// The ranking's from its end.
    WorstFirst,
}

impl Order {
    /// Positions in the ranking, in the order of the letters. What is drawn depends on the mention and the seed alone.
    pub fn shown(self, options: usize, mention: &str, seed: u64) -> Vec<usize> {
        let mut shown: Vec<usize> = (0..options).collect();
        match self {
            Order::BestFirst => {}
            Order::Shuffled => shown.shuffle(&mut generator(seed, Purpose::OptionOrder, xxh3_64(mention.as_bytes()))),
            Order::WorstFirst => shown.reverse(),
        }
        shown
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Order::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_shown_once_and_each_stands_anywhere_when_shuffled() {
        assert_eq!(Order::BestFirst.shown(3, "m", 0), [0, 1, 2]);
        assert_eq!(Order::WorstFirst.shown(3, "m", 0), [2, 1, 0]);
        let mut at = [[0; 3]; 3];
        for mention in 0..900 {
            let shown = Order::Shuffled.shown(3, &format!("m{mention}"), 0);
            assert_eq!(shown, Order::Shuffled.shown(3, &format!("m{mention}"), 0));
            shown.iter().enumerate().for_each(|(letter, &option)| at[letter][option] += 1);
        }
        // 300 each are expected, with a deviation of 14; the draws are the same each time.
        assert!(at.as_flattened().iter().all(|count| (250..=350).contains(count)), "{at:?}");
        let other = |seed| (0..20).map(|m| Order::Shuffled.shown(5, &format!("m{m}"), seed)).collect::<Vec<_>>();
        assert_ne!(other(0), other(1));
    }
}
