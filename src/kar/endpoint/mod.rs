//! KAR by a server that speaks OpenAI's chat completions.

mod address;
mod chat;
mod logprobs;
mod turn;

use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use ureq::Agent;
use ureq::http::{HeaderName, HeaderValue};

use super::model::{LanguageModel, Question, Reply, Said, Wanted};
use crate::error::{Error, Result};
use crate::http::retry::{Backoff, LONGEST, wait_of};
use crate::http::{Secrets, agent, certificates, shown_target};
use crate::printable::excerpt;
use crate::span;
use crate::trace;
use address::Address;
use chat::{Defect, Manner, error_message};
use turn::Turn;

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
    /// Wait before the first of them; each further one waits twice as long, or as long as the server says if that is longer.
    pub backoff: Duration,
    /// Merged into each request's body: a value replaces what would stand there, null takes it out.
    pub body: Map<String, Value>,
    /// Further headers of each request.
    pub headers: Vec<(String, String)>,
    /// Certificates of the authorities that servers are believed by, in place of Mozilla's.
    pub authorities: Option<PathBuf>,
}

/// Longest time that a call may take, whatever is asked for.
const LONGEST_CALL: Duration = Duration::from_secs(24 * 3600);

/// A server that answers questions.
pub struct Endpoint {
    settings: EndpointSettings,
    address: Address,
    agent: Agent,
    secrets: Secrets,
    /// How this server wants to be asked, as far as it has said so.
    manner: Mutex<Manner>,
}

/// What came of one call.
enum Call {
    Answered(Reply),
    /// It may go better the next time: why it failed, and how long the server wants to be left alone.
    Failed(String, Option<Duration>),
    /// Neither this question nor any other will be answered.
    Hopeless(String),
    /// The server wants to be asked otherwise, and will be.
    Otherwise,
}

