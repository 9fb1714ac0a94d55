//! Candidate generation: which entities of a knowledge base may a mention refer to?
//!
//! Names are matched exactly and fuzzily, descriptions by BM25 of the mention with its sentence; both retrieve, and every
//! entity that either retrieved is scored by both.

mod generator;
mod inverted;
mod lists;
mod names;
mod words;

pub use generator::{Generator, Scratch};
pub use lists::{ListReport, ListSettings, Made, make_lists, replace_splits, write_lists};
