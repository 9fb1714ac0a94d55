//! `fissfuse rerank`: the whole path, interrupted and resumed, and bad input.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fissfuse::llama::{Precision, Preset, write_random};
use serde_json::{Value, json};

use super::server::{Act, KEY, Server, good, status};
use crate::support::{World, fissfuse, refuse, refused, replace, run, succeed};

/// Mentions of the test split.
pub const MENTIONS: usize = 10;

/// A dataset and a run file that ranks its candidates in the order in which they are listed.
pub fn world() -> World {
    let world = World::new();
    let ranked = |mention: &Value| {
        let n = mention["candidates"].as_array().unwrap().len();
        let scores: Vec<f64> = (0..n).map(|i| 1.0 - 0.3 * i as f64).collect();
        json!({"mention_id": mention["mention_id"], "candidates": mention["candidates"], "scores": scores})
    };
    let run: Vec<Value> = world.read_lines("data/test.jsonl").iter().map(ranked).collect();
    world.write_lines("run.jsonl", &run);
    world
}

/// The same with a small random Llama.
fn world_with_llama() -> World {
    let world = world();
    write_llama(&world);
    world
}

/// A small random Llama beside what else there is.
pub fn write_llama(world: &World) {
    let texts =
        ["Which entity does the mention refer to? Answer with one letter: A, B or C.", "Text: a red ball, a box"];
    write_random(&world.path("llama"), &Preset::Tiny.config(), Precision::F32, 3, texts.into_iter()).unwrap();
}

fn rerank(world: &World) -> Vec<&'static str> {
    let files = ["--data", world.arg("data"), "--ranking", world.arg("run.jsonl"), "--out", world.arg("new.jsonl")];
    [&["rerank"][..], &files, &["--report", world.arg("report.json")]].concat()
}

pub fn by_llama(world: &World) -> Vec<&'static str> {
    [&rerank(world)[..], &["--llm", world.arg("llama")]].concat()
}

pub fn by_server(world: &World, server: &Server) -> Vec<&'static str> {
    let url: &'static str = server.url.clone().leak();
    [&rerank(world)[..], &["--endpoint", url, "--model", "m"]].concat()
}

fn report(world: &World) -> Value {
    serde_json::from_str(&fs::read_to_string(world.path("report.json")).unwrap()).unwrap()
}

/// The ranks of the gold entities in a run file.
fn ranks(world: &World, run: &str) -> Vec<usize> {
    let gold: Vec<Value> = world.read_lines("data/test.jsonl").iter().map(|m| m["gold"].clone()).collect();
    let rank = |(line, gold): (&Value, &Value)| line["candidates"].as_array().unwrap().iter().position(|c| c == gold);
    world.read_lines(run).iter().zip(&gold).map(|pair| rank(pair).unwrap() + 1).collect()
}

/// Wants the first K candidates of each mention in any order, the rest as they were, and a report that says so.
fn check(world: &World, k: usize) {
    let (old, new) = (world.read_lines("run.jsonl"), world.read_lines("new.jsonl"));
    assert_eq!(old.len(), new.len());
    for (old, new) in old.iter().zip(&new) {
        assert_eq!(old["mention_id"], new["mention_id"]);
        let list = |line: &Value| -> Vec<String> {
            line["candidates"].as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_string()).collect()
        };
        let (mut old, mut new) = (list(old), list(new));
        assert_eq!(old[k..], new[k..]);
        old.sort();
        new.sort();
        assert_eq!(old, new);
    }
    let (report, before, after) = (report(world), ranks(world, "run.jsonl"), ranks(world, "new.jsonl"));
    for (name, ranks) in [("before", &before), ("after", &after)] {
        for h in 1..=5 {
            let share = ranks.iter().filter(|&&r| r <= h).count() as f64 / ranks.len() as f64;
            assert!((report[name][format!("H@{h}")].as_f64().unwrap() - share).abs() < 1e-12);
        }
        let mean = ranks.iter().sum::<usize>() as f64 / ranks.len() as f64;
        assert!((report[name]["MR"].as_f64().unwrap() - mean).abs() < 1e-12);
    }
    for from in 1..=k {
        for to in 1..=k {
            let count = before.iter().zip(&after).filter(|&(&b, &a)| (b, a) == (from, to)).count();
            assert_eq!(report["changes"]["matrix"][from - 1][to - 1], json!(count));
        }
    }
}

