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
pub(super) trait Server: Send + Sync + Sized {
    /// The collection and its server, for messages.
    fn shown(&self) -> String;

    /// The collection's name.
    fn name(&self) -> &str;

    /// The same server's collection of another name.
    fn named(&self, name: &str) -> Self;

    /// The collection that this name is an alias of, if it is one.
    fn target(&self) -> Result<Option<String>>;

    /// Makes this name, which is none of a collection, an alias of one: in one step where it is one already.
    fn lead_to(&self, collection: &str, is_alias: bool) -> Result<()>;

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
    fn error(&self, doing: &str, reason: impl Into<String>) -> Error {
        Error::device(self.shown(), doing, reason)
    }
}

/// As [`super::fill`]: a collection of another name is filled, of which the place's name becomes an alias once it is whole. Until
/// then, what the name leads to stays as it is.
pub(super) fn fill<S: Server + 'static>(place: S, seal: &Seal, replace: bool) -> Result<Option<Box<dyn Filling>>> {
    let (doing, before) = (FILLING, Before::of(&place)?);
    let held = before.collection(&place);
    match held.as_ref().map_or(Ok(There::Nothing), Server::look)? {
        There::Nothing => {}
        There::Empty if replace => {}
        There::Empty => return Err(place.error(doing, format!("{EMPTY}; --replace fills it"))),
        There::Foreign(why) => return Err(place.error(doing, why)),
        There::Ours(mark) => {
            let in_the_way = mark.is_in_the_way(seal, replace).map_err(|reason| place.error(doing, reason))?;
            if !in_the_way && held.map_or(Ok(false), |held| holds_all(&held, seal))? {
                return Ok(None);
            }
        }
    }
    let server = place.named(&before.free(place.name()));
    match server.look()? {
        There::Nothing => {}
        There::Foreign(why) => return Err(server.error(doing, why)),
        // Of a run that was stopped before the last step.
        There::Ours(mark) if mark.expect(seal).is_ok() && holds_all(&server, seal)? => {
            before.give_way(&place, &server)?;
            return Ok(None);
        }
        There::Ours(_) | There::Empty => server.delete()?,
    }
    let mark = Mark::begun(seal);
    let created = server.create(&mark);
    let progress = Progress { seal: seal.clone(), added: 0 };
    // Where nothing was created, there is nothing to take back.
    let filling = CollectionFilling { place, before, server, progress, mark, done: created.is_err() };
    created?;
    Ok(Some(Box::new(filling)))
}

/// Whether a collection whose mark says that it is whole has as many vectors as it is to have.
fn holds_all<S: Server>(server: &S, seal: &Seal) -> Result<bool> {
    server.load()?;
    Ok(server.count()? == seal.count)
}

const FILLING: &str = "filling it";

/// What is said where two runs fill one place.
const TAKEN: &str = "another `fissfuse index push` has taken its place: run one at a time";

/// What the name of a place led to when a run began.
#[derive(PartialEq)]
enum Before {
    Nothing,
    /// An alias of this collection.
    Alias(String),
    /// A collection that has the name itself, as older versions made them, and the run that filled it; none of an empty one.
    Collection(Option<String>),
}

impl Before {
    fn of<S: Server>(place: &S) -> Result<Before> {
        if let Some(collection) = place.target()? {
            return Ok(Before::Alias(collection));
        }
        Ok(match place.look()? {
            There::Nothing => Before::Nothing,
            There::Ours(mark) => Before::Collection(Some(mark.run)),
            There::Empty => Before::Collection(None),
            // Whatever has come there since the run began: nobody else's vectors are deleted.
            There::Foreign(why) => return Err(place.error(FILLING, why)),
        })
    }

    /// The collection that it leads to.
    fn collection<S: Server>(&self, place: &S) -> Option<S> {
        match self {
            Before::Nothing => None,
            Before::Alias(collection) => Some(place.named(collection)),
            Before::Collection(_) => Some(place.named(place.name())),
        }
    }

    /// The name of the two of a place's collections that it does not lead to.
    fn free(&self, place: &str) -> String {
        let [one, other] = slots(place);
        if *self == Before::Alias(one.clone()) { other } else { one }
    }

