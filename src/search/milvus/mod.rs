//! A collection of a Milvus server, by its own protocol (gRPC).
//!
//! The row with `entity` i holds the vector of entity number i, in an HNSW index by inner products. The collection's property
//! `fissfuse` is a [`Mark`]: it is written when the collection is made, and once more when all rows are in it.

mod client;

use std::sync::Arc;

use milvus::v2::prelude::Ids;

use self::client::{Client, There};
use super::engine::{Filling, Progress};
use super::seal::{ABSENT, FOREIGN, Mark};
use super::{Access, Candidates, Collection, Found, Seal, rows_of};
use crate::error::Result;

/// Numbers that go into one request, at most: 4 MB, a sixteenth of what a server takes by default.
const NUMBERS: usize = 1_000_000;

/// Queries that go into one request, at most.
const TOGETHER: usize = 64;

/// As [`super::fill`].
pub fn fill(collection: &Collection, seal: &Seal, access: &Access, replace: bool) -> Result<Option<Box<dyn Filling>>> {
    let client = Client::new(collection, access)?;
    match client.look()? {
        There::Nothing => {}
        There::Foreign => return Err(client.error("filling it", FOREIGN)),
        There::Ours(mark) => {
            if mark.is_in_the_way(seal, replace).map_err(|reason| client.error("filling it", reason))? {
                client.delete()?;
            } else {
                client.load()?;
                if client.count()? == seal.count {
                    return Ok(None);
                }
                client.delete()?;
            }
        }
    }
    client.create(seal)?;
    let filling = MilvusFilling { client, progress: Progress { seal: seal.clone(), added: 0 }, done: false };
    filling.client.mark("marking it", &Mark::new(seal, false))?;
    Ok(Some(Box::new(filling)))
}

/// As [`super::open`].
pub fn open(collection: &Collection, seal: &Seal, access: &Access) -> Result<Arc<dyn Candidates>> {
    let client = Client::new(collection, access)?;
    let refuse = |reason: String| Err(client.error("opening it", reason));
    match client.look()? {
        There::Nothing => refuse(ABSENT.into()),
        There::Foreign => refuse(FOREIGN.into()),
        There::Ours(mark) => {
            mark.expect(seal).map_err(|reason| client.error("opening it", reason))?;
            client.load()?;
            match client.count()? {
                count if count == seal.count => Ok(Arc::new(Milvus { client, seal: seal.clone() })),
                count => refuse(seal.miscounted(count)),
            }
        }
    }
}

struct MilvusFilling {
    client: Client,
    progress: Progress,
    done: bool,
}

impl Filling for MilvusFilling {
    fn add(&mut self, vectors: &[f32]) -> Result<()> {
        let (first, width) = (self.progress.add(vectors)?, self.progress.seal.width);
        let rows = (NUMBERS / width).max(1);
        for (chunk, at) in vectors.chunks(rows * width).zip((first..).step_by(rows)) {
            self.client.insert(at, chunk, width)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.progress.expect_all()?;
        self.client.index()?;
        let (count, seal) = (self.client.count()?, &self.progress.seal);
        if count != seal.count {
            return Err(self.client.error("filling it", format!("the server counts {count} rows of {}", seal.count)));
        }
        self.client.mark("marking it as whole", &Mark::new(seal, true))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for MilvusFilling {
    fn drop(&mut self) {
        // Where the server is gone, the mark tells that it is half full.
        if !self.done
            && let Err(error) = self.client.delete()
        {
            tracing::warn!("{error}: it stays half full, and nothing reads it");
        }
    }
}

/// An opened collection.
struct Milvus {
    client: Client,
    seal: Seal,
}

impl std::fmt::Debug for Milvus {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str(&self.name())
    }
}

impl Candidates for Milvus {
    fn name(&self) -> String {
        self.client.shown()
    }

    fn width(&self) -> usize {
        self.seal.width
    }

    fn len(&self) -> usize {
        self.seal.count
    }

    fn top_k(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Found>>> {
        rows_of(queries, self.seal.width)?;
        let mut all = Vec::new();
        for queries in queries.chunks(TOGETHER * self.seal.width) {
            all.extend(self.ask(queries, k)?);
        }
        Ok(all)
    }
}

impl Milvus {
    fn ask(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Found>>> {
        let doing = "searching it";
        let vectors: Vec<Vec<f32>> = queries.chunks_exact(self.seal.width).map(<[f32]>::to_vec).collect();
        let asked = vectors.len();
        let breadth = self.client.access.breadth_of(k);
        let answer = self.client.search(doing, vectors, k, breadth)?;
        let results = answer.results().get_results();
        if results.len() != asked {
            return Err(self.client.error(doing, format!("{} answers to {asked} queries", results.len())));
        }
        let found = results.iter().map(|result| {
            let Ids::Int64(ids) = result.get_ids() else {
                return Err("it answers with names instead of numbers".into());
            };
            let found = ids.iter().zip(result.get_scores());
            // What is no number of an entity is refused below.
            let found = found.map(|(&id, &product)| Found { number: u32::try_from(id).unwrap_or(u32::MAX), product });
            Found::checked(found.collect(), self.seal.count)
        });
        found.map(|found| found.map_err(|reason: String| self.client.error(doing, reason))).collect()
    }
}
