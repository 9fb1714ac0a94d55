//! What all vector databases have in common: a collection is filled, marked, opened and asked in the same way, whatever the
//! protocol.

use std::fmt;
use std::sync::Arc;

use super::engine::{Filling, Progress};
use super::seal::{ABSENT, EMPTY, Mark};
use super::{Candidates, Found, Seal, rows_of};
use crate::error::{Error, Result};

/// Queries that go into one request, at most.
const TOGETHER: usize = 64;

/// What is in the place of a collection.
pub(super) enum There {
    Nothing,
    /// An index of this program.
    Ours(Mark),
    /// One without a vector and without a mark, as one may be that was made just now.
    Empty,
    /// What this program has not made, in words.
    Foreign(String),
}

/// One collection of a server, by its protocol.
pub(super) trait Server: Send + Sync {
    /// The collection and its server, for messages.
    fn shown(&self) -> String;

    /// What is there.
    fn look(&self) -> Result<There>;

    /// Gets it ready to be counted and searched.
    fn load(&self) -> Result<()>;

    /// Number of vectors, by the server.
    fn count(&self) -> Result<usize>;

    /// Deletes it, whatever is in it.
    fn delete(&self) -> Result<()>;

    /// Makes it, empty, and says in it what it is; where an empty one can say nothing, with the first vectors.
    fn create(&self, mark: &Mark) -> Result<()>;

    /// Says in it what it is, and whether all is there.
    fn mark(&self, mark: &Mark) -> Result<()>;

    /// Adds vectors, the first of which has this number, to a collection of this mark.
    fn add(&mut self, first: usize, vectors: &[f32], mark: &Mark) -> Result<()>;

    /// After the last vector.
    fn index(&self) -> Result<()>;

    /// The nearest vectors to each of a few queries, as the server says them.
    fn ask(&self, doing: &str, queries: &[f32], k: usize, seal: &Seal) -> Result<Vec<Vec<Found>>>;

    /// An error about this collection.
    fn error(&self, doing: &str, reason: impl Into<String>) -> Error
    where
        Self: Sized,
    {
        Error::device(self.shown(), doing, reason)
    }
}

/// As [`super::fill`].
pub(super) fn fill<S: Server + 'static>(server: S, seal: &Seal, replace: bool) -> Result<Option<Box<dyn Filling>>> {
    let (doing, mut replaced) = ("filling it", false);
    match server.look()? {
        There::Nothing => {}
        There::Empty if replace => server.delete()?,
        There::Empty => return Err(server.error(doing, format!("{EMPTY}; --replace fills it"))),
        There::Foreign(why) => return Err(server.error(doing, why)),
        There::Ours(mark) => {
            if !mark.is_in_the_way(seal, replace).map_err(|reason| server.error(doing, reason))? {
                server.load()?;
                if server.count()? == seal.count {
                    return Ok(None);
                }
            }
            server.delete()?;
            replaced = mark.whole;
        }
    }
    let mark = Mark::begun(seal);
    let created = server.create(&mark);
    let progress = Progress { seal: seal.clone(), added: 0 };
    // Where nothing was created, there is nothing to take back.
    let filling = CollectionFilling { server, progress, mark, replaced, done: created.is_err() };
    filling.told(created)?;
    Ok(Some(Box::new(filling)))
}

/// As [`super::open`].
pub(super) fn open<S: Server + 'static>(server: S, seal: &Seal) -> Result<Arc<dyn Candidates>> {
    let refuse = |reason: String| server.error("opening it", reason);
    match server.look()? {
        There::Nothing => return Err(refuse(ABSENT.into())),
        There::Empty => return Err(refuse(format!("{EMPTY}; `fissfuse index push --replace` fills it"))),
        There::Foreign(why) => return Err(refuse(why)),
        There::Ours(mark) => mark.expect(seal).map_err(refuse)?,
    }
    server.load()?;
    match server.count()? {
        count if count == seal.count => Ok(Arc::new(Opened { server, seal: seal.clone() })),
        count => Err(refuse(seal.miscounted(count))),
    }
}

/// A collection on its way.
struct CollectionFilling<S: Server> {
    server: S,
    progress: Progress,
    mark: Mark,
    /// Whether a whole index was deleted for it.
    replaced: bool,
    done: bool,
}

impl<S: Server> CollectionFilling<S> {
    /// Says in an error what became of the index that was there.
    fn told<T>(&self, result: Result<T>) -> Result<T> {
        let gone = "the index that was there is deleted already, and nothing can be asked until this command ends well";
        result.map_err(|error| if self.replaced { error.advising(gone) } else { error })
    }

    /// Has the server finish what is added, and marks it as whole.
    fn complete(&self) -> Result<()> {
        self.progress.expect_all()?;
        self.server.index()?;
        let (count, seal) = (self.server.count()?, &self.progress.seal);
        if count != seal.count {
            let reason = format!("the server counts {count} vectors of {}", seal.count);
            return Err(self.server.error("filling it", reason));
        }
        self.expect_own()?;
        self.server.mark(&Mark { whole: true, ..self.mark.clone() })
    }

    /// Fails if another run has taken the collection's place since this one began.
    fn expect_own(&self) -> Result<()> {
        match self.server.look()? {
            There::Ours(mark) if mark.run == self.mark.run => Ok(()),
            There::Empty if self.progress.added == 0 => Ok(()),
            _ => {
                let reason = "another `fissfuse index push` has taken its place: run one at a time";
                Err(self.server.error("filling it", reason))
            }
        }
    }
}

impl<S: Server> Filling for CollectionFilling<S> {
    fn add(&mut self, vectors: &[f32]) -> Result<()> {
        let first = self.progress.add(vectors)?;
        let added = self.server.add(first, vectors, &self.mark);
        self.told(added)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let completed = self.complete();
        self.told(completed)?;
        self.done = true;
        Ok(())
    }
}

impl<S: Server> Drop for CollectionFilling<S> {
    fn drop(&mut self) {
        // Where the server is gone, the mark tells that it is half full.
        if !self.done
            && let Err(error) = self.expect_own().and_then(|()| self.server.delete())
        {
            tracing::warn!("{error}: it stays as it is, and nothing reads what is half full");
        }
    }
}

/// An opened collection.
struct Opened<S> {
    server: S,
    seal: Seal,
}

impl<S: Server> fmt::Debug for Opened<S> {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(&self.server.shown())
    }
}

impl<S: Server> Candidates for Opened<S> {
    fn name(&self) -> String {
        self.server.shown()
    }

    fn width(&self) -> usize {
        self.seal.width
    }

    fn len(&self) -> usize {
        self.seal.count
    }

    fn top_k(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Found>>> {
        let (asked, doing, width) = (rows_of(queries, self.seal.width)?, "searching it", self.seal.width);
        let mut all = Vec::with_capacity(asked);
        for queries in queries.chunks(TOGETHER * width) {
            let (answers, asked) = (self.server.ask(doing, queries, k, &self.seal)?, queries.len() / width);
            if answers.len() != asked {
                let reason = format!("{} answers to {asked} queries", answers.len());
                return Err(self.server.error(doing, reason));
            }
            for found in answers {
                all.push(Found::checked(found, self.seal.count).map_err(|reason| self.server.error(doing, reason))?);
            }
        }
        Ok(all)
    }
}