    /// Lets the place's name lead to a collection that is whole, and deletes what it led to.
    fn give_way<S: Server>(&self, place: &S, whole: &S) -> Result<()> {
        let waits = format!("the new index waits, whole, in `{}`: the same command puts it in its place", whole.name());
        if Before::of(place)? != *self {
            return Err(place.error(FILLING, TAKEN));
        }
        if let Before::Collection(_) = self {
            // No server lets an alias take a collection's name: for this once, there is a moment with neither.
            place.delete().map_err(|error| error.advising(&waits))?;
        }
        let is_alias = matches!(self, Before::Alias(_));
        place.lead_to(whole.name(), is_alias).map_err(|error| error.advising(&waits))?;
        let Before::Alias(old) = self else { return Ok(()) };
        let old = place.named(old);
        if !slots(place.name()).iter().any(|slot| slot == old.name()) {
            tracing::warn!(
                "{} is no alias of `{}` any more, which somebody else named so: it stays",
                place.shown(),
                old.name()
            );
        } else if let Err(error) = old.delete() {
            tracing::warn!("{error}: the new index is in its place, and the old one stays until the next push");
        }
        Ok(())
    }
}

/// The collections that a place's name is an alias of, in turn.
fn slots(place: &str) -> [String; 2] {
    [1, 2].map(|number| format!("{place}_fissfuse_{number}"))
}

/// As [`super::open`].
///
/// What a name leads to now is what is asked from then on; answers of another run's index that has taken its place are refused.
pub(super) fn open<S: Server + 'static>(place: S, seal: &Seal) -> Result<Arc<dyn Candidates>> {
    let server = match place.target()? {
        Some(collection) => place.named(&collection),
        None => place,
    };
    let refuse = |reason: String| server.error("opening it", reason);
    let run = match server.look()? {
        There::Nothing => return Err(refuse(ABSENT.into())),
        There::Empty => return Err(refuse(format!("{EMPTY}; `fissfuse index push --replace` fills it"))),
        There::Foreign(why) => return Err(refuse(why)),
        There::Ours(mark) => {
            mark.expect(seal).map_err(refuse)?;
            mark.run
        }
    };
    server.load()?;
    match server.count()? {
        count if count == seal.count => Ok(Arc::new(Opened { server, seal: seal.clone(), run })),
        count => Err(refuse(seal.miscounted(count))),
    }
}

/// A collection on its way.
struct CollectionFilling<S: Server> {
    /// What its name is to lead to it.
    place: S,
    before: Before,
    server: S,
    progress: Progress,
    mark: Mark,
    done: bool,
}

impl<S: Server> CollectionFilling<S> {
    /// Has the server finish what is added, and marks it as whole.
    fn complete(&self) -> Result<()> {
        self.progress.expect_all()?;
        self.server.index()?;
        let (count, seal) = (self.server.count()?, &self.progress.seal);
        if count != seal.count {
            let reason = format!("the server counts {count} vectors of {}", seal.count);
            return Err(self.server.error(FILLING, reason));
        }
        self.expect_own()?;
        self.server.mark(&Mark { whole: true, ..self.mark.clone() })
    }

    /// Fails if another run has taken the collection's place since this one began.
    fn expect_own(&self) -> Result<()> {
        match self.server.look()? {
            There::Ours(mark) if mark.run == self.mark.run => Ok(()),
            There::Empty if self.progress.added == 0 => Ok(()),
            _ => Err(self.server.error(FILLING, TAKEN)),
        }
    }
}

impl<S: Server> Filling for CollectionFilling<S> {
    fn add(&mut self, vectors: &[f32]) -> Result<()> {
        let first = self.progress.add(vectors)?;
        self.server.add(first, vectors, &self.mark)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.complete()?;
        // What is whole stays, whatever comes of the last step.
        self.done = true;
        self.before.give_way(&self.place, &self.server)
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
    /// The run that filled it.
    run: String,
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
        // A run's collection is deleted before another takes its name: as long as it is there, the answers were its own.
        match self.server.look()? {
            There::Ours(mark) if mark.run == self.run => Ok(all),
            _ => Err(self.server.error(doing, "another index has taken its place since it was opened; start again")),
        }
    }
}
