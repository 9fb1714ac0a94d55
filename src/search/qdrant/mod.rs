//! A collection of a Qdrant server, by its REST interface.
//!
//! Point number i is entity number i. The first point's payload holds the [`Seal`] and whether all points are there: it is written
//! with the first points and once more after the last.

mod client;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::client::{Client, Method};
use super::engine::{Filling, Progress};
use super::seal::{ABSENT, FOREIGN, Mark};
use super::{Access, Candidates, Collection, Found, Seal, rows_of};
use crate::error::Result;

/// Numbers that go into one request, at most: with ten or so digits each, a tenth of the 32 MB that a server takes by default.
const NUMBERS: usize = 300_000;

/// Queries that go into one request, at most.
const TOGETHER: usize = 64;

/// The first point's payload.
#[derive(Serialize, Deserialize)]
struct Marked {
    fissfuse: Mark,
}

/// What a server says of a collection.
#[derive(Deserialize)]
struct Described {
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    params: Params,
}

#[derive(Deserialize)]
struct Params {
    vectors: Value,
}

#[derive(Deserialize)]
struct Point {
    payload: Option<Value>,
}

#[derive(Deserialize)]
struct Count {
    count: usize,
}

/// What is in the place of a collection.
enum There {
    Nothing,
    /// An index of this program.
    Ours(Mark),
    /// What this program has not made, in words.
    Foreign(String),
}

/// What is said of a collection that this program cannot have made.
fn foreign(why: &str) -> String {
    format!("is none that FissFuse made: {why}; name another collection, or delete this one yourself")
}

impl Client {
    /// What is there.
    fn look(&self) -> Result<There> {
        let doing = "looking at it";
        let described: Option<Described> = self.call(doing, (Method::Get, ""), None::<&()>)?;
        let Some(described) = described else { return Ok(There::Nothing) };
        let vectors = described.config.params.vectors;
        let (size, distance) = (vectors["size"].as_u64(), vectors["distance"].as_str());
        let (Some(size), Some("Dot")) = (size, distance) else {
            return Ok(There::Foreign(foreign("its vectors are not compared by their dot product")));
        };
        let point: Option<Point> = self.call(doing, (Method::Get, "/points/0"), None::<&()>)?;
        let payload = point.and_then(|point| point.payload).unwrap_or_default();
        Ok(match serde_json::from_value(payload) {
            Ok(Marked { fissfuse: mark }) if mark.seal.width as u64 == size => There::Ours(mark),
            Ok(_) => There::Foreign(foreign(&format!("its vectors have {size} numbers, and its mark says otherwise"))),
            Err(_) => There::Foreign(FOREIGN.into()),
        })
    }

    fn count(&self) -> Result<usize> {
        let doing = "counting its points";
        let exact = json!({"exact": true});
        let count: Option<Count> = self.call(doing, (Method::Post, "/points/count"), Some(&exact))?;
        count.map(|count| count.count).ok_or_else(|| self.error(doing, "the collection is gone"))
    }

    fn delete(&self) -> Result<()> {
        let _: Option<bool> = self.call("deleting it", (Method::Delete, "?timeout=60"), None::<&()>)?;
        Ok(())
    }

    /// Points from number `first` on; the mark is the first one's payload.
    fn upsert(&self, doing: &str, first: usize, vectors: &[f32], mark: &Mark) -> Result<()> {
        #[derive(Serialize)]
        struct Points<'a> {
            points: Vec<Entry<'a>>,
        }
        #[derive(Serialize)]
        struct Entry<'a> {
            id: usize,
            vector: &'a [f32],
            #[serde(skip_serializing_if = "Option::is_none")]
            payload: Option<Marked>,
        }
        let payload = |id: usize| (id == 0).then(|| Marked { fissfuse: mark.clone() });
        let rows = vectors.chunks_exact(mark.seal.width).zip(first..);
        let points = Points { points: rows.map(|(vector, id)| Entry { id, vector, payload: payload(id) }).collect() };
        let done: Option<Value> = self.call(doing, (Method::Put, "/points?wait=true"), Some(&points))?;
        done.map(drop).ok_or_else(|| self.error(doing, "the collection is gone: somebody deleted it meanwhile"))
    }
}

