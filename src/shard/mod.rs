//! Parts of a command's work, such as tasks of an array job do: which part it is, what it writes, and how parts are joined.
//!
//! A part is a folder `part-3-of-8` within the one that `--out` names: `part.json`, a [`Record`] of what it is a part of, and
//! what the command made of its share. Shares are ranges that lie one behind the other, so that joining is putting together.

mod environment;
mod part;
mod parts;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

pub use environment::from_environment;
pub use part::{Checksummed, Part, Record, Run, Share, checksum_of};
pub use parts::{Opened, Parts};

/// Most parts; more are no array that any scheduler runs.
const MOST: usize = 100_000;

/// One of so many parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    index: usize,
    count: usize,
}

impl Shard {
    /// Part `index`, from 1, of `count`; nothing if there is no such part.
    pub fn new(index: usize, count: usize) -> Option<Shard> {
        (1..=count).contains(&index).then_some(Shard { index, count }).filter(|_| count <= MOST)
    }

    /// All there is, as one part.
    pub const WHOLE: Shard = Shard { index: 1, count: 1 };

    /// Whether an item of this number is of it where items are dealt out one by one, as is fair where they differ in work.
    pub fn has(self, number: usize) -> bool {
        number % self.count == self.index - 1
    }

    /// Its number, from 1.
    pub fn index(self) -> usize {
        self.index
    }

    /// Number of all parts.
    pub fn count(self) -> usize {
        self.count
    }

    /// Its share of so many items, of as equal lengths as can be. Shares begin at multiples of `unit`: items that are computed
    /// together are of one part.
    pub fn range(self, items: usize, unit: usize) -> Range<usize> {
        let blocks = items.div_ceil(unit.max(1)) as u128;
        let end = |part: usize| ((blocks * part as u128 / self.count as u128) as usize * unit).min(items);
        end(self.index - 1)..end(self.index)
    }

    /// Name of its folder.
    pub fn folder(self) -> String {
        format!("part-{}-of-{}", self.index, self.count)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "part {} of {}", self.index, self.count)
    }
}

/// Which part a user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardChoice {
    /// This one.
    Given(Shard),
    /// The one that the environment of an array job names: see [`from_environment`].
    Auto,
}

impl FromStr for ShardChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<ShardChoice, String> {
        if text == "auto" {
            return Ok(ShardChoice::Auto);
        }
        let number = |text: &str| text.parse::<usize>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let (index, count) = text
            .split_once('/')
            .and_then(|(index, count)| Some((number(index)?, number(count)?)))
            .ok_or("must be i/n, such as 3/8, or auto, which asks the array job")?;
        if index == 0 {
            return Err(format!("parts are counted from 1, so the first of {count} is 1/{count}"));
        }
        let shard = Shard::new(index, count);
        let none = || format!("there is no part {index} of {count}: i is from 1 to n, and n at most {MOST}");
        shard.map(ShardChoice::Given).ok_or_else(none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_lie_one_behind_the_other_and_are_balanced() {
        for items in [0, 1, 7, 64, 65, 1000] {
            for count in [1, 2, 3, 8, 70] {
                for unit in [1, 4, 64] {
                    let shares: Vec<_> =
                        (1..=count).map(|i| Shard::new(i, count).unwrap().range(items, unit)).collect();
                    let mut next = 0;
                    for share in &shares {
                        assert_eq!(share.start, next);
                        assert!(share.start % unit == 0 || share.is_empty(), "{share:?} of {items}");
                        next = share.end;
                    }
                    assert_eq!(next, items);
                    let lengths = shares.iter().map(|share| share.len());
                    let (least, most) = (lengths.clone().min().unwrap(), lengths.max().unwrap());
                    assert!(most - least < 2 * unit, "{shares:?}");
                }
            }
        }
    }

    #[test]
    fn each_item_is_dealt_to_one_part() {
        let parts = [1, 2, 3].map(|i| Shard::new(i, 3).unwrap());
        for number in 0..7 {
            assert_eq!(parts.map(|part| part.has(number)).iter().filter(|has| **has).count(), 1, "{number}");
        }
        assert!(parts[0].has(0) && parts[2].has(5) && Shard::WHOLE.has(5));
    }

    #[test]
    fn parts_are_counted_from_1() {
        assert_eq!("3/8".parse(), Ok(ShardChoice::Given(Shard::new(3, 8).unwrap())));
        assert_eq!("auto".parse(), Ok(ShardChoice::Auto));
        for (text, says) in [
            ("0/8", "counted from 1, so the first of 8 is 1/8"),
            ("9/8", "no part 9 of 8"),
            ("1/0", "no part 1 of 0"),
            ("1/1000000", "at most 100000"),
            ("3", "must be i/n"),
            ("3/", "must be i/n"),
            ("+3/8", "must be i/n"),
            ("-1/8", "must be i/n"),
            ("1/99999999999999999999999", "must be i/n"),
            ("", "must be i/n"),
        ] {
            let error = text.parse::<ShardChoice>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
