//! Indexes and vector databases: filling and opening those that hold a model's vectors of a knowledge base.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "milvus")]
use super::milvus;
#[cfg(feature = "usearch")]
use super::usearch;
use super::{Candidates, Location, Seal, qdrant};
use crate::error::{Error, Result};

/// How a vector database is reached. Has no `Debug`: the key must not be printed.
#[derive(Clone)]
pub struct Access {
    /// Key or token that the server wants.
    pub key: Option<String>,
    /// Certificates of the authorities that servers are believed by, in place of Mozilla's.
    pub authorities: Option<PathBuf>,
    /// Longest time that a call may take.
    pub timeout: Duration,
    /// Vectors that a search looks at on its way, at least; more find more, and take longer.
    pub breadth: Option<usize>,
}

/// Searches of an index look at so many times the vectors that are asked for, unless told otherwise.
const BREADTH: usize = 4;

impl Access {
    /// Vectors that a search for `k` looks at.
    pub(super) fn breadth_of(&self, k: usize) -> usize {
        self.breadth.unwrap_or(BREADTH * k).max(k)
    }
}

/// An index on its way. Dropped before it is finished, it is taken back.
pub trait Filling {
    /// Adds vectors (n, width) behind those that are there.
    ///
    /// Fails if they are no whole rows or not finite, or if what takes them is down, slow or full.
    fn add(&mut self, vectors: &[f32]) -> Result<()>;

    /// Ends it: from here on it can be opened.
    ///
    /// Fails if vectors are missing, or as [`Filling::add`].
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Begins to fill an index with what this seal says. `None` if it is there and has the same seal. `replace` takes the place of one
/// of another model or knowledge base, which answers until then and is lost; what is no index of this program is never replaced, but for a collection without vectors.
pub fn fill(location: &Location, seal: &Seal, access: &Access, replace: bool) -> Result<Option<Box<dyn Filling>>> {
    match location {
        Location::Qdrant(collection) => qdrant::fill(collection, seal, access, replace),
        #[cfg(feature = "usearch")]
        Location::Usearch(path) => usearch::fill(path, seal, replace),
        #[cfg(feature = "milvus")]
        Location::Milvus(collection) => milvus::fill(collection, seal, access, replace),
        other => Err(holds_none(other)),
    }
}

/// Opens an index, which has to have this seal.
pub fn open(location: &Location, seal: &Seal, access: &Access) -> Result<Arc<dyn Candidates>> {
    match location {
        Location::Qdrant(collection) => qdrant::open(collection, seal, access),
        #[cfg(feature = "usearch")]
        Location::Usearch(path) => usearch::open(path, seal, access),
        #[cfg(feature = "milvus")]
        Location::Milvus(collection) => milvus::open(collection, seal, access),
        other => Err(holds_none(other)),
    }
}

/// Why nothing can be filled or opened there.
fn holds_none(location: &Location) -> Error {
    let feature = match location {
        Location::Scan | Location::ScanInt8 => {
            return Error::invalid(format!("{location} holds no index: it collects the vectors anew each time"));
        }
        Location::Usearch(_) => "usearch",
        Location::Qdrant(_) | Location::Milvus(_) => "milvus",
    };
    Error::invalid(format!(
        "{location}: this program was built without {feature}; build it with `cargo install --path . --features {feature}`"
    ))
}

/// Vectors that were added to what shall hold as many as its seal says.
pub(super) struct Progress {
    pub(super) seal: Seal,
    pub(super) added: usize,
}

impl Progress {
    /// Takes vectors (n, width); gives the number of the first of them.
    pub(super) fn add(&mut self, vectors: &[f32]) -> Result<usize> {
        let first = self.added;
        self.added += super::rows_of(vectors, self.seal.width)?;
        if self.added > self.seal.count {
            return Err(Error::shape("index", format!("{} vectors of {}", self.added, self.seal.count)));
        }
        if let Some(at) = vectors.chunks_exact(self.seal.width).position(|v| !v.iter().all(|x| x.is_finite())) {
            return Err(Error::overflow(format!("entity number {}: its vector is", first + at)));
        }
        Ok(first)
    }

    /// Fails if some are missing.
    pub(super) fn expect_all(&self) -> Result<()> {
        match self.added == self.seal.count {
            true => Ok(()),
            false => Err(Error::shape("index", format!("{} vectors of {}", self.added, self.seal.count))),
        }
    }
}