/// As [`super::fill`].
pub fn fill(collection: &Collection, seal: &Seal, access: &Access, replace: bool) -> Result<Option<Box<dyn Filling>>> {
    let client = Client::new(collection, access)?;
    let doing = "filling it";
    match client.look()? {
        There::Nothing => {}
        There::Foreign(why) => return Err(client.error(doing, why)),
        There::Ours(mark) => {
            let in_the_way = mark.is_in_the_way(seal, replace).map_err(|reason| client.error(doing, reason))?;
            if !in_the_way && client.count()? == seal.count {
                return Ok(None);
            }
            client.delete()?;
        }
    }
    let vectors = json!({"vectors": {"size": seal.width, "distance": "Dot"}});
    let created: Option<bool> = client.call("creating it", (Method::Put, "?timeout=60"), Some(&vectors))?;
    if created != Some(true) {
        return Err(client.error("creating it", "the server does not say that it is there"));
    }
    let progress = Progress { seal: seal.clone(), added: 0 };
    Ok(Some(Box::new(QdrantFilling { client, progress, first: Vec::new(), done: false })))
}

/// As [`super::open`].
pub fn open(collection: &Collection, seal: &Seal, access: &Access) -> Result<Arc<dyn Candidates>> {
    let client = Client::new(collection, access)?;
    let refuse = |reason: String| Err(client.error("opening it", reason));
    match client.look()? {
        There::Nothing => refuse(ABSENT.into()),
        There::Foreign(why) => refuse(why),
        There::Ours(mark) => {
            mark.expect(seal).map_err(|reason| client.error("opening it", reason))?;
            match client.count()? {
                count if count == seal.count => Ok(Arc::new(Qdrant { client, seal: seal.clone() })),
                count => refuse(seal.miscounted(count)),
            }
        }
    }
}

struct QdrantFilling {
    client: Client,
    progress: Progress,
    /// The first vector, which is written once more with the whole mark.
    first: Vec<f32>,
    done: bool,
}

impl Filling for QdrantFilling {
    fn add(&mut self, vectors: &[f32]) -> Result<()> {
        let first = self.progress.add(vectors)?;
        let width = self.progress.seal.width;
        if first == 0 {
            self.first = vectors.iter().take(width).copied().collect();
        }
        let mark = Mark::new(&self.progress.seal, false);
        let rows = (NUMBERS / width).max(1);
        for (chunk, at) in vectors.chunks(rows * width).zip((first..).step_by(rows)) {
            let doing = format!("adding points from number {at} on");
            self.client.upsert(&doing, at, chunk, &mark)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.progress.expect_all()?;
        let count = self.client.count()?;
        if count != self.progress.seal.count {
            let reason = format!("the server counts {count} points of {}", self.progress.seal.count);
            return Err(self.client.error("filling it", reason));
        }
        let mark = Mark::new(&self.progress.seal, true);
        self.client.upsert("marking it as whole", 0, &self.first, &mark)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for QdrantFilling {
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
struct Qdrant {
    client: Client,
    seal: Seal,
}

impl std::fmt::Debug for Qdrant {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        out.write_str(&self.name())
    }
}

impl Candidates for Qdrant {
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

#[derive(Serialize)]
struct Searches<'a> {
    searches: Vec<Search<'a>>,
}

#[derive(Serialize)]
struct Search<'a> {
    query: &'a [f32],
    limit: usize,
    with_payload: bool,
    params: SearchParams,
}

#[derive(Serialize)]
struct SearchParams {
    hnsw_ef: usize,
}

#[derive(Deserialize)]
struct Answer {
    points: Vec<Scored>,
}

#[derive(Deserialize)]
struct Scored {
    id: u32,
    score: f32,
}

impl Qdrant {
    fn ask(&self, queries: &[f32], k: usize) -> Result<Vec<Vec<Found>>> {
        let doing = "searching it";
        let params = || SearchParams { hnsw_ef: self.client.access().breadth_of(k) };
        let search = |query| Search { query, limit: k, with_payload: false, params: params() };
        let searches = Searches { searches: queries.chunks_exact(self.seal.width).map(search).collect() };
        let answers: Option<Vec<Answer>> =
            self.client.call(doing, (Method::Post, "/points/query/batch"), Some(&searches))?;
        let answers = answers.ok_or_else(|| self.client.error(doing, "the collection is gone"))?;
        if answers.len() != searches.searches.len() {
            let reason = format!("{} answers to {} queries", answers.len(), searches.searches.len());
            return Err(self.client.error(doing, reason));
        }
        let found =
            |answer: Answer| answer.points.into_iter().map(|p| Found { number: p.id, product: p.score }).collect();
        let answers = answers.into_iter().map(|answer| Found::checked(found(answer), self.seal.count));
        answers.map(|found| found.map_err(|reason| self.client.error(doing, reason))).collect()
    }
}
