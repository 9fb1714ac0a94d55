//! Calls of a Qdrant server's REST interface.

use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::Agent;

use crate::error::{Error, Result};
use crate::http::retry::{Backoff, LONGEST, wait_of};
use crate::http::{Secrets, agent, certificates, shown_target};
use crate::printable::excerpt;
use crate::search::{Access, Collection};

/// Longest response that is read.
const MOST_BYTES: u64 = 256 << 20;

/// Calls after one to a server that is busy.
const RETRIES: u32 = 4;

/// Speaks with one collection of a server.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    pub collection: Collection,
    access: Access,
    secrets: Secrets,
}

/// What a call does.
#[derive(Clone, Copy, Debug)]
pub enum Method {
    Get,
    Put,
    Post,
    Delete,
}

/// What came of one call.
enum Call {
    Answered(String),
    /// There is no such collection or point.
    Absent,
    /// It may go better the next time.
    Busy(String, Option<std::time::Duration>),
    Failed(String),
}

/// What all responses look like.
#[derive(serde::Deserialize)]
struct Response<T> {
    result: T,
}

impl Client {
    /// Fails if the key or the file of certificates is none. No call is made.
    pub fn new(collection: &Collection, access: &Access) -> Result<Client> {
        if access.key.as_ref().is_some_and(|key| !key.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::invalid("the database's key has characters that no header may have"));
        }
        let agent = agent(access.timeout, access.authorities.as_deref())?;
        let secrets = Secrets::new(access.key.as_deref(), std::iter::empty());
        Ok(Client { agent, collection: collection.clone(), access: access.clone(), secrets })
    }

    /// The collection and its server, for messages.
    pub fn shown(&self) -> String {
        format!("collection `{}` of Qdrant at {}", self.collection.name, self.collection.url())
    }

    pub fn access(&self) -> &Access {
        &self.access
    }

    /// An error about this collection.
    pub fn error(&self, doing: &str, reason: impl Into<String>) -> Error {
        Error::device(self.shown(), doing, reason)
    }

    /// The result of a call to this path below the collection; `None` if there is no such collection or point.
    ///
    /// Fails if the server is down, slow, full or does not know the key, or if it answers otherwise than Qdrant does.
    pub fn call<T: DeserializeOwned>(
        &self,
        doing: &str,
        (method, path): (Method, &str),
        body: Option<&impl Serialize>,
    ) -> Result<Option<T>> {
        self.call_server(doing, (method, &format!("/collections/{}{path}", self.collection.name)), body)
    }

    /// The same of a path of the server.
    pub fn call_server<T: DeserializeOwned>(
        &self,
        doing: &str,
        (method, path): (Method, &str),
        body: Option<&impl Serialize>,
    ) -> Result<Option<T>> {
        let url = format!("{}{path}", self.collection.url());
        let body = body.map(serde_json::to_string).transpose();
        let body = body.map_err(|e| self.error(doing, format!("the request cannot be written: {e}")))?;
        let backoff = Backoff::new(std::time::Duration::from_millis(250), &url);
        let mut attempt = 0;
        loop {
            let (reason, wait) = match self.once(method, &url, body.as_deref()) {
                Call::Answered(text) => return self.read(doing, &text).map(Some),
                Call::Absent => return Ok(None),
                Call::Failed(reason) => return Err(self.error(doing, reason)),
                Call::Busy(reason, wait) => (reason, wait),
            };
            let wait = wait.unwrap_or_default().max(backoff.wait(attempt));
            if attempt == RETRIES || wait > LONGEST {
                let calls = attempt + 1;
                let advice = "the server is busy or full; free memory and disk there, or come back later";
                return Err(self.error(doing, format!("{reason}; gave up after {calls} calls: {advice}")));
            }
            attempt += 1;
            tracing::info!("{}: {reason}; trying again", self.shown());
            std::thread::sleep(wait);
        }
    }

    fn read<T: DeserializeOwned>(&self, doing: &str, text: &str) -> Result<T> {
        let response: Response<T> = serde_json::from_str(text).map_err(|e| {
            let reason = format!("its answer is none of Qdrant: {e}, in {:?}", self.told(text));
            self.error(doing, format!("{reason}; does this address name the REST port (6333 by default)?"))
        })?;
        Ok(response.result)
    }

    fn once(&self, method: Method, url: &str, body: Option<&str>) -> Call {
        let sent = match (method, body) {
            (Method::Get, _) => self.keyed(self.agent.get(url)).call(),
            (Method::Delete, _) => self.keyed(self.agent.delete(url)).call(),
            (Method::Put, body) => self.json(self.agent.put(url)).send(body.unwrap_or("{}")),
            (Method::Post, body) => self.json(self.agent.post(url)).send(body.unwrap_or("{}")),
        };
        let mut response = match sent {
            Ok(response) => response,
            Err(e) => return Call::Failed(self.no_answer(&e)),
        };
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let wait = header("retry-after").and_then(|value| wait_of(value, SystemTime::now()));
        if response.status().is_redirection() {
            let target = header("location").map(shown_target).unwrap_or_default();
            return Call::Failed(format!(
                "status {status}: it redirects to {:?}, where nothing is sent; if that is right, name it instead",
                self.told(&target)
            ));
        }
        let body = match response.body_mut().with_config().limit(MOST_BYTES).lossy_utf8(true).read_to_string() {
            Ok(body) => body,
            Err(e) => return Call::Failed(format!("half an answer: {}", self.no_answer(&e))),
        };
        let told = format!("status {status}: {}", self.told(&reason_of(&body)));
        match status {
            200 => Call::Answered(body),
            404 => Call::Absent,
            401 | 403 => Call::Failed(format!("{told}; give its key by QDRANT_API_KEY, or name another variable")),
            413 => Call::Failed(format!("{told}; the server takes smaller requests only (max_request_size_mb)")),
            507 => Call::Failed(format!("{told}; free disk there, then run this again")),
            500.. if is_full(&told) => Call::Failed(format!("{told}; free disk or memory there, then run this again")),
            408 | 429 | 500.. => Call::Busy(told, wait),
            _ => Call::Failed(told),
        }
    }

    fn keyed<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.access.key {
            Some(key) => request.header("api-key", key),
            None => request,
        }
    }

    fn json(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithBody>,
    ) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
        self.keyed(request).header("Content-Type", "application/json")
    }

    /// Why there is no answer, and what to do.
    fn no_answer(&self, error: &ureq::Error) -> String {
        let told = self.told(&error.to_string());
        match error {
            _ if told.contains("certificate") => {
                let advice = certificates::advice(&told, self.access.authorities.as_deref());
                format!("the server's certificate is refused: {told}; {advice}")
            }
            ureq::Error::Timeout(_) => format!(
                "no answer within {} s ({told}); is the server overloaded? --database-timeout gives it longer",
                self.access.timeout.as_secs_f64()
            ),
            _ => format!("no answer: {told}; is the server running, and is this its address?"),
        }
    }

    /// What a server said, fit to be printed.
    fn told(&self, text: &str) -> String {
        excerpt(&self.secrets.redacted(text.to_string()))
    }
}

/// The server's own words about an error: `{"status": {"error": "..."}}`.
fn reason_of(body: &str) -> String {
    let value: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let error = value.as_ref().and_then(|value| value["status"]["error"].as_str());
    error.unwrap_or(body).to_string()
}

/// Whether these words say that there is no room.
fn is_full(text: &str) -> bool {
    let text = text.to_lowercase();
    ["no space", "disk space", "out of memory", "not enough space", "storage is full"].iter().any(|w| text.contains(w))
}
