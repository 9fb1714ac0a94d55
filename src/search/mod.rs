//! What finds the vectors of a knowledge base whose inner product with a query's is largest: scans of all of them, indexes, and
//! vector databases.

mod database;
mod engine;
mod flat;
mod int8;
mod location;
#[cfg(feature = "milvus")]
mod milvus;
mod on_device;
mod qdrant;
mod seal;
mod source;
#[cfg(feature = "usearch")]
mod usearch;

pub use engine::{Access, Filling, fill, open};
pub use flat::Flat;
pub use int8::{Int8, Int8Builder};
pub use location::{Collection, Location};
pub use on_device::{OnDevice, Scan};
pub use seal::Seal;
pub use source::{Collector, Source};

use crate::error::{Error, Result};
pub use crate::ops::top_k::{Found, Top};

/// A set of vectors, numbered from 0, that can be searched.
pub trait Candidates: std::fmt::Debug + Send + Sync {
    /// What it is and where, in words.
    fn name(&self) -> String;

    /// Numbers of a vector.
    fn width(&self) -> usize;

    /// Number of vectors.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The vectors whose inner product with a query is largest, at most `k` for each of the queries (n, width): the best first,
    /// of equal ones that with the lower number. An index or a database may miss some of them; a scan does not.
    ///
    /// Fails if the queries are no rows of this width, or if what holds the vectors does not answer.
    fn top_k(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Found>>>;
}

/// Number of queries of this width; an error if they are no whole rows.
fn rows_of(queries: &[f32], width: usize) -> Result<usize> {
    match queries.len().checked_rem(width) {
        Some(0) => Ok(queries.len() / width),
        _ => Err(Error::shape("search", format!("{} numbers are no vectors of {width}", queries.len()))),
    }
}
