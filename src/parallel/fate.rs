//! What became of a group: nothing, or the first thing that ended it.

use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// The first reason why a group cannot go on, if there is one.
#[derive(Debug, Default)]
pub struct Fate(Mutex<Option<String>>);

impl Fate {
    /// The group cannot go on; only the first reason counts.
    pub fn end(&self, why: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    /// Why it cannot go on.
    pub fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fails if it cannot go on.
    pub fn check(&self) -> Result<()> {
        self.reason().map_or(Ok(()), |why| Err(Error::Rank(why)))
    }
}
