//! `fissfuse rerank --fuse`: weights that are fitted on the validation split, and what they do to the test split.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::rerank::{MENTIONS, by_llama, by_server, world, write_llama};
use super::server::{Act, Server, good, letters};
use crate::support::{World, refuse, replace, run, succeed};

/// Mentions of the validation split, of which a sixth has its right entity behind the first five.
const VALID: usize = 60;

const MOVABLE: usize = 50;

/// The world of re-ranking with a validation split that is large enough, and a run file of it.
pub fn world_with_valid() -> World {
    let world = world();
    let mentions: Vec<Value> = (0..VALID).map(|i| World::mention("valid", i)).collect();
    world.write_lines("data/valid.jsonl", &mentions);
    let ranked = |mention: &Value| {
        let scores: Vec<f64> = (0..6).map(|i| 1.0 - 0.3 * i as f64).collect();
        json!({"mention_id": mention["mention_id"], "candidates": mention["candidates"], "scores": scores})
    };
    world.write_lines("valid-run.jsonl", &mentions.iter().map(ranked).collect::<Vec<_>>());
    world
}

pub fn fused(world: &World, server: &Server) -> Vec<&'static str> {
    let more = ["--scoring", "logits", "--fuse", world.arg("valid-run.jsonl")];
    [&by_server(world, server)[..], &more].concat()
}

/// The number of the letter at which a request lists what its sentence describes.
fn right(request: &str) -> Option<usize> {
    let colour = request.split("looks ").nth(1)?.split('.').next()?;
    ('A'..='E').position(|letter| request.contains(&format!("\\n{letter}. {colour} ")))
}

/// Probabilities that are highest at this letter.
fn mostly(at: usize) -> Act {
    let others = ('A'..='E').enumerate().filter(|(i, _)| *i != at).map(|(_, letter)| (letter, 0.1));
    letters(&[(char::from(b'A' + at as u8), 0.6)].into_iter().chain(others).collect::<Vec<_>>())
}

