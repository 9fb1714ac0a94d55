//! A fake Qdrant: what is asked of it is kept and answered as its documentation says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::kar::server::{Act, Server};

/// A collection as the fake server keeps it: what was created, and points by their numbers.
#[derive(Clone, Default)]
pub struct Kept {
    pub created: Value,
    pub points: BTreeMap<u64, (Vec<f32>, Value)>,
}

/// How the fake server misbehaves, and what it holds.
#[derive(Default)]
pub struct State {
    pub collections: BTreeMap<String, Kept>,
    /// Names of collections besides their own.
    pub aliases: BTreeMap<String, String>,
    /// Refuses to change them.
    pub aliases_stay: bool,
    pub key: Option<&'static str>,
    /// Most points that have room.
    pub room: Option<usize>,
    /// Answers with the farthest instead of the nearest.
    pub backwards: bool,
    /// Answers with so many fewer than were asked for.
    pub short: usize,
    /// Added to the numbers of points in answers.
    pub shift: u64,
    /// Requests that are answered so before any other.
    pub script: Vec<Act>,
}

/// A server that takes and gives what Qdrant's REST interface takes and gives, and refuses all else.
pub struct Qdrant {
    pub state: Arc<Mutex<State>>,
    pub server: Server,
}

impl State {
    pub fn target<'a>(&'a self, name: &'a str) -> &'a str {
        self.aliases.get(name).map_or(name, String::as_str)
    }

    pub fn reached(&mut self, name: &str) -> Option<&mut Kept> {
        let target = self.target(name).to_string();
        self.collections.get_mut(&target)
    }
}

pub fn ok(result: Value) -> Act {
    Act::Say(200, json!({"result": result, "status": "ok", "time": 0.001}).to_string(), "")
}

pub fn error(status: u16, reason: &str) -> Act {
    Act::Say(status, json!({"status": {"error": reason}, "time": 0.0}).to_string(), "")
}

pub fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

impl Qdrant {
    pub fn new() -> Qdrant {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        let server = Server::acting([], move |request| {
            let mut state = shared.lock().unwrap();
            if !state.script.is_empty() {
                return state.script.remove(0);
            }
            answer(&mut state, request)
        });
        Qdrant { state, server }
    }

    /// How a collection is named on the command line.
    pub fn place(&self, collection: &str) -> &'static str {
        let host = self.server.url.trim_start_matches("http://").trim_end_matches("/v1");
        format!("qdrant://{host}/{collection}").leak()
    }

    /// What a name leads to.
    pub fn kept(&self, collection: &str) -> Option<Kept> {
        let state = self.state.lock().unwrap();
        state.collections.get(state.target(collection)).cloned()
    }

    /// The names of all collections.
    pub fn names(&self) -> Vec<String> {
        self.state.lock().unwrap().collections.keys().cloned().collect()
    }

    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }
}