#[test]
fn a_llama_reranks_by_logits_or_by_text() {
    let world = world_with_llama();
    for strategy in ["select-one", "rank-top-k"] {
        for scoring in ["logits", "generate"] {
            let asked = ["--strategy", strategy, "--scoring", scoring, "--max-new-tokens", "6", "--k", "4"];
            let more = [&asked[..], &["--least-share", "0"]].concat();
            let printed = succeed(&[&by_llama(&world)[..], &more].concat());
            assert!(printed.contains("10 mentions") && printed.contains("H@k cannot change for k >= 4"), "{printed}");
            check(&world, 4);
            let report = report(&world);
            assert_eq!(report["spent"]["calls"], json!(MENTIONS));
            let [prompt, computed] = ["prompt_tokens", "computed_tokens"].map(|n| report["spent"][n].as_u64().unwrap());
            assert!(computed < prompt, "the fixed text is shared");
            // A random model's text names nothing; its logits always do.
            let answered = report["answered"].as_u64().unwrap() as usize;
            assert_eq!(answered + report["invalid"].as_array().unwrap().len(), MENTIONS);
            assert!(scoring == "generate" || answered == MENTIONS);
            fs::remove_file(world.path("new.jsonl.journal.jsonl")).unwrap();
        }
    }
}

#[test]
fn letters_that_a_model_would_not_say_keep_the_old_order() {
    let world = world_with_llama();
    let printed = succeed(&by_llama(&world));
    assert!(
        printed.contains("10 answers hardly begin with a letter") && printed.contains("--scoring generate"),
        "{printed}"
    );
    check(&world, 1);
    let report = report(&world);
    assert_eq!((&report["answered"], report["unsure"].as_array().unwrap().len()), (&json!(0), MENTIONS));
    assert!(world.read_lines("new.jsonl").iter().all(|line| line["kar"] == "unsure"));
    // The journal's answers are of that share.
    let other = [&by_llama(&world)[..], &["--least-share", "0"]].concat();
    refuse(&other, &["least_share was 0.1 and is now 0", "remove it to ask anew"]);
    refuse(&[&by_llama(&world)[..], &["--least-share", "NaN"]].concat(), &["least_share = NaN", "from 0 to 1"]);
}

