//! Candidate generation and audits through the binary.

use std::fs;

use serde_json::{Value, json};

use crate::support::{World, half_written, refuse, run, succeed};

/// A dataset whose mentions have no lists.
fn without_lists() -> World {
    let world = World::new();
    for split in ["train", "valid", "test"] {
        let file = format!("data/{split}.jsonl");
        let mut mentions = world.read_lines(&file);
        for mention in &mut mentions {
            mention.as_object_mut().unwrap().remove("candidates");
            mention["note"] = json!("kept");
        }
        world.write_lines(&file, &mentions);
    }
    world
}

#[test]
fn lists_are_made_and_then_trained_on() {
    let world = without_lists();
    let candidates = |more: &[&'static str]| [&["candidates", "--data", world.arg("data")], more].concat();
    succeed(&world.encode());
    refuse(&world.train(), &["has no candidates", "fissfuse candidates"]);
    let printed = succeed(&candidates(&["--top", "6"]));
    assert!(printed.contains("60 mentions against 12 entities"), "{printed}");
    let mentions = world.read_lines("data/test.jsonl");
    for mention in &mentions {
        let list: Vec<&str> = mention["candidates"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        assert!(list.contains(&mention["gold"].as_str().unwrap()) && list.len() <= 6 && mention["note"] == "kept");
        // A ball is no box.
        let odd = list[0].trim_start_matches('Q').parse::<usize>().unwrap() % 2;
        assert_eq!(odd, (mention["mention"] == "box") as usize, "{mention}");
    }
    succeed(&[&world.train()[..], &["--epochs", "1"]].concat());

    refuse(&candidates(&[]), &["train.jsonl:1:", "has candidates already", "--replace"]);
    let retrieved = ["--replace", "--top", "1", "--protocol", "as-retrieved"];
    let before = fs::read(world.path("data/test.jsonl")).unwrap();
    succeed(&candidates(&retrieved));
    assert_eq!(fs::read(world.path("data/test.jsonl.bak")).unwrap(), before);
    // Neither is a file that was kept replaced.
    assert!(succeed(&candidates(&retrieved)).contains("test.jsonl.bak2"));
    assert_eq!(fs::read(world.path("data/test.jsonl.bak")).unwrap(), before);
    assert!(world.read_lines("data/test.jsonl").iter().all(|m| m["candidates"].as_array().unwrap().len() == 1));
}

#[test]
fn a_bad_record_stops_all_files_or_stays_as_it_is() {
    let world = without_lists();
    world.change_line("data/test.jsonl", 2, |m| m["gold"] = json!("Q99"));
    let before = ["train", "test"].map(|split| fs::read(world.path(&format!("data/{split}.jsonl"))).unwrap());
    let arguments = ["candidates", "--data", world.arg("data")];
    refuse(&arguments, &["test.jsonl:2:", "`Q99` is no entity"]);
    let after = ["train", "test"].map(|split| fs::read(world.path(&format!("data/{split}.jsonl"))).unwrap());
    assert_eq!(before, after);
    let output = run(&[&arguments[..], &["--skip-bad"]].concat());
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("left out 1 bad"));
    let mentions = world.read_lines("data/test.jsonl");
    assert!(mentions[1].get("candidates").is_none() && mentions[2].get("candidates").is_some());
    assert!(half_written(&world.path("")).is_empty());
}

#[test]
fn an_audit_marks_what_spoils_a_measurement() {
    let world = World::new();
    let printed = succeed(&["audit", "--data", world.arg("data"), "--json", world.arg("audit.json")]);
    // The splits of training and validation draw the same colours.
    assert!(printed.contains("! 10 of 10 mentions of valid share their image with train"), "{printed}");
    assert!(printed.contains("12 entities: 0 without description"), "{printed}");
    let audit: Value = serde_json::from_str(&fs::read_to_string(world.path("audit.json")).unwrap()).unwrap();
    assert_eq!(audit["statistics"]["splits"][0]["mentions"], 40);
    assert_eq!(audit["findings"]["recall"][0]["at"][1]["recall"], 1.0);
    fs::remove_file(world.path("data/images/red-ball.png")).unwrap();
    let printed = succeed(&["audit", "--data", world.arg("data")]);
    assert!(printed.contains("1 image files missing"), "{printed}");
    refuse(&["audit", "--data", world.arg("nowhere")], &["nowhere", "is no dataset"]);
}
