//! KAR by a server that speaks OpenAI's chat completions.

mod chat;
mod retry;

use std::sync::mpsc::{self, Sender};
use std::time::{Duration, SystemTime};

use ureq::Agent;
use ureq::http::Uri;

use super::model::{LanguageModel, Question, Reply, Said, Wanted};
use crate::error::{Error, Result};
use chat::{Defect, error_message, excerpt};
use retry::{Backoff, Turn, wait_of};

/// Longest response that is read.
const MOST_BYTES: u64 = 16 << 20;

/// How to ask a server. Has no `Debug`: the key must not be printed.
pub struct EndpointSettings {
    /// Base URL, such as `http://localhost:8000/v1`, or that of the chat completions themselves.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Bearer token.
    pub key: Option<String>,
    /// Questions at a time.
    pub concurrency: usize,
    /// Longest time that a call may take.
    pub timeout: Duration,
    /// Calls after a first one that failed.
    pub retries: u32,
    /// Wait before the first of them; each further one waits twice as long, or as long as the server says.
    pub backoff: Duration,
}

/// A server that answers questions.
pub struct Endpoint {
    settings: EndpointSettings,
    url: String,
    /// The URL without its query, which may hold a secret.
    shown: String,
    agent: Agent,
}

/// What came of one call.
enum Call {
    Answered(Reply),
    /// It may go better the next time: why it failed, and how long the server wants to be left alone.
    Failed(String, Option<Duration>),
    /// Neither this question nor any other will be answered.
    Hopeless(String),
}

impl Endpoint {
    /// Looks at the settings; no call is made.
    pub fn new(settings: EndpointSettings) -> Result<Endpoint> {
        let refuse = |reason: &str| Err(Error::invalid(format!("--endpoint: {reason}")));
        let Ok(uri) = settings.url.parse::<Uri>() else {
            return refuse("is no URL; give one like http://localhost:8000/v1");
        };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return refuse("needs a URL that begins with http:// or https://");
        }
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return refuse("holds a name or password; give the key by an environment variable instead");
        }
        if settings.key.as_ref().is_some_and(|key| !key.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::invalid("the endpoint's key has characters that no header may have"));
        }
        let (base, query) = match settings.url.split_once('?') {
            Some((base, query)) => (base, format!("?{query}")),
            None => (settings.url.as_str(), String::new()),
        };
        let path = "/chat/completions";
        let base = base.trim_end_matches('/');
        let shown = if base.ends_with(path) { base.to_string() } else { format!("{base}{path}") };
        let config = Agent::config_builder()
            .timeout_global(Some(settings.timeout))
            .http_status_as_error(false)
            // A redirect could carry the key elsewhere.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build();
        Ok(Endpoint { url: format!("{shown}{query}"), shown, agent: config.into(), settings })
    }

    /// An error's text without the key, should a server have repeated it.
    fn without_key(&self, text: String) -> String {
        match self.settings.key.as_deref().filter(|key| !key.is_empty()) {
            Some(key) => text.replace(key, "***"),
            None => text,
        }
    }

    fn call(&self, question: &Question, wanted: Wanted) -> Call {
        let mut request = self.agent.post(&self.url).header("Content-Type", "application/json");
        if let Some(key) = &self.settings.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let mut response = match request.send(chat::body(&self.settings.model, question, wanted)) {
            Ok(response) => response,
            Err(e) => return Call::Failed(format!("no answer: {e}"), None),
        };
        let status = response.status().as_u16();
        let header = response.headers().get("retry-after").and_then(|h| h.to_str().ok());
        let wait = header.and_then(|h| wait_of(h, SystemTime::now()));
        let body = match response.body_mut().with_config().limit(MOST_BYTES).lossy_utf8(true).read_to_string() {
            Ok(body) => body,
            Err(e) => return Call::Failed(format!("half an answer: {e}"), wait),
        };
        let told = || self.without_key(format!("status {status}: {}", error_message(&body).unwrap_or(excerpt(&body))));
        match status {
            200 => match chat::reply(&body, question, wanted) {
                Ok(reply) => Call::Answered(reply),
                Err(Defect::Garbage(what)) => Call::Failed(self.without_key(format!("its answer {what}")), wait),
                Err(Defect::NoLogprobs) => Call::Hopeless(
                    "its answers have no log-probabilities, which --scoring logits needs; use --scoring generate"
                        .into(),
                ),
            },
            408 | 409 | 425 | 429 | 500.. => Call::Failed(told(), wait),
            // About this question: too long, or a text that the server does not take.
            400 | 413 | 422 => Call::Answered(Reply {
                said: Said::Refused(told()),
                prompt_tokens: 0,
                computed_tokens: 0,
                new_tokens: 0,
            }),
            _ => Call::Hopeless(told()),
        }
    }

    /// Asks until there is an answer. `None` if others have failed meanwhile.
    fn ask(&self, question: &Question, wanted: Wanted, turn: &Turn) -> Option<Result<Reply>> {
        let fail = |reason: String| {
            let doing = format!("asking about mention `{}`", question.mention);
            Some(Err(Error::device(&self.shown, doing, reason)))
        };
        let backoff = Backoff::new(self.settings.backoff, &question.mention);
        for attempt in 0.. {
            if !turn.wait() {
                return None;
            }
            match self.call(question, wanted) {
                Call::Answered(reply) => return Some(Ok(reply)),
                Call::Hopeless(reason) => return fail(reason),
                Call::Failed(reason, _) if attempt == self.settings.retries => {
                    let calls = attempt + 1;
                    return fail(format!("{reason}; gave up after {calls} calls. Run again to go on from here"));
                }
                Call::Failed(reason, wait) => {
                    tracing::info!("{}: {reason}; trying again", self.shown);
                    match wait {
                        // The server speaks to all of us.
                        Some(wait) => turn.hold_all(wait),
                        None if !turn.sleep(backoff.wait(attempt)) => return None,
                        None => {}
                    }
                }
            }
        }
        None
    }

    fn work(&self, questions: &[Question], wanted: Wanted, turn: &Turn, out: Sender<(usize, Result<Reply>)>) {
        while let Some(i) = turn.next(questions.len()) {
            let Some(result) = self.ask(&questions[i], wanted, turn) else { return };
            if result.is_err() {
                turn.stop();
            }
            if out.send((i, result)).is_err() {
                return;
            }
        }
    }
}

impl LanguageModel for Endpoint {
    fn identity(&self) -> String {
        format!("{} at {}", self.settings.model, self.shown)
    }

    fn answer(
        &mut self,
        questions: &[Question],
        wanted: Wanted,
        on_reply: &mut dyn FnMut(usize, Reply) -> Result<()>,
    ) -> Result<()> {
        let turn = Turn::default();
        let (this, turn) = (&*self, &turn);
        std::thread::scope(|scope| {
            let (sender, replies) = mpsc::channel();
            for _ in 0..this.settings.concurrency.clamp(1, questions.len().max(1)) {
                let sender = sender.clone();
                scope.spawn(move || this.work(questions, wanted, turn, sender));
            }
            drop(sender);
            // After an error, what is under way still arrives and is kept.
            let mut result = Ok(());
            for (i, reply) in replies {
                let heard = reply.and_then(|reply| on_reply(i, reply));
                if heard.is_err() {
                    turn.stop();
                    result = result.and(heard);
                }
            }
            result
        })
    }
}