/// The number in a request's sentence.
fn number(request: &str) -> usize {
    request.split(" number ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// A model that is right three times in four and says the next letter otherwise.
fn knows(request: &str) -> Act {
    match right(request) {
        Some(at) if !number(request).is_multiple_of(4) => mostly(at),
        Some(at) => mostly((at + 1) % 5),
        None => mostly(0),
    }
}

pub fn knowing() -> Server {
    Server::acting([], knows)
}

fn report(world: &World) -> Value {
    serde_json::from_str(&fs::read_to_string(world.path("report.json")).unwrap()).unwrap()
}

fn candidates(world: &World, file: &str) -> Vec<Value> {
    world.read_lines(file).iter().map(|line| line["candidates"].clone()).collect()
}

#[test]
fn a_model_that_knows_is_weighed_and_makes_nothing_worse() {
    let world = world_with_valid();
    let server = knowing();
    let args = fused(&world, &server);
    let printed = succeed(&args);
    assert!(printed.contains("weights are fitted on 50 of 60 mentions of valid, and judged in 5 folds"), "{printed}");
    assert!(printed.contains("with the model, mean change and 95 % interval: H@1 +"), "{printed}");
    // What is expected is said before the test split is asked about.
    assert!(printed.find("weights are fitted").unwrap() < printed.find("10 mentions, the first 5").unwrap());
    assert_eq!(server.calls(), MOVABLE + MENTIONS);
    let report = report(&world);
    let fusion = &report["fusion"];
    assert!(fusion["weights"]["model"].as_f64().unwrap() > 0.5 && fusion["reason"].is_null(), "{fusion}");
    assert_eq!((&fusion["fitted"], &fusion["mentions"]), (&json!(MOVABLE), &json!(VALID)));
    assert!(fusion["likelihood"]["interval"]["low"].as_f64().unwrap() > 0.0);
    for metric in ["H@1", "MRR"] {
        let [before, after] = ["before", "after"].map(|when| report[when][metric].as_f64().unwrap());
        assert!(after > before, "{metric}: {before} {after}");
    }
    assert_eq!(report["by_letter"].as_array().unwrap().len(), 5);
    // Again, all is in the journal, and the result has the same bits.
    let before = fs::read(world.path("new.jsonl")).unwrap();
    let printed = succeed(&args);
    assert!(printed.contains("0 calls, 50 more in the journal") && server.calls() == MOVABLE + MENTIONS, "{printed}");
    assert!(fs::read(world.path("new.jsonl")).unwrap() == before);
}

#[test]
fn a_run_that_stopped_while_weights_were_fitted_goes_on() {
    let world = world_with_valid();
    let whole = {
        let server = knowing();
        succeed(&fused(&world, &server));
        fs::remove_file(world.path("new.jsonl.journal.jsonl")).unwrap();
        fs::read(world.path("new.jsonl")).unwrap()
    };
    let calls = AtomicUsize::new(0);
    let server = Server::acting([], move |request| match calls.fetch_add(1, Ordering::SeqCst) {
        ..30 => knows(request),
        _ => Act::Say(401, "{}".into(), ""),
    });
    refuse(&[&fused(&world, &server)[..], &["--concurrency", "1"]].concat(), &["status 401"]);
    let journal = fs::read_to_string(world.path("new.jsonl.journal.jsonl")).unwrap();
    let answered = journal.lines().count() - 1;
    assert_eq!(answered, 30);
    // The same server at its new port.
    let other = knowing();
    let port = |url: &str| url.rsplit(':').next().unwrap().split('/').next().unwrap().to_string();
    let moved = journal.replacen(&port(&server.url), &port(&other.url), 1);
    fs::write(world.path("new.jsonl.journal.jsonl"), moved).unwrap();
    succeed(&fused(&world, &other));
    assert_eq!(other.calls(), MOVABLE + MENTIONS - answered);
    assert!(fs::read(world.path("new.jsonl")).unwrap() == whole);
}

#[test]
fn a_model_without_weight_is_not_asked_about_the_test_split() {
    // One that answers at random, by what has to do with nothing; and one that likes A.
    let random = Server::acting([], |request| mostly(number(request) * number(request) / 3 % 5));
    let likes_a = Server::acting([], |_| mostly(0));
    for server in [random, likes_a] {
        let world = world_with_valid();
        let printed = succeed(&fused(&world, &server));
        assert!(printed.contains("the model counts 0, and nothing is asked or moved: "), "{printed}");
        assert!(printed.contains("10 mentions keep their ranking: the model's answers have no weight"), "{printed}");
        assert_eq!(server.calls(), MOVABLE);
        assert_eq!(candidates(&world, "new.jsonl"), candidates(&world, "run.jsonl"));
        assert!(world.read_lines("new.jsonl").iter().all(|line| line["kar"] == "weightless"));
        let report = report(&world);
        assert_eq!(report["fusion"]["weights"]["model"], json!(0.0));
        assert_eq!((&report["before"], &report["weightless"]), (&report["after"], &json!(MENTIONS)));
    }
}

#[test]
fn a_random_llama_has_no_weight_and_moves_nothing_and_so_again_from_its_journal() {
    let world = world_with_valid();
    write_llama(&world);
    let more = ["--least-share", "0", "--order", "shuffled", "--fuse", world.arg("valid-run.jsonl")];
    let args = [&by_llama(&world)[..], &more].concat();
    for calls in ["50 calls, 0 more", "0 calls, 50 more"] {
        let printed = succeed(&args);
        assert!(printed.contains(calls) && printed.contains("the model counts 0"), "{printed}");
        assert_eq!(candidates(&world, "new.jsonl"), candidates(&world, "run.jsonl"));
    }
    // Letters that it would not say are nothing to fit by.
    fs::remove_file(world.path("new.jsonl.journal.jsonl")).unwrap();
    let share = replace(args, "--least-share", "0.1");
    refuse(&share, &["0 of 60 drawn mentions", "50 answers do not begin with a letter", "--least-share"]);
}

#[test]
fn options_in_another_order_are_other_questions_and_weighed_the_same() {
    let world = world_with_valid();
    let server = knowing();
    let args = fused(&world, &server);
    for order in ["worst-first", "shuffled"] {
        let printed = succeed(&[&args[..], &["--order", order, "--seed", "3", "--fuse-mentions", "40"]].concat());
        assert!(printed.contains(&format!("by letter (options {order})")), "{printed}");
        let report = report(&world);
        assert_eq!((&report["settings"]["order"], &report["fusion"]["mentions"]), (&json!(order), &json!(40)));
        assert!(report["fusion"]["weights"]["model"].as_f64().unwrap() > 0.0, "{report}");
        assert!(report["after"]["MRR"].as_f64() >= report["before"]["MRR"].as_f64());
    }
    let first = ["--show-prompt", "--order", "worst-first"];
    let printed = succeed(&[&by_server(&world, &server)[..], &first].concat());
    // The sixth is not among the first five.
    assert!(printed.contains("A. black ball: a ball\nB. yellow ball"), "{printed}");
}

#[test]
fn what_weights_cannot_be_fitted_on_is_named_before_anything_is_asked() {
    let world = world_with_valid();
    let server = Server::new([]);
    let args = fused(&world, &server);
    let text = replace(args.clone(), "--scoring", "generate");
    refuse(&text, &["--scoring logits", "leave out --fuse"]);
    let valid = world.arg("valid-run.jsonl");
    refuse(&[&by_server(&world, &server)[..], &["--fuse", valid]].concat(), &["add --scoring logits"]);
    refuse(&[&args[..], &["--fuse-split", "test"]].concat(), &["--fuse-split and --split are both test"]);
    refuse(&[&args[..], &["--fuse-split", "train"]].concat(), &["valid-run.jsonl:1", "mention `valid-0`"]);
    assert_eq!(run(&[&args[..], &["--debias"]].concat()).status.code(), Some(2));
    for flag in [["--fuse-mentions", "9"], ["--fuse-split", "train"]] {
        assert_eq!(run(&[&by_server(&world, &server)[..], &flag].concat()).status.code(), Some(2));
    }
    assert_eq!(run(&[&by_server(&world, &server)[..], &["--allow-worse"]].concat()).status.code(), Some(2));
    refuse(&[&args[..], &["--fuse-mentions", "15"]].concat(), &["of 15 drawn mentions", "20 are needed"]);
    refuse(&replace(args.clone(), "--out", valid), &["--out is what --fuse reads"]);
    let lines = world.read_lines("valid-run.jsonl");
    // No line, too few lines, none with what is right, and scores for some.
    fs::write(world.path("valid-run.jsonl"), "").unwrap();
    refuse(&args, &["valid-run.jsonl", "holds no ranking"]);
    world.write_lines("valid-run.jsonl", &lines[..12]);
    refuse(&args, &["10 of 12 drawn mentions", "20 are needed", "10 have their gold entity among the first 5"]);
    let mut wrong = lines.clone();
    wrong.iter_mut().for_each(|line| (line["candidates"], line["scores"]) = (json!(["Q11", "Q10"]), json!([2, 1])));
    let keep: Vec<Value> = wrong.iter().enumerate().filter(|(i, _)| (i + 5) % 6 < 5).map(|(_, l)| l.clone()).collect();
    world.write_lines("valid-run.jsonl", &keep);
    refuse(&args, &["0 of 50 drawn mentions", "0 have their gold entity", "raise --k"]);
    let mut mixed = lines.clone();
    drop(mixed[7].as_object_mut().unwrap().remove("scores"));
    world.write_lines("valid-run.jsonl", &mixed);
    refuse(&args, &["`scores`", "for all mentions of both run files, or for none"]);
    world.write_lines("valid-run.jsonl", &lines);
    let run = fs::read(world.path("run.jsonl")).unwrap();
    let mut unscored = world.read_lines("run.jsonl");
    drop(unscored[3].as_object_mut().unwrap().remove("scores"));
    world.write_lines("run.jsonl", &unscored);
    refuse(&args, &["mention `test-3`", "no `scores`", "for all mentions of both run files, or for none"]);
    fs::write(world.path("run.jsonl"), run).unwrap();
    let mut mentions = world.read_lines("data/valid.jsonl");
    mentions.iter_mut().for_each(|mention| drop(mention.as_object_mut().unwrap().remove("gold")));
    let with_gold = fs::read(world.path("data/valid.jsonl")).unwrap();
    world.write_lines("data/valid.jsonl", &mentions);
    refuse(&args, &["none of its 60 mentions has a gold entity"]);
    assert_eq!(server.calls(), 0);
    fs::write(world.path("data/valid.jsonl"), with_gold).unwrap();
    // A server without log-probabilities; and one whose letters are no numbers.
    refuse(&args, &["no log-probabilities"]);
    let nothing = Server::acting([], |_| Act::Say(200, good_without_letters(), ""));
    refuse(&fused(&world, &nothing), &["answers do not begin with a letter", "--least-share"]);
}

/// Log-probabilities that are null.
fn good_without_letters() -> String {
    let Act::Say(_, body, _) = good("A") else { unreachable!() };
    let mut body: Value = serde_json::from_str(&body).unwrap();
    body["choices"][0]["logprobs"]["content"] = json!([{"token": "A", "logprob": null, "top_logprobs": []}]);
    body.to_string()
}

#[test]
fn a_prior_that_explains_more_than_the_answers_is_said() {
    let world = world();
    let server = Server::acting([], |_| mostly(0));
    let args = [&by_server(&world, &server)[..], &["--scoring", "logits", "--debias=1"]].concat();
    let printed = succeed(&args);
    assert!(printed.contains("WARNING: letters explain 100.0 % of what the model says, options 0.0 %"), "{printed}");
    let report = report(&world);
    assert_eq!(report["debias_sample"]["mentions"], json!(MENTIONS));
}
