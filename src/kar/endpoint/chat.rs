//! The chat completions format: a question to a request's body, a response's body to a reply.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::kar::instruction::letter;
use crate::kar::model::{Question, Reply, Said, Wanted};

/// Most alternatives of a token that servers give.
const MOST_LOGPROBS: usize = 20;

/// What is wrong with a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Defect {
    /// It is no chat completion; the next one may be.
    Garbage(String),
    /// It has no log-probabilities, and no other response will.
    NoLogprobs,
}

/// The body of a request.
pub fn body(model: &str, question: &Question, wanted: Wanted) -> String {
    let prompt = &question.prompt;
    let mut messages = Vec::new();
    if !prompt.system.is_empty() {
        messages.push(json!({"role": "system", "content": prompt.system}));
    }
    messages.push(json!({"role": "user", "content": prompt.user}));
    let mut body = json!({"model": model, "messages": messages, "temperature": 0});
    match wanted {
        Wanted::Text { max_new_tokens } => body["max_tokens"] = json!(max_new_tokens),
        Wanted::Letters => {
            body["max_tokens"] = json!(1);
            body["logprobs"] = json!(true);
            body["top_logprobs"] = json!(MOST_LOGPROBS);
        }
    }
    body.to_string()
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Answer>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Answer {
    message: Content,
    #[serde(default)]
    finish_reason: Option<String>,
    #[serde(default)]
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    #[serde(default)]
    content: Option<Vec<Position>>,
}

#[derive(Deserialize)]
struct Position {
    #[serde(default)]
    top_logprobs: Vec<Alternative>,
}

#[derive(Deserialize)]
struct Alternative {
    token: String,
    logprob: f32,
}

#[derive(Default, Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: usize,
    #[serde(default)]
    completion_tokens: usize,
    #[serde(default)]
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<usize>,
}

/// What a response with status 200 says.
pub fn reply(body: &str, question: &Question, wanted: Wanted) -> Result<Reply, Defect> {
    let completion: Completion = serde_json::from_str(body).map_err(|e| {
        let what = error_message(body).unwrap_or_else(|| format!("{e}, in {:?}", excerpt(body)));
        Defect::Garbage(format!("is no chat completion: {what}"))
    })?;
    let answer = completion.choices.into_iter().next().ok_or(Defect::Garbage("has no `choices`".into()))?;
    let text = answer.message.content.unwrap_or_default();
    let said = match wanted {
        _ if answer.finish_reason.as_deref() == Some("content_filter") => {
            Said::Refused("the server's content filter withheld the answer".into())
        }
        Wanted::Text { .. } => Said::Text(text),
        Wanted::Letters => {
            let positions = answer.logprobs.and_then(|l| l.content).ok_or(Defect::NoLogprobs)?;
            let first = positions.first().map(|p| p.top_logprobs.as_slice()).unwrap_or_default();
            letters(first, question.options).map_or(Said::Text(text), Said::Letters)
        }
    };
    let usage = completion.usage.unwrap_or_default();
    let cached = usage.prompt_tokens_details.and_then(|d| d.cached_tokens).unwrap_or(0);
    Ok(Reply {
        said,
        prompt_tokens: usage.prompt_tokens,
        computed_tokens: usage.prompt_tokens.saturating_sub(cached),
        new_tokens: usage.completion_tokens,
    })
}

/// Log-probability of each option's letter; those that are not among the alternatives get the least one of them, which
/// theirs does not exceed. `None` if no letter is among them.
fn letters(alternatives: &[Alternative], options: usize) -> Option<Vec<f32>> {
    // With and without a space, as texts or as vocabularies write it.
    let bare = |token: &str| token.trim_start_matches(['\u{120}', '\u{2581}']).trim().to_string();
    let sum = |i: usize| {
        let own = alternatives.iter().filter(|a| bare(&a.token) == letter(i).to_string());
        let probability: f64 = own.map(|a| f64::from(a.logprob).exp()).sum();
        (probability > 0.0).then(|| probability.ln() as f32)
    };
    let found: Vec<Option<f32>> = (0..options).map(sum).collect();
    let least = alternatives.iter().map(|a| a.logprob).filter(|l| l.is_finite()).fold(0.0, f32::min);
    found.iter().any(Option::is_some).then(|| found.iter().map(|l| l.unwrap_or(least)).collect())
}

