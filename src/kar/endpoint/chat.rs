//! The chat completions format: a question to a request's body, a response's body to a reply.
//!
//! What a response says is read as leniently as its meaning allows: fields that are not needed may be missing, null or of
//! another type.

use serde_json::{Map, Value, json};

use super::logprobs::{self, LOOKED_AT, MOST_LOGPROBS};
use crate::kar::answer::ends_in_thought;
use crate::kar::model::{Question, Reply, Said, Wanted};
use crate::printable::excerpt;

/// What is wrong with a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defect {
    /// It is no JSON, or an error; the next one may be an answer.
    Garbage(String),
    /// It is no chat completion, and no other response will be.
    OtherFormat(String),
    /// It has no log-probabilities, and no other response will.
    NoLogprobs,
}

/// What servers differ in: how they want to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// The length of an answer is called `max_completion_tokens`, as newer models want it.
    pub completion_tokens: bool,
    /// The temperature is said: 0.
    pub temperature: bool,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner { completion_tokens: false, temperature: true }
    }
}

impl Manner {
    /// How to ask a server that refused a request in this manner with these words, if another manner may do.
    pub fn after(self, refusal: &str) -> Option<Manner> {
        let says = |words: &[&str]| words.iter().any(|word| refusal.contains(word));
        let refusal_of_a_parameter = says(&[
            "nsupported",
            "not support",
            "Unrecognized",
            "nknown",
            "not allowed",
            "only the default",
            "deprecated",
            "Use '",
            "instead",
        ]);
        if !refusal_of_a_parameter {
            return None;
        }
        if says(&["max_tokens"]) && !self.completion_tokens {
            return Some(Manner { completion_tokens: true, ..self });
        }
        (says(&["temperature"]) && self.temperature).then_some(Manner { temperature: false, ..self })
    }

    /// What is new in it, for the user.
    pub fn change(self, from: Manner) -> &'static str {
        if self.completion_tokens != from.completion_tokens {
            "the server takes no `max_tokens`: it is asked with `max_completion_tokens` from now on"
        } else {
            "the server takes no `temperature`: it is left out from now on, and answers may differ from run to run"
        }
    }
}

