//! The endpoint against a server that is down, slow, throttles, or answers garbage.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fissfuse::kar::Prompt;
use fissfuse::kar::endpoint::{Endpoint, EndpointSettings};
use fissfuse::kar::model::{LanguageModel, Question, Said, Wanted};
use fissfuse::{Error, Result};
use serde_json::{Map, Value, json};

use super::server::{Act, KEY, Server, good, status};

fn settings(url: &str) -> EndpointSettings {
    EndpointSettings {
        url: url.into(),
        model: "m".into(),
        key: Some(KEY.into()),
        concurrency: 1,
        timeout: Duration::from_secs(20),
        retries: 3,
        backoff: Duration::from_millis(2),
        body: Map::new(),
        headers: Vec::new(),
        authorities: None,
    }
}

fn questions(n: usize) -> Vec<Question> {
    let prompt = |i| Prompt { system: "s".into(), user: format!("question {i}"), reply: String::new() };
    (0..n)
        .map(|i| Question { mention: format!("m{i}"), group: i, prompt: prompt(i), options: 2, answered: false })
        .collect()
}

/// What is heard, in order, and how it ended.
fn ask(settings: EndpointSettings, n: usize) -> (Vec<(usize, Said)>, Result<()>) {
    let mut heard = Vec::new();
    let result =
        Endpoint::new(settings).unwrap().answer(&questions(n), Wanted::Text { max_new_tokens: 4 }, &mut |i, reply| {
            heard.push((i, reply.said));
            Ok(())
        });
    (heard, result)
}

#[test]
fn answers_come_through_with_the_key_in_its_header_only() {
    let server = Server::new([good("B"), good("")]);
    let (heard, result) = ask(settings(&server.url), 2);
    result.unwrap();
    assert_eq!(heard, [(0, Said::Text("B".into())), (1, Said::Text(String::new()))]);
    let requests = server.requests.lock().unwrap();
    assert!(requests[0].starts_with("POST /v1/chat/completions HTTP/1.1") && requests[0].contains("question 0"));
    assert_eq!(requests[0].matches(KEY).count(), 1);
    assert!(requests[0].to_lowercase().contains("authorization: bearer sk-precious"));
    drop(requests);
    let mut endpoint = Endpoint::new(settings(&format!("{}?secret=1", server.url))).unwrap();
    endpoint.answer(&questions(1), Wanted::Text { max_new_tokens: 4 }, &mut |_, _| Ok(())).unwrap();
    assert!(server.requests.lock().unwrap()[2].starts_with("POST /v1/chat/completions?secret=1 "));
    assert!(!endpoint.identity().contains("secret"));
}

#[test]
fn what_may_go_better_the_next_time_is_tried_again() {
    let garbage = Act::Say(200, "<html>busy</html>".into(), "");
    for trouble in [status(500, ""), status(503, ""), status(429, ""), Act::Half, Act::Nothing, garbage] {
        let server = Server::new([trouble.clone(), trouble, good("B")]);
        let (heard, result) = ask(settings(&server.url), 1);
        result.unwrap();
        assert_eq!((heard, server.calls()), (vec![(0, Said::Text("B".into()))], 3));
    }
    // As long as the server says.
    let server = Server::new([status(429, "Retry-After: 0.3\r\n"), good("B")]);
    let start = Instant::now();
    ask(settings(&server.url), 1).1.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
    // But not for ever.
    let server = Server::new([status(429, "Retry-After: 999999999\r\n"), good("B")]);
    let error = ask(settings(&server.url), 1).1.unwrap_err().to_string();
    assert!(error.contains("a wait of 999999999 s") && error.contains("120 s are the longest"), "{error}");
    // Slower than allowed.
    let server = Server::new([Act::Sleep(Duration::from_millis(900)), good("B")]);
    let impatient = EndpointSettings { timeout: Duration::from_millis(300), ..settings(&server.url) };
    let (heard, result) = ask(impatient, 1);
    result.unwrap();
    assert_eq!(heard, [(0, Said::Text("B".into()))]);
}

