//! What candidate lists mean.

use std::fmt;

use serde::Serialize;

/// What a candidate list means. Figures of the two are not to be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The gold entity stands in every list: where it was not retrieved, it takes the last place. This measures
    /// disambiguation; the paper's figures are of this kind.
    #[default]
    GoldInList,
    /// Lists as they were retrieved, with the gold entity or without.
    AsRetrieved,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Protocol::GoldInList => "the gold entity in every list",
            Protocol::AsRetrieved => "lists as retrieved",
        })
    }
}

impl Protocol {
    /// Of ranked lists, so many of which lack their gold entity.
    pub fn of(gold_missing: usize) -> Protocol {
        if gold_missing == 0 { Protocol::GoldInList } else { Protocol::AsRetrieved }
    }

    /// Applies the protocol to a list that is meant to hold `length` candidates.
    pub fn apply<T: PartialEq>(self, candidates: &mut Vec<T>, gold: T, length: usize) {
        if self == Protocol::GoldInList && !candidates.contains(&gold) {
            candidates.truncate(length.saturating_sub(1));
            candidates.push(gold);
        }
    }
}
