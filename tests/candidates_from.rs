//! First stages that ask an index or a vector database, and what is said where one is not what it should be.

#[cfg(feature = "milvus")]
mod milvus;
mod qdrant;
#[cfg(feature = "usearch")]
mod usearch;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use self::qdrant::{Kept, Qdrant, State, error};
use crate::kar::server::Act;
use crate::support::{ENTITIES, World, fissfuse, refuse, refused, replace, run, succeed};

/// `fissfuse index push` with its arguments.
fn push(world: &World, place: &'static str) -> Vec<&'static str> {
    let paths = ["--data", world.arg("data"), "--features", world.arg("features"), "--model", world.arg("model")];
    [&["index", "push"][..], &paths, &["--to", place, "--device", "cpu"]].concat()
}

/// `fissfuse eval` of the whole knowledge base by lists of `length` from this place, with its arguments.
fn eval(world: &World, out: &str, place: &'static str, length: &'static str) -> Vec<&'static str> {
    let lists = ["--protocol", "whole-kb", "--shortlist", length, "--candidates-from", place, "--device", "cpu"];
    [&world.eval(out)[..], &lists].concat()
}

fn metrics(world: &World, out: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(world.path(out).join("metrics.json")).unwrap()).unwrap()
}

#[test]
fn lists_of_a_database_are_those_of_a_scan() {
    let world = World::trained();
    let qdrant = Qdrant::new();
    qdrant.set(|state| state.key = Some("sk-precious"));
    let place = qdrant.place("kb-1");
    refuse(&push(world, place), &["status 401", "QDRANT_API_KEY"]);
    let keyed = |args: &[&str]| {
        let output = fissfuse(args).env("QDRANT_API_KEY", "sk-precious").output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
        printed
    };
    assert!(keyed(&push(world, place)).contains("12 vectors of 48 numbers"));
    let kept = qdrant.kept("kb-1").unwrap();
    assert_eq!((kept.points.len(), kept.points[&3].1.clone()), (ENTITIES, Value::Null));
    assert_eq!(kept.points[&0].1["fissfuse"]["whole"], true);
    assert!(keyed(&push(world, place)).contains("already"));
    for (out, from) in [("from-scan", "scan"), ("from-int8", "scan:int8"), ("from-qdrant", place)] {
        let printed = keyed(&[&eval(world, out, from, "5")[..], &["--min-recall", "0"]].concat());
        let exact =
            printed.contains("it holds 100.00 % of the entities that a scan in f32 lists, in the mean of 10 mentions");
        assert_eq!(exact, from != "scan", "{printed}");
        let (metrics, scan) = (metrics(world, out), metrics(world, "from-scan"));
        assert_eq!((&metrics["mean"], &metrics["per_score"]), (&scan["mean"], &scan["per_score"]));
        assert_eq!(metrics["whole_kb"]["candidates_from"], from);
        assert_eq!(world.read_lines(&format!("{out}/run.jsonl")), world.read_lines("from-scan/run.jsonl"));
    }
    world.write_lines(
        "db-asked.jsonl",
        &[0, 1, 2].map(|i| {
            let mut mention = World::mention("test", i);
            mention.as_object_mut().unwrap().remove("candidates");
            mention
        }),
    );
    let link = |from: &'static str| {
        let lists =
            ["--shortlist", "6", "--min-recall", "0", "--candidates-from", from, "--batch", "3", "--device", "cpu"];
        keyed(&[&world.link()[..], &["--input", world.arg("db-asked.jsonl")], &lists].concat())
    };
    assert_eq!(link(place), link("scan"));
}