#[test]
fn what_does_not_get_better_ends_the_run_and_keeps_the_answers() {
    let server =
        Server::new([good("B"), good("A"), status(500, ""), status(500, ""), status(500, ""), status(500, "")]);
    let (heard, result) = ask(settings(&server.url), 9);
    let error = result.unwrap_err().to_string();
    assert_eq!((heard.len(), server.calls()), (2, 6));
    for says in ["/v1/chat/completions", "mention `m2`", "status 500: no, ***", "gave up after 4 calls", "go on"] {
        assert!(error.contains(says), "{error:?} lacks {says:?}");
    }
    for code in [401, 403, 404, 302] {
        let server = Server::new([status(code, "")]);
        let error = ask(settings(&server.url), 3).1.unwrap_err().to_string();
        assert!(error.contains(&format!("status {code}")) && !error.contains(KEY) && server.calls() == 1, "{error}");
    }
    let moved = status(308, "Location: https://me:pw@y/v2?key=1\r\n");
    let server = Server::new([moved]);
    let error = ask(settings(&server.url), 1).1.unwrap_err().to_string();
    assert!(error.contains("redirects to https://y/v2, where") && server.calls() == 1, "{error}");
    // Nobody listens.
    let gone = Server::new([]).url.clone();
    let error = ask(settings(&gone), 1).1.unwrap_err().to_string();
    assert!(error.contains("no answer") && error.contains("gave up after 4 calls"), "{error}");
    // Another format stays another format.
    let server = Server::new(vec![Act::Say(200, r#"{"output":"B"}"#.into(), ""); 4]);
    let error = ask(settings(&server.url), 1).1.unwrap_err().to_string();
    assert!(error.contains("no `choices`") && server.calls() == 1, "{error}");
    let garbled = Act::Say(200, "{\"choices\": [".into(), "");
    let server = Server::new(vec![garbled; 4]);
    let error = ask(settings(&server.url), 1).1.unwrap_err().to_string();
    assert!(error.contains("is no chat completion"), "{error}");
}

#[test]
fn a_question_that_the_server_refuses_stops_no_other() {
    let server = Server::new([status(400, ""), good("B")]);
    let (heard, result) = ask(settings(&server.url), 2);
    result.unwrap();
    assert_eq!(heard, [(0, Said::Refused("status 400: no, ***".into())), (1, Said::Text("B".into()))]);
}

#[test]
fn no_more_questions_are_under_way_than_allowed() {
    let server = Server::new(vec![Act::Say(200, r#"{"choices":[{"message":{"content":"A"}}]}"#.into(), ""); 40]);
    let (mut heard, result) = ask(EndpointSettings { concurrency: 3, ..settings(&server.url) }, 40);
    result.unwrap();
    heard.sort_by_key(|(i, _)| *i);
    assert!(heard.len() == 40 && heard.iter().enumerate().all(|(i, (j, _))| i == *j));
    assert!(server.most_at_once.load(Ordering::SeqCst) <= 3);
}

#[test]
fn an_error_of_the_listener_ends_the_run() {
    let server = Server::new([]);
    let mut endpoint = Endpoint::new(settings(&server.url)).unwrap();
    let full = &mut |_, _| Err(Error::invalid("disk full"));
    let result = endpoint.answer(&questions(50), Wanted::Text { max_new_tokens: 1 }, full);
    assert!(result.unwrap_err().to_string().contains("disk full") && server.calls() < 10);
}

#[test]
fn a_key_that_no_header_may_have_is_refused_and_not_repeated() {
    let bad_key = EndpointSettings { key: Some("a\nb".into()), ..settings("http://x") };
    assert!(!Endpoint::new(bad_key).err().unwrap().to_string().contains("a\nb"));
}

#[test]
fn a_server_that_echoes_the_key_gives_it_away_nowhere() {
    let cut = format!("Incorrect API key provided: {}...", &KEY[..9]);
    let server =
        Server::new([good(&format!("B. Your key is {KEY}")), Act::Say(400, json!({"error": cut}).to_string(), "")]);
    let (heard, result) = ask(settings(&server.url), 2);
    result.unwrap();
    assert_eq!(heard[0].1, Said::Text("B. Your key is ***".into()));
    assert_eq!(heard[1].1, Said::Refused("status 400: Incorrect API key provided: ***...".into()));
    let escape = json!({"error": {"message": format!("\u{1b}[2Jno\u{202e} {}", "x".repeat(5000))}});
    let server = Server::new([Act::Say(403, escape.to_string(), "")]);
    let error = ask(settings(&server.url), 1).1.unwrap_err().to_string();
    assert!(
        !error.contains(['\u{1b}', '\u{202e}']) && error.len() < 800 && error.contains("status 403: no xxx"),
        "{error}"
    );
}

#[test]
fn a_server_that_wants_to_be_asked_at_once_is_not() {
    let server = Server::new(vec![status(429, "Retry-After: 0\r\n"); 3]);
    let patient = EndpointSettings { backoff: Duration::from_millis(200), ..settings(&server.url) };
    let start = Instant::now();
    ask(patient, 1).1.unwrap();
    // Half of 200, 400 and 800 ms at least.
    assert!(start.elapsed() >= Duration::from_millis(700) && server.calls() == 4);
}

#[test]
fn a_newer_model_is_asked_as_it_wants_to_be() {
    let refusal = |text: &str| Act::Say(400, json!({"error": {"message": text}}).to_string(), "");
    let server = Server::new([
        refusal(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        ),
        refusal("Unsupported value: 'temperature' does not support 0 with this model."),
        good("B"),
        good("B"),
    ]);
    let body = json!({"reasoning_effort": "low", "model": "other"}).as_object().unwrap().clone();
    let headers = vec![("X-Team".to_string(), "linking".to_string())];
    let (heard, result) = ask(EndpointSettings { body, headers, ..settings(&server.url) }, 2);
    result.unwrap();
    assert!(heard.len() == 2 && server.calls() == 4, "the second question is asked once");
    let requests = server.requests.lock().unwrap();
    for (i, has) in
        [(0, [true, false, true]), (1, [false, true, true]), (2, [false, true, false]), (3, [false, true, false])]
    {
        let body: Value = serde_json::from_str(&requests[i][requests[i].find('{').unwrap()..]).unwrap();
        assert_eq!(["max_tokens", "max_completion_tokens", "temperature"].map(|name| body.get(name).is_some()), has);
        assert_eq!((&body["reasoning_effort"], &body["model"]), (&json!("low"), &json!("other")));
        assert!(requests[i].to_lowercase().contains("x-team: linking"));
    }
}

#[test]
fn settings_of_requests_that_cannot_be_sent_are_refused() {
    let refused = |settings: EndpointSettings| Endpoint::new(settings).err().unwrap().to_string();
    let with = |name: &str, value: &str| EndpointSettings {
        headers: vec![(name.into(), value.into())],
        ..settings("http://x")
    };
    assert!(refused(with("a b", "c")).contains("--header") && refused(with("a", "b\nc")).contains("--header"));
    let body = json!({"messages": []}).as_object().unwrap().clone();
    assert!(refused(EndpointSettings { body, ..settings("http://x") }).contains("--body"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let with_file = || EndpointSettings { authorities: Some(file.clone()), ..settings("https://x") };
    assert!(refused(with_file()).contains("ca.pem: cannot read"));
    std::fs::write(&file, "no certificate").unwrap();
    assert!(refused(with_file()).contains("holds no certificate"));
    let forever = EndpointSettings { timeout: Duration::from_secs(u64::MAX), ..settings("http://x") };
    assert!(Endpoint::new(forever).is_ok());
}