impl Endpoint {
    /// Looks at the settings; no call is made.
    pub fn new(settings: EndpointSettings) -> Result<Endpoint> {
        let address = Address::new(&settings.url)?;
        if settings.key.as_ref().is_some_and(|key| !key.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::invalid("the endpoint's key has characters that no header may have"));
        }
        let fits = |(name, value): &(String, String)| {
            HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok()
        };
        if let Some(at) = settings.headers.iter().position(|header| !fits(header)) {
            // Even what stands before the colon may be a secret.
            let reason = format!("--header: number {} is no header; give one like 'X-Team: linking'", at + 1);
            return Err(Error::invalid(reason));
        }
        if settings.body.contains_key("messages") {
            return Err(Error::invalid("--body: `messages` are the question's; --template words it"));
        }
        let agent = agent(settings.timeout.min(LONGEST_CALL), settings.authorities.as_deref())?;
        let headers = settings.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let parts = address.query.split('&').filter_map(|part| part.split_once('='));
        let secrets = Secrets::new(settings.key.as_deref(), headers.chain(parts));
        Ok(Endpoint { address, agent, secrets, manner: Mutex::default(), settings })
    }

    /// What a server said, fit to be kept and printed.
    fn told(&self, text: String) -> String {
        excerpt(&self.secrets.redacted(text))
    }

    /// A reply without the secrets, should the server have repeated them.
    fn without_secrets(&self, mut reply: Reply) -> Reply {
        if let Said::Text(text) | Said::Unfinished(text) | Said::Unsure(text) | Said::Refused(text) = &mut reply.said {
            *text = self.secrets.redacted(std::mem::take(text));
        }
        reply
    }

    fn call(&self, question: &Question, wanted: Wanted) -> Call {
        let manner = *self.manner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut request = self.agent.post(&self.address.url).header("Content-Type", "application/json");
        let own_key = self.settings.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        if let Some(key) = self.settings.key.as_ref().filter(|_| !own_key) {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        for (name, value) in &self.settings.headers {
            request = request.header(name, value);
        }
        let sent = chat::body(&self.settings.model, question, wanted, manner, &self.settings.body);
        let _span = span!("HTTP");
        let mut response = match request.send(sent) {
            Ok(response) => response,
            Err(e) if e.to_string().contains("certificate") => {
                let advice = certificates::advice(&e.to_string(), self.settings.authorities.as_deref());
                let refusal = self.told(e.to_string());
                return Call::Hopeless(format!("the server's certificate is refused: {refusal}; {advice}"));
            }
            Err(e) => return Call::Failed(format!("no answer: {}", self.told(e.to_string())), None),
        };
        let status = response.status().as_u16();
        let header = response.headers().get("retry-after").and_then(|h| h.to_str().ok());
        let wait = header.and_then(|h| wait_of(h, SystemTime::now()));
        if response.status().is_redirection() {
            let target = response.headers().get("location").and_then(|target| target.to_str().ok());
            return Call::Hopeless(self.redirect(status, target));
        }
        let body = match response.body_mut().with_config().limit(MOST_BYTES).lossy_utf8(true).read_to_string() {
            Ok(body) => body,
            Err(e) => return Call::Failed(format!("half an answer: {}", self.told(e.to_string())), wait),
        };
        let message = || error_message(&body).unwrap_or_else(|| excerpt(&body));
        let told = || format!("status {status}: {}", self.told(message()));
        match status {
            200 => match chat::reply(&body, question, wanted) {
                Ok(reply) => Call::Answered(self.without_secrets(reply)),
                Err(Defect::Garbage(what)) => Call::Failed(self.told(format!("its answer {what}")), wait),
                Err(Defect::OtherFormat(what)) => Call::Hopeless(self.told(format!("its answer {what}"))),
                Err(Defect::NoLogprobs) => Call::Hopeless(
                    "its answers have no log-probabilities, which --scoring logits needs; use --scoring generate"
                        .into(),
                ),
            },
            408 | 409 | 425 | 429 | 500.. => Call::Failed(told(), wait),
            400 | 422 if self.ask_otherwise(manner, &message()) => Call::Otherwise,
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

    /// Why a redirect is not followed, and what to call instead.
    fn redirect(&self, status: u16, target: Option<&str>) -> String {
        let target = target.map(|target| self.told(shown_target(target))).filter(|target| !target.is_empty());
        let target = target.unwrap_or_else(|| "nowhere".into());
        format!(
            "status {status}: it redirects to {target}, where the key is not sent; if that is right, name it in --endpoint"
        )
    }

    /// Whether a server that refused a request in this manner may take one in another, which is remembered.
    fn ask_otherwise(&self, manner: Manner, refusal: &str) -> bool {
        let Some(other) = manner.after(refusal) else { return false };
        let mut current = self.manner.lock().unwrap_or_else(PoisonError::into_inner);
        // Others may have heard the same meanwhile.
        if *current == manner {
            *current = other;
            tracing::warn!("{}: {}", self.address.shown, other.change(manner));
        }
        true
    }

    /// Asks until there is an answer. `None` if others have failed meanwhile.
    fn ask(&self, question: &Question, wanted: Wanted, turn: &Turn) -> Option<Result<Reply>> {
        let fail = |reason: String| {
            let doing = format!("asking about mention `{}`", question.mention);
            Some(Err(Error::device(&self.address.shown, doing, reason)))
        };
        let backoff = Backoff::new(self.settings.backoff, &question.mention);
        let mut attempt = 0;
        trace::next_step();
        let _span = span!("question");
        loop {
            if !turn.wait() {
                return None;
            }
            match self.call(question, wanted) {
                Call::Answered(reply) => return Some(Ok(reply)),
                // There are few manners: this has an end.
                Call::Otherwise => {}
                Call::Hopeless(reason) => return fail(reason),
                Call::Failed(reason, _) if attempt == self.settings.retries => {
                    let calls = attempt + 1;
                    return fail(format!("{reason}; gave up after {calls} calls. Run again to go on from here"));
                }
                Call::Failed(reason, Some(wait)) if wait > LONGEST => {
                    let (asked, longest) = (wait.as_secs(), LONGEST.as_secs());
                    return fail(format!(
                        "{reason}; the server asks for a wait of {asked} s (Retry-After), and {longest} s are the longest. \
                         Run again then to go on from here"
                    ));
                }
                Call::Failed(reason, wait) => {
                    let own = backoff.wait(attempt);
                    let longest = wait.map_or(own, |wait| wait.max(own));
                    if turn.is_news(longest) {
                        let seconds = longest.as_secs_f64().ceil();
                        tracing::warn!("{}: {reason}; waiting {seconds} s, then trying again", self.address.shown);
                    } else {
                        tracing::info!("{}: {reason}; trying again", self.address.shown);
                    }
                    attempt += 1;
                    match wait {
                        // The server speaks to all of us.
                        Some(_) => turn.hold_all(longest),
                        None if !turn.sleep(longest) => return None,
                        None => {}
                    }
                }
            }
        }
    }

    fn work(&self, questions: &[Question], wanted: Wanted, turn: &Turn, out: Sender<(usize, Result<Reply>)>) {
        while let Some(i) = turn.next(questions.len()) {
            if questions[i].answered {
                continue;
            }
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
        let body = match self.settings.body.is_empty() {
            true => String::new(),
            // Answers depend on it.
            false => format!(" with {}", self.secrets.redacted(Value::from(self.settings.body.clone()).to_string())),
        };
        format!("{} at {}{body}", self.settings.model, self.address.shown)
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
