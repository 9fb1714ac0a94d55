//! Candidate lists: where the gold entity stands, and what is wrong.

use std::collections::HashSet;

use serde::Serialize;

use super::Loaded;
use crate::data::{MentionRecord, Split};

/// Lengths of lists at which recall is reported.
pub const RANKS: [usize; 3] = [1, 10, 100];

/// Where a split's gold entities stand most often.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GoldPosition {
    pub split: Split,
    /// Lists of at least two candidates that hold their gold entity.
    pub lists: usize,
    /// The most frequent position, from 1; counted from the end it may be the last of each list.
    pub position: usize,
    /// Share of the lists with the gold entity there.
    pub share: f64,
    /// Share of the lists whose last candidate is the gold entity.
    pub last: f64,
    /// Share of the lists whose first candidate is the gold entity.
    pub first: f64,
    /// The share that chance gives: the mean of 1 / length.
    pub chance: f64,
}

impl GoldPosition {
    /// Whether the gold entity comes first far more often than by chance: at least twice as often, and by more than four
    /// standard deviations. Whoever keeps the order is right that often.
    pub fn first_above_chance(&self) -> bool {
        let deviation = (self.chance * (1.0 - self.chance) / self.lists.max(1) as f64).sqrt();
        self.first >= 2.0 * self.chance && self.first > self.chance + 4.0 * deviation
    }

    /// Whether the position alone gives the answer away.
    pub fn fixed(&self) -> bool {
        self.lists > 1 && (self.share == 1.0 || self.last == 1.0)
    }
}

/// Where each split's gold entities stand.
pub fn gold_positions(loaded: &Loaded) -> Vec<GoldPosition> {
    let of = |(split, mentions): &(Split, Vec<MentionRecord>)| {
        let (mut counts, mut lists, mut last, mut chance) = (Vec::new(), 0, 0, 0.0);
        for mention in mentions.iter().filter(|m| m.listed().len() > 1) {
            if let Some(at) = rank(mention) {
                counts.resize(counts.len().max(at), 0);
                counts[at - 1] += 1;
                lists += 1;
                last += (at == mention.listed().len()) as usize;
                chance += 1.0 / mention.listed().len() as f64;
            }
        }
        let (place, most) = counts.iter().enumerate().rev().max_by_key(|&(_, n)| n)?;
        let share = |n: usize| n as f64 / lists as f64;
        Some(GoldPosition {
            split: *split,
            lists,
            position: place + 1,
            share: share(*most),
            last: share(last),
            first: share(counts[0]),
            chance: chance / lists as f64,
        })
    };
    loaded.splits.iter().filter_map(of).collect()
}

/// Position of the gold entity in its list, from 1.
fn rank(mention: &MentionRecord) -> Option<usize> {
    let gold = mention.gold.as_ref()?;
    mention.listed().iter().position(|candidate| candidate == gold).map(|at| at + 1)
}

/// Share of mentions whose gold entity is among the first of their list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recall {
    pub split: Split,
    /// Mentions with a gold entity and a list.
    pub mentions: usize,
    /// For each rank.
    pub at: Vec<Rank>,
}

/// Recall at one rank.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rank {
    pub rank: usize,
    pub recall: f64,
}

impl Recall {
    /// From the positions, from 1, of the gold entities of all mentions.
    pub fn of(split: Split, positions: &[Option<usize>]) -> Recall {
        let within = |rank: usize| positions.iter().flatten().filter(|&&at| at <= rank).count();
        let recall = |rank: usize| within(rank) as f64 / positions.len().max(1) as f64;
        let at = RANKS.iter().map(|&rank| Rank { rank, recall: recall(rank) }).collect();
        Recall { split, mentions: positions.len(), at }
    }
}

/// Recall of each split whose mentions have lists.
pub fn recall(loaded: &Loaded) -> Vec<Recall> {
    let of = |(split, mentions): &(Split, Vec<MentionRecord>)| {
        let listed = mentions.iter().filter(|m| m.gold.is_some() && m.candidates.is_some());
        Recall::of(*split, &listed.map(rank).collect::<Vec<_>>())
    };
    loaded.splits.iter().map(of).filter(|recall| recall.mentions > 0).collect()
}

/// What is wrong with lists, in mentions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ListFaults {
    /// With a candidate that is listed twice.
    pub repeated: usize,
    /// With a candidate that is no entity.
    pub unknown: usize,
    /// Whose gold is no entity.
    pub unknown_gold: usize,
}

impl ListFaults {
    /// Of all mentions.
    pub fn of(loaded: &Loaded) -> ListFaults {
        let unknown = |qid: &String| !loaded.index.contains_key(qid);
        let mut faults = ListFaults::default();
        for mention in loaded.mentions_of_all() {
            let distinct: HashSet<&String> = mention.listed().iter().collect();
            faults.repeated += (distinct.len() < mention.listed().len()) as usize;
            faults.unknown += mention.listed().iter().any(unknown) as usize;
            faults.unknown_gold += mention.gold.as_ref().is_some_and(unknown) as usize;
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_place_far_above_chance_is_told_from_one_near_it() {
        let position = |first: f64, chance: f64, lists: usize| {
            GoldPosition { split: Split::Test, lists, position: 1, share: first, last: 0.0, first, chance }
                .first_above_chance()
        };
        assert!(position(0.828, 0.01, 1000) && position(0.3, 0.1, 1000));
        // By chance, by chance in a small split, and where chance is half.
        assert!(!position(0.012, 0.01, 1000) && !position(0.25, 0.1, 10) && !position(0.6, 0.5, 1000));
    }
}