#[test]
fn an_index_is_asked_alone_and_its_lists_are_a_run_file() {
    let world = World::trained();
    let qdrant = Qdrant::new();
    let place = qdrant.place("kb");
    succeed(&push(world, place));
    let query = |from: &'static str, more: &[&'static str]| {
        let query =
            [&["index", "query"][..], &push(world, from)[2..8], &["--from", from, "--top", "4", "--device", "cpu"]];
        [&query.concat()[..], more].concat()
    };
    let out = ["--out", world.arg("found.jsonl")];
    let printed = succeed(&query(place, &out));
    assert!(printed.contains("4 of 12 entities for each of 10 mentions") && printed.contains("100.00 %"), "{printed}");
    let found = world.read_lines("found.jsonl");
    assert!(found.len() == 10 && found.iter().all(|line| line["candidates"].as_array().unwrap().len() == 4));
    succeed(&["eval", "--data", world.arg("data"), "--ranking", world.arg("found.jsonl")]);
    for from in ["scan", "scan:int8"] {
        succeed(&query(from, &["--out", world.arg("scanned.jsonl")]));
        let numbers = |lines: &[Value]| lines.iter().map(|line| line["candidates"].clone()).collect::<Vec<_>>();
        assert_eq!(numbers(&world.read_lines("scanned.jsonl")), numbers(&found), "{from}");
    }
    qdrant.set(|state| state.backwards = true);
    refuse(&query(place, &["--out", world.arg("never.jsonl")]), &["below --min-recall 0.99", "--search-breadth"]);
    assert!(!world.path("never.jsonl").exists());
    refuse(&replace(query(place, &[]), "--top", "13"), &["the knowledge base has 12 entities"]);
}

