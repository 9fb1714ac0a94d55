//! A collection of a Qdrant server, by its REST interface.
//!
//! Point number i is entity number i. The first point's payload holds the [`Seal`] and whether all points are there: it is written
//! with the first points and once more after the last.

mod client;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::client::{Client, Method};
use super::database::{self, Server, There};
use super::engine::Filling;
use super::seal::{FOREIGN, Mark};
use super::{Access, Candidates, Collection, Found, Seal};
use crate::error::Result;

/// Numbers that go into one request, at most: with ten or so digits each, a tenth of the 32 MB that a server takes by default.
const NUMBERS: usize = 300_000;

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

/// The names that a server's collections have besides their own.
#[derive(Deserialize)]
struct Aliases {
    aliases: Vec<Alias>,
}

#[derive(Deserialize)]
struct Alias {
    alias_name: String,
    collection_name: String,
}

#[derive(Deserialize)]
struct Count {
    count: usize,
}

/// What is said of a collection that this program cannot have made.
fn foreign(why: &str) -> String {
    format!("is none that FissFuse made: {why}; name another collection, or delete this one yourself")
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

/// A collection, and the first vector that was put into it: its payload is the mark.
struct Qdrant {
    client: Client,
    first: Vec<f32>,
}

/// As [`super::fill`].
pub fn fill(collection: &Collection, seal: &Seal, access: &Access, replace: bool) -> Result<Option<Box<dyn Filling>>> {
    database::fill(Qdrant { client: Client::new(collection, access)?, first: Vec::new() }, seal, replace)
}

/// As [`super::open`].
pub fn open(collection: &Collection, seal: &Seal, access: &Access) -> Result<Arc<dyn Candidates>> {
    database::open(Qdrant { client: Client::new(collection, access)?, first: Vec::new() }, seal)
}

impl Qdrant {
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
        let done: Option<Value> = self.client.call(doing, (Method::Put, "/points?wait=true"), Some(&points))?;
        done.map(drop).ok_or_else(|| self.error(doing, "the collection is gone: somebody deleted it meanwhile"))
    }
}

impl Server for Qdrant {
    fn shown(&self) -> String {
        self.client.shown()
    }

    fn name(&self) -> &str {
        &self.client.collection.name
    }

    fn named(&self, name: &str) -> Qdrant {
        let mut client = self.client.clone();
        client.collection.name = name.to_string();
        Qdrant { client, first: Vec::new() }
    }

    fn target(&self) -> Result<Option<String>> {
        let all: Option<Aliases> = self.client.call_server("looking at it", (Method::Get, "/aliases"), None::<&()>)?;
        let mut all = all.map_or(Vec::new(), |all| all.aliases).into_iter();
        Ok(all.find(|alias| alias.alias_name == self.name()).map(|alias| alias.collection_name))
    }

    /// By actions that the server does all at once, or none of them.
    fn lead_to(&self, collection: &str, is_alias: bool) -> Result<()> {
        let (doing, name) = ("making it an alias of the new index", self.name());
        let mut actions = Vec::new();
        if is_alias {
            actions.push(json!({"delete_alias": {"alias_name": name}}));
        }
        actions.push(json!({"create_alias": {"alias_name": name, "collection_name": collection}}));
        let actions = json!({"actions": actions});
        match self.client.call_server(doing, (Method::Post, "/collections/aliases?timeout=60"), Some(&actions))? {
            Some(true) => Ok(()),
            _ => Err(self.error(doing, "the server does not say that it is one")),
        }
    }

    fn look(&self) -> Result<There> {
        let doing = "looking at it";
        let described: Option<Described> = self.client.call(doing, (Method::Get, ""), None::<&()>)?;
        let Some(described) = described else { return Ok(There::Nothing) };
        let vectors = described.config.params.vectors;
        let (size, distance) = (vectors["size"].as_u64(), vectors["distance"].as_str());
        let (Some(size), Some("Dot")) = (size, distance) else {
            return Ok(There::Foreign(foreign("its vectors are not compared by their dot product")));
        };
        let point: Option<Point> = self.client.call(doing, (Method::Get, "/points/0"), None::<&()>)?;
        if point.is_none() && self.count()? == 0 {
            return Ok(There::Empty);
        }
        let payload = point.and_then(|point| point.payload).unwrap_or_default();
        Ok(match serde_json::from_value(payload) {
            Ok(Marked { fissfuse: mark }) if mark.seal.width as u64 == size => There::Ours(mark),
            Ok(_) => There::Foreign(foreign(&format!("its vectors have {size} numbers, and its mark says otherwise"))),
            Err(_) => There::Foreign(FOREIGN.into()),
        })
    }

    /// It always is.
    fn load(&self) -> Result<()> {
        Ok(())
    }

    fn count(&self) -> Result<usize> {
        let doing = "counting its points";
        let exact = json!({"exact": true});
        let count: Option<Count> = self.client.call(doing, (Method::Post, "/points/count"), Some(&exact))?;
        count.map(|count| count.count).ok_or_else(|| self.error(doing, "the collection is gone"))
    }

    fn delete(&self) -> Result<()> {
        let _: Option<bool> = self.client.call("deleting it", (Method::Delete, "?timeout=60"), None::<&()>)?;
        Ok(())
    }

    fn create(&self, mark: &Mark) -> Result<()> {
        let (doing, vectors) = ("creating it", json!({"vectors": {"size": mark.seal.width, "distance": "Dot"}}));
        match self.client.call(doing, (Method::Put, "?timeout=60"), Some(&vectors))? {
            Some(true) => Ok(()),
            _ => Err(self.error(doing, "the server does not say that it is there")),
        }
    }

    fn mark(&self, mark: &Mark) -> Result<()> {
        let doing = if mark.whole { "marking it as whole" } else { "marking it" };
        self.upsert(doing, 0, &self.first, mark)
    }

    fn add(&mut self, first: usize, vectors: &[f32], mark: &Mark) -> Result<()> {
        if first == 0 {
            self.first = vectors.iter().take(mark.seal.width).copied().collect();
        }
        let (width, rows) = (mark.seal.width, (NUMBERS / mark.seal.width).max(1));
        let mut chunks = vectors.chunks(rows * width).zip((first..).step_by(rows));
        chunks.try_for_each(|(chunk, at)| self.upsert(&format!("adding points from number {at} on"), at, chunk, mark))
    }

    /// The server does so by itself.
    fn index(&self) -> Result<()> {
        Ok(())
    }

    fn ask(&self, doing: &str, queries: &[f32], k: usize, seal: &Seal) -> Result<Vec<Vec<Found>>> {
        let params = || SearchParams { hnsw_ef: self.client.access().breadth_of(k) };
        let search = |query| Search { query, limit: k, with_payload: false, params: params() };
        let searches = Searches { searches: queries.chunks_exact(seal.width).map(search).collect() };
        let answers: Option<Vec<Answer>> =
            self.client.call(doing, (Method::Post, "/points/query/batch"), Some(&searches))?;
        let answers = answers.ok_or_else(|| self.error(doing, "the collection is gone"))?;
        let found = |answer: Answer| answer.points.into_iter().map(|p| Found { number: p.id, product: p.score });
        Ok(answers.into_iter().map(|answer| found(answer).collect()).collect())
    }
}