#[test]
fn debiasing_asks_some_mentions_once_per_rotation() {
    let world = world_with_llama();
    let printed = succeed(&[&by_llama(&world)[..], &["--debias=0.25", "--k", "3", "--least-share", "0"]].concat());
    assert!(printed.contains("preference for letters, divided out: A"), "{printed}");
    check(&world, 3);
    // Three of ten mentions, rounded up, are asked three times.
    assert_eq!(report(&world)["spent"]["calls"], json!(MENTIONS + 3 * 2));
    let prior: f64 = report(&world)["letter_prior"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
    assert!((prior - 1.0).abs() < 1e-9);
}

#[test]
fn a_server_reranks_and_its_invalid_answers_are_listed() {
    let world = world();
    let answers = ["B", "The answer is (C).", "none of them", "", "Q2 > Q0", "E. green", "A", "B", "B", "B"];
    let server = Server::new(answers.map(good));
    let printed = succeed(&[&by_server(&world, &server)[..], &["--concurrency", "1"]].concat());
    check(&world, 5);
    let report = report(&world);
    let invalid: Vec<&str> =
        report["invalid"].as_array().unwrap().iter().map(|i| i["mention_id"].as_str().unwrap()).collect();
    assert_eq!(invalid, ["test-2", "test-3"]);
    assert!(printed.contains("2 invalid answers") && printed.contains("test-2: \"none of them\""), "{printed}");
    let first = |i: usize| world.read_lines("new.jsonl")[i]["candidates"][0].clone();
    // Candidates of even mentions are Q0, Q2, ..., of odd ones Q1, Q3, ...
    assert_eq!([first(0), first(1), first(2), first(4)], [json!("Q2"), json!("Q5"), json!("Q0"), json!("Q2")]);
    assert_eq!(report["spent"]["prompt_tokens"], json!(100));
}

#[test]
fn a_gate_spares_what_is_sure() {
    let world = world();
    let nobody = ["--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--retries", "0"];
    let args = [&rerank(&world)[..], &nobody].concat();
    // The first is ahead of the second by 0.0805: nothing is asked, and nobody misses the server.
    let printed = succeed(&[&args[..], &["--gate", "0.07"]].concat());
    assert!(printed.contains("in 0 calls") && printed.contains("the gate saved 10 calls"), "{printed}");
    check(&world, 5);
    assert!(world.read_lines("new.jsonl").iter().all(|line| line["kar"] == "sure"));
    refuse(&[&args[..], &["--gate", "0.09"]].concat(), &["127.0.0.1:9", "no answer", "gave up after 1 calls"]);
    let mut lines = world.read_lines("run.jsonl");
    lines[3].as_object_mut().unwrap().remove("scores");
    world.write_lines("run.jsonl", &lines);
    fs::remove_file(world.path("new.jsonl.journal.jsonl")).unwrap();
    refuse(&[&args[..], &["--gate", "0.07"]].concat(), &["mention `test-3`", "no `scores`", "--gate"]);
}

#[test]
fn a_killed_run_goes_on_where_it_stopped() {
    let undisturbed = {
        let (world, server) = (world(), Server::new([]));
        succeed(&by_server(&world, &server));
        fs::read(world.path("new.jsonl")).unwrap()
    };
    let world = world();
    let slow = Act::Sleep(Duration::from_secs(30));
    // Four answers, then none.
    let server = Server::new([good("A"), good("A"), good("A"), good("A"), slow]);
    let args = [&by_server(&world, &server)[..], &["--concurrency", "1"]].concat();
    let mut child = fissfuse(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let journal = world.path("new.jsonl.journal.jsonl");
    let lines = || fs::read_to_string(&journal).map_or(0, |text| text.lines().count());
    while lines() < 5 {
        assert!(start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!world.path("new.jsonl").exists());
    // As if the kill had torn the last line.
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, &text[..text.len() - 7]).unwrap();
    let server = Server::new([]);
    let args = by_server(&world, &server);
    let other = run(&args);
    refused(&other, &["new.jsonl.journal.jsonl", "model was", "remove it to ask anew"]);
    // The same server at its new port.
    let port = |text: &str| text.rsplit(':').next().unwrap().split('/').next().unwrap().to_string();
    let (old, new) = (port(&first_url(&text)), port(&server.url));
    let moved = fs::read_to_string(&journal).unwrap().replacen(&old, &new, 1);
    fs::write(&journal, moved).unwrap();
    let output = run(&args);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("going on with 3 answers"));
    assert_eq!(server.calls(), MENTIONS - 3);
    assert_eq!(report(&world)["spent"]["from_journal"], json!(3));
    assert!(fs::read(world.path("new.jsonl")).unwrap() == undisturbed);
}

/// The server's URL in a journal's first line.
fn first_url(journal: &str) -> String {
    let header: Value = serde_json::from_str(journal.lines().next().unwrap()).unwrap();
    header["settings"]["model"].as_str().unwrap().to_string()
}

#[test]
fn a_server_in_trouble_loses_nothing_and_learns_no_secret() {
    let world = world();
    let server = Server::new([good("B"), good("B"), status(401, "")]);
    let args = [&by_server(&world, &server)[..], &["--concurrency", "1", "--api-key-env", "KAR_TEST_KEY"]].concat();
    let output = fissfuse(&args).env("KAR_TEST_KEY", KEY).env("FISSFUSE_LOG", "trace").output().unwrap();
    refused(&output, &["/v1/chat/completions", "mention `test-2`", "status 401"]);
    assert!(server.requests.lock().unwrap()[0].contains(KEY));
    let journal = fs::read_to_string(world.path("new.jsonl.journal.jsonl")).unwrap();
    assert_eq!(journal.lines().count(), 3);
    for told in
        [journal, String::from_utf8_lossy(&output.stderr).into(), String::from_utf8_lossy(&output.stdout).into()]
    {
        assert!(!told.contains(KEY), "{told}");
    }
    assert!(!world.path("new.jsonl").exists() && !world.path("report.json").exists());
}

#[test]
fn a_run_file_that_does_not_fit_is_named_or_skipped() {
    let world = world();
    let server = Server::new([]);
    let args = by_server(&world, &server);
    world.change_line("run.jsonl", 4, |line| line["mention_id"] = json!("train-0"));
    refuse(&args, &["run.jsonl:4:", "mention `train-0`", "--split"]);
    assert_eq!(server.calls(), 0);
    let output = run(&[&args[..], &["--skip-bad"]].concat());
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("left out 1 bad"));
    assert_eq!((report(&world)["mentions"].clone(), report(&world)["not_in_run"].clone()), (json!(9), json!(1)));
    world.change_line("run.jsonl", 4, |line| line["mention_id"] = json!("test-0"));
    refuse(&args, &["run.jsonl:4:", "`test-0` stands in line 1 already"]);
    refuse(&replace(args, "--ranking", world.arg("none.jsonl")), &["none.jsonl: cannot read"]);
}