/// The body of a request; what is in `extra` replaces what would stand there, and null takes it out.
pub fn body(model: &str, question: &Question, wanted: Wanted, manner: Manner, extra: &Map<String, Value>) -> String {
    let prompt = &question.prompt;
    let mut messages = Vec::new();
    if !prompt.system.is_empty() {
        messages.push(json!({"role": "system", "content": prompt.system}));
    }
    messages.push(json!({"role": "user", "content": prompt.user}));
    let mut body = Map::new();
    body.insert("model".into(), json!(model));
    body.insert("messages".into(), json!(messages));
    if manner.temperature {
        body.insert("temperature".into(), json!(0));
    }
    let limit = if manner.completion_tokens { "max_completion_tokens" } else { "max_tokens" };
    match wanted {
        Wanted::Text { max_new_tokens } => {
            body.insert(limit.into(), json!(max_new_tokens));
        }
        Wanted::Letters { .. } => {
            body.insert(limit.into(), json!(LOOKED_AT));
            body.insert("logprobs".into(), json!(true));
            body.insert("top_logprobs".into(), json!(MOST_LOGPROBS));
        }
    }
    for (key, value) in extra {
        match value {
            Value::Null => drop(body.shift_remove(key)),
            value => drop(body.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(body).to_string()
}

/// What a response with status 200 says.
pub fn reply(body: &str, question: &Question, wanted: Wanted) -> Result<Reply, Defect> {
    let garbage = |what: String| Defect::Garbage(format!("is no chat completion: {what}"));
    let completion: Value = serde_json::from_str(body).map_err(|e| garbage(format!("{e}, in {:?}", excerpt(body))))?;
    if let Some(error) = error_message(body).filter(|_| completion.get("choices").is_none()) {
        return Err(garbage(error));
    }
    let other = |what: &str| Defect::OtherFormat(format!("is no chat completion: {what}, in {:?}", excerpt(body)));
    let choice = completion["choices"].get(0).ok_or_else(|| other("it has no `choices`"))?;
    let message = &choice["message"];
    let (text, thoughts) = match (message, choice.get("text").and_then(Value::as_str)) {
        (Value::Object(_), _) => content(message),
        (_, Some(text)) => (text.to_string(), false),
        _ => return Err(other("its choice has no `message`")),
    };
    let finish = &choice["finish_reason"];
    let finish = finish.as_str().or(finish["type"].as_str()).unwrap_or_default();
    let usage = &completion["usage"];
    let cut = matches!(finish, "length" | "max_tokens" | "MAX_TOKENS");
    let reasoned = count(&usage["completion_tokens_details"]["reasoning_tokens"]) > 0;
    let in_thought = cut && (ends_in_thought(&text) || text.trim().is_empty() && (thoughts || reasoned));
    let said = match wanted {
        _ if finish == "content_filter" => Said::Refused("the server's content filter withheld the answer".into()),
        // Whatever letters are probable within a thought, they are no answer.
        _ if in_thought => Said::Unfinished(text),
        Wanted::Text { .. } => Said::Text(text),
        Wanted::Letters { least_share } => {
            let positions = choice["logprobs"]["content"].as_array().ok_or(Defect::NoLogprobs)?;
            logprobs::said(positions, question.options, least_share, text)
        }
    };
    let prompt_tokens = count(&usage["prompt_tokens"]);
    let cached = count(&usage["prompt_tokens_details"]["cached_tokens"]);
    Ok(Reply {
        said,
        prompt_tokens,
        computed_tokens: prompt_tokens.saturating_sub(cached),
        new_tokens: count(&usage["completion_tokens"]),
    })
}

/// A message's text, whole or in parts, and whether there are thoughts beside it.
fn content(message: &Value) -> (String, bool) {
    let told = |key: &str| message[key].as_str().is_some_and(|text| !text.trim().is_empty());
    let mut thoughts = told("reasoning_content") || told("reasoning") || told("thinking");
    let mut text = String::new();
    match &message["content"] {
        Value::Array(parts) => {
            for part in parts {
                match part["type"].as_str() {
                    Some("thinking" | "reasoning" | "redacted_thinking") => thoughts = true,
                    _ => text += part.as_str().or(part["text"].as_str()).unwrap_or_default(),
                }
            }
        }
        Value::String(whole) => text += whole,
        _ => text += message["refusal"].as_str().unwrap_or_default(),
    }
    (text, thoughts)
}

/// A number of tokens, as far as one can be told.
fn count(value: &Value) -> usize {
    value.as_f64().filter(|n| *n > 0.0).map_or(0, |n| n as usize)
}

/// The server's own words about an error.
pub fn error_message(body: &str) -> Option<String> {
    let value: Value = serde_json::from_str(body).ok()?;
    let error = value.get("error").filter(|error| !error.is_null())?;
    let message = error.get("message").or(error.get("detail")).unwrap_or(error);
    Some(excerpt(message.as_str().unwrap_or(&message.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kar::instruction::Prompt;

    fn question() -> Question {
        let prompt = Prompt { system: String::new(), user: "who?".into(), reply: "Answer:".into() };
        Question { mention: "m".into(), group: 0, prompt, options: 3, answered: false }
    }

    const TEXT: Wanted = Wanted::Text { max_new_tokens: 9 };
    const LETTERS: Wanted = Wanted::Letters { least_share: 0.1 };

    #[test]
    fn a_request_says_what_it_wants() {
        let extra = Map::new();
        let body = |wanted| {
            let body = body("model", &question(), wanted, Manner::default(), &extra);
            serde_json::from_str::<Value>(&body).unwrap()
        };
        let text = body(TEXT);
        assert_eq!(text["messages"], json!([{"role": "user", "content": "who?"}]));
        assert_eq!((&text["max_tokens"], &text["temperature"], text.get("logprobs")), (&json!(9), &json!(0), None));
        let letters = body(LETTERS);
        assert_eq!((&letters["max_tokens"], &letters["top_logprobs"]), (&json!(LOOKED_AT), &json!(20)));
    }

    #[test]
    fn a_response_gives_its_text_and_usage() {
        let body = json!({"id": "x", "choices": [{"message": {"role": "assistant", "content": "B"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 70, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 50}}});
        let got = reply(&body.to_string(), &question(), TEXT).unwrap();
        let want = Reply { said: Said::Text("B".into()), prompt_tokens: 70, computed_tokens: 20, new_tokens: 2 };
        assert_eq!(got, want);
        assert_eq!(reply(&body.to_string(), &question(), LETTERS), Err(Defect::NoLogprobs));
        let empty = r#"{"choices":[{"message":{"content":null},"finish_reason":"length"}]}"#;
        assert_eq!(reply(empty, &question(), TEXT).unwrap().said, Said::Text(String::new()));
        let filtered = empty.replace("length", "content_filter");
        assert!(matches!(reply(&filtered, &question(), TEXT).unwrap().said, Said::Refused(_)));
        for garbage in ["", "<html>", &body.to_string()[..40], "{\"error\":{\"message\":\"busy\"}}"] {
            assert!(matches!(reply(garbage, &question(), TEXT), Err(Defect::Garbage(_))), "{garbage}");
        }
        for other in ["{}", "[]", r#"{"choices":[]}"#, r#"{"choices":[{"index":0}]}"#] {
            assert!(matches!(reply(other, &question(), TEXT), Err(Defect::OtherFormat(_))), "{other}");
        }
        assert_eq!(error_message("{\"error\":{\"message\":\"busy\"}}").as_deref(), Some("busy"));
    }

    #[test]
    fn what_does_not_change_the_meaning_is_accepted() {
        let parts =
            json!([{"type": "thinking", "thinking": [{"type": "text", "text": "A"}]}, {"type": "text", "text": "B"}]);
        let answer = |content: Value, finish: Value, usage: Value| json!({"choices": [{"message": {"content": content}, "finish_reason": finish, "logprobs": {"content": [{"token": "B", "top_logprobs": null}]}}], "usage": usage});
        for (content, finish, usage, tokens) in [
            (parts, json!("stop"), json!(null), 0),
            (json!(["B"]), json!({"type": "stop"}), json!({"prompt_tokens": 5.0}), 5),
            (
                json!("B"),
                json!(null),
                json!({"prompt_tokens": null, "prompt_tokens_details": [{"modality": "TEXT"}]}),
                0,
            ),
            (json!("B"), json!(7), json!({"prompt_tokens": 5, "completion_tokens": -35}), 5),
        ] {
            let body = answer(content, finish, usage).to_string();
            let got = reply(&body, &question(), TEXT).unwrap();
            assert_eq!((got.said, got.prompt_tokens, got.new_tokens), (Said::Text("B".into()), tokens, 0), "{body}");
        }
    }

    #[test]
    fn an_answer_that_ended_in_its_reasoning_is_told_from_an_empty_one() {
        let said = |message: Value, finish: &str, usage: Value| {
            let body = json!({"choices": [{"message": message, "finish_reason": finish}], "usage": usage});
            reply(&body.to_string(), &question(), TEXT).unwrap().said
        };
        let unfinished = |text: &str| Said::Unfinished(text.into());
        assert_eq!(said(json!({"content": "<think>A"}), "length", json!(null)), unfinished("<think>A"));
        assert_eq!(said(json!({"content": null, "reasoning_content": "A is"}), "length", json!(null)), unfinished(""));
        let reasoned = json!({"completion_tokens_details": {"reasoning_tokens": 32}});
        assert_eq!(said(json!({"content": ""}), "length", reasoned), unfinished(""));
        assert_eq!(said(json!({"content": ""}), "length", json!(null)), Said::Text(String::new()));
        assert_eq!(said(json!({"content": "", "reasoning": "A"}), "stop", json!(null)), Said::Text(String::new()));
    }

    #[test]
    fn letters_within_reasoning_that_is_kept_apart_are_no_answer() {
        let said = |message: Value, finish: &str, logprobs: Value| {
            let choice = json!({"message": message, "finish_reason": finish, "logprobs": logprobs});
            reply(&json!({"choices": [choice]}).to_string(), &question(), LETTERS).map(|reply| reply.said)
        };
        let of = |token: &str| json!({"content": [{"token": token, "logprob": -0.1, "top_logprobs": []}]});
        let thinks = json!({"content": null, "reasoning_content": "A is"});
        for logprobs in [of("A"), json!({"content": []}), json!({"content": null}), json!(null)] {
            assert_eq!(said(thinks.clone(), "length", logprobs), Ok(Said::Unfinished(String::new())));
        }
        // A thought that came to its end, and an answer that was cut.
        let answers = json!({"content": "A", "reasoning_content": "A is"});
        assert!(matches!(said(answers, "stop", of("A")), Ok(Said::Letters(_))));
        assert!(matches!(said(json!({"content": "A. It"}), "length", of("A")), Ok(Said::Letters(_))));
    }

    #[test]
    fn a_parameter_that_is_refused_is_asked_for_otherwise() {
        let first = Manner::default();
        let second = first.after("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.").unwrap();
        assert!(second.completion_tokens && second.temperature);
        let third = second.after("Unsupported value: 'temperature' does not support 0 with this model.").unwrap();
        assert!(third.completion_tokens && !third.temperature);
        assert_eq!(third.after("Unsupported value: 'temperature'"), None);
        assert_eq!(first.after("max_tokens is too large: 9000"), None);
        let mut extra = Map::new();
        extra.insert("reasoning_effort".into(), json!("low"));
        extra.insert("model".into(), json!(null));
        let body: Value = serde_json::from_str(&body("m", &question(), TEXT, third, &extra)).unwrap();
        assert_eq!(body, json!({"messages": body["messages"], "max_completion_tokens": 9, "reasoning_effort": "low"}));
    }
}