#[test]
fn lists_that_miss_too_much_are_refused() {
    let world = World::trained();
    let qdrant = Qdrant::new();
    let place = qdrant.place("kb");
    succeed(&push(world, place));
    qdrant.set(|state| state.backwards = true);
    refuse(&eval(world, "missed", place, "3"), &["below --min-recall 0.99"]);
    // What lists all but the nearest holds the whole model's first entity no more often than chance has it.
    let printed = succeed(&[&eval(world, "farthest", place, "3")[..], &["--min-recall", "0"]].concat());
    let share: f64 = printed.split("it holds ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(share < 50.0, "{printed}");
    assert!(metrics(world, "farthest")["whole_kb"]["recall"]["of_exact"].as_f64().unwrap() < 0.5);
    for (change, says) in [
        (Box::new(|state: &mut State| state.short = 1) as Box<dyn Fn(&mut State)>, "it finds 2 entities instead of 3"),
        (Box::new(|state: &mut State| (state.short, state.shift) = (0, 99)), "of 12 vectors"),
    ] {
        qdrant.set(|state| change(state));
        refuse(&[&eval(world, "missed", place, "3")[..], &["--min-recall", "0"]].concat(), &["searching it", says]);
    }
    assert!(!world.path("missed").exists(), "nothing is written");
}

#[test]
fn a_collection_of_something_else_is_neither_read_nor_replaced() {
    let world = World::trained();
    let qdrant = Qdrant::new();
    let place = qdrant.place("kb");
    refuse(&eval(world, "never", place, "3"), &["collection `kb` of Qdrant at http://127.0.0.1", "index push"]);
    // Somebody's own collection.
    let created = json!({"vectors": {"size": 48, "distance": "Dot"}});
    let points = BTreeMap::from([(0, (vec![0.5; 48], json!({"city": "Berlin"})))]);
    qdrant.set(|state| drop(state.collections.insert("kb".into(), Kept { created, points })));
    for args in
        [push(world, place), [&push(world, place)[..], &["--replace"]].concat(), eval(world, "never", place, "3")]
    {
        refuse(&args, &["is none that FissFuse made", "no mark of FissFuse"]);
    }
    assert_eq!(qdrant.kept("kb").unwrap().points.len(), 1);
    let created = json!({"vectors": {"size": 48, "distance": "Cosine"}});
    qdrant.set(|state| drop(state.collections.insert("cosine".into(), Kept { created, points: BTreeMap::new() })));
    refuse(&push(world, qdrant.place("cosine")), &["not compared by their dot product"]);
    // An index of another model, of another width, of another knowledge base.
    let other = world.copy();
    let train = replace(other.train(), "--out", other.arg("other"));
    succeed(&[&train[..], &["--epochs", "1", "--seed", "5"]].concat());
    let with = |world: &World, flag: &str, value: &'static str| replace(push(world, qdrant.place("mine")), flag, value);
    succeed(&push(world, qdrant.place("mine")));
    let of_other = with(&other, "--model", other.arg("other"));
    refuse(&of_other, &["holds an index of another model", "--replace"]);
    let wide = other.copy();
    let train = replace(wide.train(), "--d", "20");
    let train = replace(train, "--out", wide.arg("wide"));
    succeed(&[&train[..], &["--epochs", "1"]].concat());
    refuse(&with(&wide, "--model", wide.arg("wide")), &["holds an index of another model"]);
    let mut asked = eval(&other, "never", qdrant.place("mine"), "3");
    asked = replace(asked, "--model", other.arg("other"));
    refuse(&asked, &["holds an index of another model", "index push --replace"]);
    other.change_line("data/entities.jsonl", 3, |entity| entity["image"] = Value::Null);
    refuse(&push(&other, qdrant.place("mine")), &["holds an index of another knowledge base"]);
    assert_eq!(qdrant.kept("mine").unwrap().points[&0].1["fissfuse"]["whole"], true);
    succeed(&[&of_other[..], &["--replace"]].concat());
    refuse(&eval(world, "never", qdrant.place("mine"), "3"), &["of another"]);
    assert!(!world.path("never").exists());
}

#[test]
fn a_database_that_is_down_slow_full_or_another_program_is_said_to_be() {
    let world = World::trained();
    let qdrant = Qdrant::new();
    let place = qdrant.place("kb");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down: &'static str = format!("qdrant://{closed}/kb").leak();
    for args in [push(world, down), eval(world, "never", down, "3")] {
        refuse(&args, &["no answer", "is the server running, and is this its address?"]);
    }
    let slow = |args: Vec<&'static str>| [&args[..], &["--database-timeout", "1"]].concat();
    qdrant.set(|state| state.script = vec![Act::Sleep(Duration::from_secs(3))]);
    refuse(&slow(push(world, place)), &["no answer within 1 s", "--database-timeout"]);
    // Full in the middle: what was written is taken back.
    qdrant.set(|state| state.room = Some(7));
    refuse(&push(world, place), &["adding points from number 0 on", "No space left on device", "free disk or memory"]);
    assert!(qdrant.kept("kb").is_none());
    qdrant.set(|state| state.room = None);
    // Busy for a moment.
    qdrant.set(|state| state.script = vec![error(429, "Too many requests"), error(503, "starting")]);
    succeed(&push(world, place));
    // Another program answers, or none that speaks HTTP.
    for (act, says) in [
        (Act::Say(200, "<html>hello</html>".into(), ""), "its answer is none of Qdrant"),
        (
            Act::Say(302, String::new(), "Location: https://me:pw@elsewhere/x?key=1\r\n"),
            "redirects to \"https://elsewhere/x\"",
        ),
        (Act::Half, "half an answer"),
        (Act::Nothing, "no answer"),
        (error(400, "Wrong input: \u{1b}[2Jno"), "status 400: Wrong input: no"),
    ] {
        qdrant.set(|state| state.script = vec![act]);
        refuse(&eval(world, "never", place, "3"), &[says]);
    }
    // A run that was killed left half of it; points were lost later.
    qdrant.set(|state| state.reached("kb").unwrap().points.get_mut(&0).unwrap().1["fissfuse"]["whole"] = json!(false));
    refuse(&eval(world, "never", place, "3"), &["is half full", "run it again"]);
    succeed(&push(world, place));
    qdrant.set(|state| drop(state.reached("kb").unwrap().points.remove(&4)));
    refuse(&eval(world, "never", place, "3"), &["holds 11 vectors instead of 12"]);
    succeed(&push(world, place));
    // A collection that somebody else has just made, or an older version that was killed before its first vectors.
    qdrant.set(|state| {
        let of = state.aliases.remove("kb").unwrap();
        let kept = state.collections.remove(&of).unwrap();
        state.collections.insert("kb".into(), Kept { points: BTreeMap::new(), ..kept });
    });
    refuse(&eval(world, "never", place, "3"), &["is empty and has no mark", "index push --replace"]);
    refuse(&push(world, place), &["is empty and has no mark", "--replace fills it"]);
    succeed(&[&push(world, place)[..], &["--replace"]].concat());
    succeed(&eval(world, "restored", place, "12"));
    assert!(!world.path("never").exists());
}

#[test]
fn an_index_answers_until_the_one_that_replaces_it_is_whole() {
    let world = World::trained();
    let qdrant = Qdrant::new();
    let place = qdrant.place("kb");
    succeed(&push(world, place));
    let [one, two] = ["kb_fissfuse_1", "kb_fissfuse_2"];
    assert_eq!(qdrant.names(), [one]);
    let other = world.copy();
    other.change_line("data/entities.jsonl", 3, |entity| entity["image"] = Value::Null);
    let with = |world: &World, more: &[&'static str]| [&push(world, place)[..], more].concat();
    let replacing = with(&other, &["--replace"]);
    let answers = |world: &World, out: &str| succeed(&eval(world, out, place, "12"));
    // A server that is full, or that fails in the middle: the old one answers, and nothing else is left.
    for (room, script, says) in [
        (Some(7), vec![], "No space left on device"),
        (None, vec![error(400, "Wrong input: no")], "Wrong input: no"),
        (None, vec![], "aliases stay as they are"),
    ] {
        qdrant
            .set(|state| (state.room, state.aliases_stay, state.script) = (room, says.starts_with("aliases"), script));
        refuse(&replacing, &[says]);
        qdrant.set(|state| (state.room, state.aliases_stay) = (None, false));
        answers(world, "old-answers");
        assert_eq!(qdrant.kept("kb").unwrap().points.len(), ENTITIES, "{says}");
        // What is whole waits to be put in its place.
        assert_eq!(qdrant.names().contains(&two.to_string()), says.starts_with("aliases"), "{says}");
    }
    // Which the same command does: no vector is sent again.
    qdrant.set(|state| state.room = Some(0));
    assert!(succeed(&replacing).contains("already"));
    assert_eq!(qdrant.names(), [two]);
    qdrant.set(|state| state.room = None);
    answers(&other, "new-answers");
    refuse(&eval(world, "never", place, "3"), &["holds an index of another knowledge base"]);
    // There and back, over what a run left that was killed.
    let mut half = qdrant.kept("kb").unwrap();
    half.points.get_mut(&0).unwrap().1["fissfuse"]["whole"] = json!(false);
    qdrant.set(|state| drop(state.collections.insert(one.into(), half)));
    succeed(&with(world, &["--replace"]));
    assert_eq!(qdrant.names(), [one]);
    answers(world, "back");
    // What is somebody else's is neither filled nor deleted, nor is what somebody else named so.
    let created = json!({"vectors": {"size": 48, "distance": "Dot"}});
    let points = BTreeMap::from([(0, (vec![0.5; 48], json!({"city": "Berlin"})))]);
    let theirs = Kept { created, points };
    qdrant.set(|state| drop(state.collections.insert(two.into(), theirs)));
    refuse(&replacing, &[two, "is none that FissFuse made"]);
    answers(world, "back-again");
    qdrant.set(|state| {
        state.collections.remove(two);
        let mine = state.collections.remove(one).unwrap();
        state.collections.insert("mine".into(), mine);
        state.aliases.insert("kb".into(), "mine".into());
    });
    succeed(&replacing);
    assert_eq!(qdrant.names(), [one, "mine"]);
    answers(&other, "renamed");
}

#[test]
fn whoever_asks_an_index_that_is_replaced_is_not_answered_by_another_models() {
    let world = World::trained();
    let mut mention = World::mention("test", 0);
    mention.as_object_mut().unwrap().remove("candidates");
    // After one replacement its collection is gone; after two, another run's has the name.
    for (times, says) in [(1, "the collection is gone"), (2, "another index has taken its place since it was opened")] {
        let qdrant = Qdrant::new();
        let place = qdrant.place("kb");
        succeed(&push(world, place));
        let lists = ["--shortlist", "6", "--min-recall", "0", "--candidates-from", place, "--device", "cpu"];
        let mut link = fissfuse(&[&world.link()[..], &lists].concat());
        let mut link = link.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = link.stdin.take().unwrap();
        let mut answers = BufReader::new(link.stdout.take().unwrap()).lines();
        writeln!(input, "{mention}").unwrap();
        assert!(answers.next().unwrap().unwrap().contains("\"links\""));
        let other = world.copy();
        for line in 3..3 + times {
            other.change_line("data/entities.jsonl", line, |entity| entity["image"] = Value::Null);
            succeed(&[&push(&other, place)[..], &["--replace"]].concat());
        }
        writeln!(input, "{mention}").unwrap();
        drop(input);
        refused(&link.wait_with_output().unwrap(), &["collection `kb_fissfuse_1`", says]);
        assert!(answers.next().is_none());
    }
}

#[test]
fn an_index_that_bears_the_name_itself_is_asked_and_replaced() {
    let world = World::trained();
    let qdrant = Qdrant::new();
    let place = qdrant.place("kb");
    succeed(&push(world, place));
    let named_itself = |state: &mut State| {
        let of = state.aliases.remove("kb").unwrap();
        let kept = state.collections.remove(&of).unwrap();
        state.collections.insert("kb".into(), kept);
    };
    qdrant.set(named_itself);
    succeed(&eval(world, "named-itself", place, "12"));
    assert!(succeed(&push(world, place)).contains("already"));
    let other = world.copy();
    other.change_line("data/entities.jsonl", 3, |entity| entity["image"] = Value::Null);
    let replacing = [&push(&other, place)[..], &["--replace"]].concat();
    qdrant.set(|state| state.room = Some(7));
    refuse(&replacing, &["No space left on device"]);
    succeed(&eval(world, "named-itself", place, "12"));
    assert_eq!(qdrant.names(), ["kb"]);
    qdrant.set(|state| state.room = None);
    succeed(&replacing);
    assert_eq!(qdrant.names(), ["kb_fissfuse_1"]);
    succeed(&eval(&other, "replaced", place, "12"));
    // The one moment with neither: the next run ends it.
    qdrant.set(named_itself);
    qdrant.set(|state| state.aliases_stay = true);
    let back = [&push(world, place)[..], &["--replace"]].concat();
    refuse(&back, &["aliases stay as they are", "the new index waits, whole, in `kb_fissfuse_1`: the same command"]);
    refuse(&eval(world, "never", place, "3"), &["is not there"]);
    qdrant.set(|state| (state.aliases_stay, state.room) = (false, Some(0)));
    assert!(succeed(&push(world, place)).contains("already"));
    succeed(&eval(world, "ended", place, "12"));
    assert_eq!(qdrant.names(), ["kb_fissfuse_1"]);
    assert!(!world.path("never").exists());
}

#[test]
fn places_that_are_none_are_refused() {
    let world = World::trained();
    for place in ["nowhere", "qdrant://x", "qdrant://x:0/kb", "usearch:", "milvus://x/a-b"] {
        assert_eq!(run(&push(world, place)).status.code(), Some(2), "{place}");
        assert_eq!(run(&eval(world, "never", place, "3")).status.code(), Some(2), "{place}");
    }
    let alone = [&world.eval("never")[..], &["--candidates-from", "scan:int8"]].concat();
    assert_eq!(run(&alone).status.code(), Some(2), "without --shortlist");
    refuse(&push(world, "scan"), &["scan holds no index"]);
    let bad = fissfuse(&push(world, "qdrant://localhost:1/kb")).env("QDRANT_API_KEY", "a\u{e9}b").output().unwrap();
    refused(&bad, &["characters that no header may have"]);
    assert!(!world.path("never").exists());
}

#[test]
#[cfg(not(feature = "milvus"))]
fn a_program_without_milvus_says_how_to_build_one_with_it() {
    let world = World::trained();
    refuse(&push(world, "milvus://localhost:1/kb"), &["was built without milvus", "--features milvus"]);
}

#[test]
#[cfg(not(feature = "usearch"))]
fn a_program_without_usearch_says_how_to_build_one_with_it() {
    let world = World::trained();
    refuse(&push(world, "usearch:/nowhere/kb"), &["was built without usearch", "--features usearch"]);
}