/// The server's own words about an error.
pub fn error_message(body: &str) -> Option<String> {
    let value: Value = serde_json::from_str(body).ok()?;
    let error = value.get("error")?;
    let message = error.get("message").or(error.get("detail")).unwrap_or(error);
    Some(excerpt(message.as_str().unwrap_or(&message.to_string())))
}

/// The beginning of a text, for messages.
pub fn excerpt(text: &str) -> String {
    const LENGTH: usize = 300;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LENGTH) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kar::instruction::Prompt;

    fn question() -> Question {
        let prompt = Prompt { system: String::new(), user: "who?".into(), reply: "Answer:".into() };
        Question { mention: "m".into(), group: 0, prompt, options: 3 }
    }

    const TEXT: Wanted = Wanted::Text { max_new_tokens: 9 };

    #[test]
    fn a_request_says_what_it_wants() {
        let body = |wanted| serde_json::from_str::<Value>(&body("model", &question(), wanted)).unwrap();
        let text = body(TEXT);
        assert_eq!(text["messages"], json!([{"role": "user", "content": "who?"}]));
        assert_eq!((&text["max_tokens"], &text["temperature"], text.get("logprobs")), (&json!(9), &json!(0), None));
        let letters = body(Wanted::Letters);
        assert_eq!((&letters["max_tokens"], &letters["top_logprobs"]), (&json!(1), &json!(20)));
    }

    #[test]
    fn a_response_gives_its_text_and_usage() {
        let body = json!({"id": "x", "choices": [{"message": {"role": "assistant", "content": "B"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 70, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 50}}});
        let got = reply(&body.to_string(), &question(), TEXT).unwrap();
        let want = Reply { said: Said::Text("B".into()), prompt_tokens: 70, computed_tokens: 20, new_tokens: 2 };
        assert_eq!(got, want);
        assert_eq!(reply(&body.to_string(), &question(), Wanted::Letters), Err(Defect::NoLogprobs));
        let empty = r#"{"choices":[{"message":{"content":null},"finish_reason":"length"}]}"#;
        assert_eq!(reply(empty, &question(), TEXT).unwrap().said, Said::Text(String::new()));
        let filtered = empty.replace("length", "content_filter");
        assert!(matches!(reply(&filtered, &question(), TEXT).unwrap().said, Said::Refused(_)));
        for garbage in
            ["", "<html>", "{}", r#"{"choices":[]}"#, &body.to_string()[..40], "{\"error\":{\"message\":\"busy\"}}"]
        {
            assert!(matches!(reply(garbage, &question(), TEXT), Err(Defect::Garbage(_))), "{garbage}");
        }
        assert_eq!(error_message("{\"error\":{\"message\":\"busy\"}}").as_deref(), Some("busy"));
    }

    #[test]
    fn letters_are_summed_over_their_tokens() {
        let with = |alternatives: Value| {
            let content = json!([{"token": "B", "logprob": -0.1, "top_logprobs": alternatives}]);
            json!({"choices": [{"message": {"content": "B"}, "logprobs": {"content": content}}]}).to_string()
        };
        let half = 0.5f32.ln();
        let listed = json!([{"token": "B", "logprob": half}, {"token": " B", "logprob": half - 1.0},
            {"token": "\u{120}A", "logprob": -3.0}, {"token": "The", "logprob": -4.0}, {"token": "b", "logprob": -5.5}]);
        let Said::Letters(logits) = reply(&with(listed), &question(), Wanted::Letters).unwrap().said else { panic!() };
        let want = [-3.0, (0.5 + 0.5 * (-1f32).exp()).ln(), -5.5];
        assert!(logits.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{logits:?}");
        let none = with(json!([{"token": "The", "logprob": -0.1}]));
        assert_eq!(reply(&none, &question(), Wanted::Letters).unwrap().said, Said::Text("B".into()));
    }
}