#[test]
fn lists_shorter_than_k_are_asked_about_as_they_are() {
    let world = world();
    world.change_line("run.jsonl", 1, |line| {
        (line["candidates"], line["scores"]) = (json!(["Q2", "Q0"]), json!([2, 1]))
    });
    world.change_line("run.jsonl", 3, |line| (line["candidates"], line["scores"]) = (json!(["Q2"]), json!([2])));
    world.change_line("run.jsonl", 5, |line| (line["candidates"], line["scores"]) = (json!([]), json!([])));
    let server = Server::new([good("B")]);
    let printed = succeed(&[&by_server(&world, &server)[..], &["--concurrency", "1", "--k", "26"]].concat());
    assert!(printed.contains("10 mentions, the first 26"), "{printed}");
    assert!(server.requests.lock().unwrap()[0].contains("one letter: A or B."));
    assert_eq!(world.read_lines("new.jsonl")[0]["candidates"], json!(["Q0", "Q2"]));
    let report = report(&world);
    assert_eq!((&report["too_few"], &report["shorter_than_k"], server.calls()), (&json!(2), &json!(10), 8));
}

#[test]
fn a_model_that_cannot_answer_says_why() {
    let world = world_with_llama();
    let args = by_llama(&world);
    let config = fs::read_to_string(world.path("llama/config.json")).unwrap();
    let mut short: Value = serde_json::from_str(&config).unwrap();
    short["max_position_embeddings"] = json!(64);
    fs::write(world.path("llama/config.json"), short.to_string()).unwrap();
    refuse(&args, &["mention `test-", "the model's context only 64", "--description-words", "--skip-bad"]);
    assert!(!world.path("new.jsonl").exists());
    succeed(&[&args[..], &["--skip-bad"]].concat());
    assert_eq!(report(&world)["refused"].as_array().unwrap().len(), MENTIONS);
    check(&world, 5);
    let endless = ["--scoring", "generate", "--max-new-tokens", "18446744073709551615"];
    refuse(&[&args[..], &endless, &["--journal", world.arg("other")]].concat(), &["its answer up to 1844674407370955"]);
    fs::write(world.path("llama/config.json"), config).unwrap();
    fs::remove_file(world.path("new.jsonl.journal.jsonl")).unwrap();
    fs::remove_file(world.path("llama/chat_template.jinja")).unwrap();
    refuse(&args, &["no chat template", "--plain"]);
    succeed(&[&args[..], &["--plain"]].concat());
    fs::remove_file(world.path("llama/tokenizer.json")).unwrap();
    refuse(&args, &["tokenizer.json"]);
    refuse(&replace(args, "--llm", world.arg("nowhere")), &["nowhere"]);
}

