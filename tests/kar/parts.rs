//! `fissfuse rerank --shard`, joined: what one run writes, to the byte.

use std::fs;

use serde_json::{Value, json};

use super::fuse::{fused, knowing, world_with_valid};
use super::rerank::{by_llama, world, write_llama};
use crate::support::{World, refuse, succeed};

/// The arguments without the run file and the report that they write.
fn to_parts(args: Vec<&'static str>) -> Vec<&'static str> {
    let written = |at: usize| {
        ["--out", "--report"].contains(&args[at]) || at > 0 && ["--out", "--report"].contains(&args[at - 1])
    };
    (0..args.len()).filter(|&at| !written(at)).map(|at| args[at]).collect()
}

fn report(world: &World, name: &str) -> Value {
    serde_json::from_slice(&fs::read(world.path(name)).unwrap()).unwrap()
}

/// Runs in parts, joins them, and wants what `whole` wrote; gives what both reports say of calls.
fn same(world: &World, whole: Vec<&'static str>, parts: usize) -> [Value; 2] {
    let printed = succeed(&whole);
    let args = to_parts(whole);
    let _ = fs::remove_dir_all(world.path("parts"));
    for i in 1..=parts {
        succeed(&[&args[..], &["--out", world.arg("parts"), "--shard", &format!("{i}/{parts}")]].concat());
    }
    let merge = ["merge", world.arg("parts"), "--out", world.arg("joined.jsonl"), "--report", world.arg("joined.json")];
    let merged = succeed(&merge);
    assert!(fs::read(world.path("joined.jsonl")).unwrap() == fs::read(world.path("new.jsonl")).unwrap());
    let (mut one, mut joined) = (report(world, "report.json"), report(world, "joined.json"));
    let spent = [one["spent"].take(), joined["spent"].take()];
    for report in [&mut one, &mut joined].into_iter().filter(|report| !report["fusion"].is_null()) {
        report["fusion"]["spent"]["seconds"].take();
    }
    assert_eq!(joined, one);
    let text = |report: &Value| serde_json::to_string_pretty(report).unwrap();
    assert_eq!(text(&joined), text(&one), "in the same order");
    // Tables and counts, but not what was spent.
    let table = |text: &str| {
        text.lines().take_while(|line| !line.starts_with("asked about")).map(str::to_string).collect::<Vec<_>>()
    };
    assert!(table(&printed).ends_with(&table(&merged)), "{printed}\n{merged}");
    spent
}

#[test]
fn a_llama_that_is_asked_in_parts_gives_the_rankings_of_one_run() {
    let world = world();
    write_llama(&world);
    let asked = [&by_llama(&world)[..], &["--least-share", "0", "--k", "4"]].concat();
    let ways: [(&[&str], usize); 4] = [
        (&["--batch-tokens", "600"], 3),
        (&["--order", "shuffled", "--seed", "3"], 12),
        (&["--gate", "0.2"], 1),
        (&["--scoring", "generate", "--max-new-tokens", "4"], 2),
    ];
    for (more, parts) in ways {
        let [one, joined] = same(&world, [&asked[..], more].concat(), parts);
        for of in ["calls", "calls_saved", "prompt_tokens", "new_tokens"] {
            assert_eq!(joined[of], one[of], "{of}");
        }
        fs::remove_file(world.path("new.jsonl.journal.jsonl")).unwrap();
    }
    // The mentions that the letters' prior is estimated on are asked about in each part.
    let debias = [&asked[..], &["--debias=0.3", "--allow-worse"]].concat();
    let [one, joined] = same(&world, debias, 2);
    assert!(joined["calls"].as_u64() > one["calls"].as_u64(), "{joined}");
}

#[test]
fn weights_that_are_fitted_in_each_part_must_be_the_same() {
    let world = world_with_valid();
    let server = knowing();
    let [_, joined] = same(&world, fused(&world, &server), 2);
    assert_eq!(joined["calls"], json!(10));
    // A part goes on with its own answers: nothing is asked twice.
    let args = to_parts(fused(&world, &server));
    let calls = server.calls();
    let again = succeed(&[&args[..], &["--out", world.arg("parts"), "--shard", "2/2"]].concat());
    assert!(again.contains("0 calls") && server.calls() == calls, "{again}");
    let record = world.path("parts/part-2-of-2/part.json");
    let text = fs::read_to_string(&record).unwrap();
    let mut other: Value = serde_json::from_str(&text).unwrap();
    other["result"]["report"]["fusion"]["fitted"] = json!(7);
    fs::write(&record, other.to_string()).unwrap();
    let merge = ["merge", world.arg("parts"), "--out", world.arg("refused.jsonl")];
    refuse(&merge, &["part-2-of-2", "its weights (--fuse) are not those", "differ from task to task"]);
    assert!(!world.path("refused.jsonl").exists());
    for flag in ["--journal", "--report"] {
        let refused = [&args[..], &["--out", world.arg("parts"), "--shard", "1/2", flag, world.arg("f")]].concat();
        assert_eq!(crate::support::run(&refused).status.code(), Some(2));
    }
    let over = [&args[..], &["--out", world.arg("data"), "--shard", "1/2"]].concat();
    refuse(&over, &["--out is what --data reads"]);
}