pub fn answer(state: &mut State, request: &str) -> Act {
    let (head, body) =
        request.split_once("\r\n{").map_or((request, String::new()), |(head, body)| (head, format!("{{{body}")));
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let key = head.lines().find_map(|line| line.strip_prefix("api-key: "));
    if state.key.is_some() && key.map(str::trim) != state.key {
        return error(401, "Must provide an API key or an Authorization bearer token");
    }
    let mut words = head.split_whitespace();
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let path = target.split('?').next().unwrap();
    if (method, path) == ("GET", "/aliases") {
        let alias = |(name, of): (&String, &String)| json!({"alias_name": name, "collection_name": of});
        return ok(json!({"aliases": state.aliases.iter().map(alias).collect::<Vec<_>>()}));
    }
    if (method, path) == ("POST", "/collections/aliases") {
        return change_aliases(state, &body["actions"]);
    }
    let path = path.strip_prefix("/collections/").unwrap();
    let (name, path) = path.split_once('/').unwrap_or((path, ""));
    if (method, path) == ("PUT", "") {
        if state.collections.contains_key(name) || state.aliases.contains_key(name) {
            return error(409, &format!("Wrong input: Collection `{name}` already exists!"));
        }
        assert!(body["vectors"]["size"].is_u64() && body["vectors"]["distance"] == "Dot", "{body}");
        state.collections.insert(name.into(), Kept { created: body, points: BTreeMap::new() });
        return ok(json!(true));
    }
    if (method, path) == ("DELETE", "") {
        // By its own name alone.
        return ok(json!(state.collections.remove(name).is_some()));
    }
    let (room, backwards, short, shift) = (state.room, state.backwards, state.short, state.shift);
    let Some(kept) = state.reached(name) else {
        return error(404, &format!("Not found: Collection `{name}` doesn't exist!"));
    };
    match (method, path) {
        ("GET", "") => ok(json!({
            "status": "green", "points_count": kept.points.len(),
            "config": {"params": {"vectors": kept.created["vectors"], "shard_number": 1}},
        })),
        ("GET", point) if point.starts_with("points/") => match kept.points.get(&point[7..].parse().unwrap()) {
            Some((vector, payload)) => ok(json!({"id": 0, "vector": vector, "payload": payload})),
            None => error(404, "Not found: Point with id 0 does not exists!"),
        },
        ("POST", "points/count") => ok(json!({"count": kept.points.len()})),
        ("PUT", "points") => {
            assert!(target.ends_with("?wait=true"), "{target}");
            for point in body["points"].as_array().unwrap() {
                let (id, vector) = (point["id"].as_u64().unwrap(), floats(&point["vector"]));
                let size = kept.created["vectors"]["size"].as_u64().unwrap() as usize;
                if vector.len() != size {
                    let reason =
                        format!("Wrong input: Vector dimension error: expected dim: {size}, got {}", vector.len());
                    return error(400, &reason);
                }
                if room.is_some_and(|room| kept.points.len() >= room) {
                    return error(500, "Service internal error: WAL: No space left on device (os error 28)");
                }
                kept.points.insert(id, (vector, point["payload"].clone()));
            }
            ok(json!({"operation_id": 1, "status": "completed"}))
        }
        ("POST", "points/query/batch") => {
            let found = |search: &Value| {
                assert!(search["with_payload"] == false && search["params"]["hnsw_ef"].is_u64(), "{search}");
                let query = floats(&search["query"]);
                let product =
                    |vector: &[f32]| -> f64 { vector.iter().zip(&query).map(|(x, y)| f64::from(x * y)).sum() };
                let mut all: Vec<(u64, f64)> = kept.points.iter().map(|(id, (v, _))| (*id, product(v))).collect();
                all.sort_by(|a, b| b.1.total_cmp(&a.1));
                if backwards {
                    all.reverse();
                }
                all.truncate(search["limit"].as_u64().unwrap() as usize - short);
                let point = |(id, score)| json!({"id": id + shift, "version": 0, "score": score});
                json!({"points": all.into_iter().map(point).collect::<Vec<_>>()})
            };
            ok(body["searches"].as_array().unwrap().iter().map(found).collect())
        }
        _ => error(404, "no such path"),
    }
}

/// All actions or none.
pub fn change_aliases(state: &mut State, actions: &Value) -> Act {
    if state.aliases_stay {
        return error(400, "Wrong input: aliases stay as they are");
    }
    let mut aliases = state.aliases.clone();
    for action in actions.as_array().unwrap() {
        let (delete, create) = (&action["delete_alias"], &action["create_alias"]);
        if let Some(name) = delete["alias_name"].as_str() {
            aliases.remove(name).unwrap();
            continue;
        }
        let [name, of] = ["alias_name", "collection_name"].map(|key| create[key].as_str().unwrap().to_string());
        if state.collections.contains_key(&name) {
            return error(409, &format!("Wrong input: Collection `{name}` already exists!"));
        }
        assert!(state.collections.contains_key(&of), "{of}");
        aliases.insert(name, of);
    }
    state.aliases = aliases;
    ok(json!(true))
}