#[test]
fn settings_and_templates_that_make_no_sense_are_named() {
    let world = world();
    let server = Server::new([]);
    let args = by_server(&world, &server);
    let with = |more: &[&'static str]| [&args[..], more].concat();
    refuse(&with(&["--k", "1"]), &["k = 1", "2 to 26"]);
    refuse(&with(&["--k", "27"]), &["k = 27"]);
    refuse(&with(&["--gate", "2"]), &["gate = 2"]);
    refuse(&with(&["--debias"]), &["--scoring logits"]);
    refuse(&replace(args.clone(), "--out", world.arg("run.jsonl")), &["--out is what --ranking reads"]);
    refuse(&with(&["--scoring", "logits"]), &["no log-probabilities", "--scoring generate"]);
    fs::write(world.path("t.txt"), "---\n{{ sentence }}\n---\n").unwrap();
    let template = ["--template", world.arg("t.txt")];
    refuse(&with(&template), &["t.txt", "does not show the `candidates`"]);
    let good = "Judge.\n---\nWho is {{ mention }}?{% for c in candidates %} {{ c.letter }}={{ c.qid }} {{ c.name }}{% endfor %}\n---\n";
    fs::write(world.path("t.txt"), good).unwrap();
    let printed = succeed(&[&with(&template)[..], &["--show-prompt"]].concat());
    assert!(printed.contains("Judge.\n---\nWho is ball? A=Q0 red ball B=Q2 green ball"), "{printed}");
    let both = [&args[..], &["--llm", world.arg("llama")]].concat();
    assert_eq!(run(&both).status.code(), Some(2));
    assert_eq!(run(&rerank(&world)).status.code(), Some(2));
    // What would have no effect.
    let by_llama = by_llama(&world);
    for (args, flag) in [
        (&args, ["--device", "cpu"]),
        (&args, ["--batch-tokens", "9"]),
        (&args, ["--seed", "1"]),
        (&by_llama, ["--timeout", "9"]),
        (&by_llama, ["--retries", "9"]),
        (&by_llama, ["--concurrency", "9"]),
        (&by_llama, ["--api-key-env", "KEY"]),
    ] {
        assert_eq!(run(&[&args[..], &flag].concat()).status.code(), Some(2), "{flag:?}");
    }
}

#[test]
fn a_prompt_is_shown_without_a_model_or_an_output() {
    let world = world();
    let args = ["rerank", "--data", world.arg("data"), "--ranking", world.arg("run.jsonl"), "--show-prompt"];
    assert!(succeed(&args).contains("Which entity does the mention refer to?"));
}

#[test]
fn mentions_without_gold_pass_through_without_metrics() {
    let world = world();
    let mut mentions = world.read_lines("data/test.jsonl");
    mentions.iter_mut().for_each(|m| drop(m.as_object_mut().unwrap().remove("gold")));
    world.write_lines("data/test.jsonl", &mentions);
    let server = Server::new([]);
    let printed = succeed(&by_server(&world, &server));
    assert!(printed.contains("10 mentions have no gold entity") && !printed.contains("MRR"), "{printed}");
    assert_eq!((&report(&world)["before"], &report(&world)["without_gold"]), (&Value::Null, &json!(10)));
    assert_eq!(world.read_lines("new.jsonl").len(), MENTIONS);
}

#[test]
fn a_flag_that_may_hold_a_secret_is_refused_without_being_repeated() {
    let world = world();
    let server = Server::new([]);
    let args = by_server(&world, &server);
    for (flag, value, says) in [
        ("--header", "Cookie sk-precious", "--header: has no colon"),
        ("--header", "Bearer sk-precious: x", "--header: number 1 is no header"),
        ("--body", "{\"key\": sk-precious}", "--body: is no JSON"),
        ("--body", "\"sk-precious\"", "--body: is no JSON object"),
    ] {
        let output = run(&[&args[..], &[flag, value]].concat());
        refused(&output, &[says]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("precious"), "{says}");
    }
    assert_eq!(server.calls(), 0);
}

#[test]
fn help_shows_what_counts_for_re_ranking_and_nothing_else() {
    let help = succeed(&["rerank", "--help"]);
    for shown in ["--body", "--header", "--ca-file", "--device"] {
        assert!(help.contains(shown), "{help}");
    }
    for other in ["--arithmetic", "--feature-memory", "--epochs"] {
        assert!(!help.contains(other), "{help}");
    }
}
