//! MELBench: Wikidata-MEL and Richpedia-MEL.

use std::fs;

use fissfuse::data::Split;
use fissfuse::data::import::{Format, Imported, Settings, SplitUnit};
use serde_json::json;

use super::{Source, note};
use crate::support::succeed;

/// Wikidata-MEL with ten mentions.
pub fn source() -> Source {
    let source = Source::new();
    let record = |id: &str, sentence: &str, mentions: &[&str], answers: &[&str]| {
        let names: Vec<String> = answers.iter().map(|qid| format!("Name of {qid}")).collect();
        json!({"id": id, "sentence": sentence, "mentions": mentions, "entities": names, "answer": answers})
    };
    source.json(
        "Wikidata-MEL.json",
        json!({
            "21717": record("21717", "Francis Condon in the early 20th Century", &["Francis Condon"], &["Q1"]),
            "46351": record("46351", "Powers with Noel Harrison", &["Noel Harrison", "Powers"], &["Q2", "Q3"]),
            "3": record("3", "Robertson and again Robertson", &["Robertson", "Robertson"], &["Q4", "Q1"]),
            "4": record("4", "Somebody else", &["Not there", "else", "Somebody"], &["Q1", "Q2", "Q3"]),
            "5": record("5", "Two more", &["Two", "more"], &["Q5", "Q6"]),
        }),
    );
    source.picture("KVQAimgs/46351.jpg", 30);
    source
}

#[test]
fn melbench_splits_seven_to_one_to_two() {
    let source = source();
    let (done, imports) = source.import(Format::Melbench, "dst", Settings::default());
    let ids = |split| imports.mentions(split).into_iter().map(|m| m.id).collect::<Vec<_>>();
    assert_eq!(ids(Split::Train), ["21717", "46351-0", "46351-1", "3-0", "3-1", "4-0", "4-1"]);
    assert_eq!((ids(Split::Valid), ids(Split::Test)), (vec!["4-2".to_string()], vec!["5-0".into(), "5-1".into()]));
    let all = done.statistics.splits.last().unwrap();
    assert_eq!(
        (all.mentions, all.gold_entities, all.not_in_sentence, note(&done, "sentences of the source")),
        (10, 6, 1, 5)
    );
    let train = imports.mentions(Split::Train);
    assert!(train[1].image.is_some() && train[1].image == train[2].image && train[0].image.is_none());

    let unit = SplitUnit::Sentence;
    let (done, _) = source.import(Format::Melbench, "whole", Settings { unit, ..Settings::default() });
    let sizes = |done: &Imported| done.statistics.splits.iter().map(|s| s.mentions).collect::<Vec<_>>();
    assert_eq!(sizes(&done), [8, 2, 10], "a sentence's mentions stay together");
    let drawn = |name: &str, seed: u64| {
        let settings = Settings { seed: Some(seed), ..Settings::default() };
        let (done, imports) = source.import(Format::Melbench, name, settings);
        assert_eq!(sizes(&done), [7, 1, 2, 10]);
        imports.mentions(Split::Train).into_iter().map(|m| m.id).collect::<Vec<_>>()
    };
    assert_eq!(drawn("a", 3), drawn("b", 3));
    assert_ne!(drawn("c", 3), drawn("d", 4));
}

#[test]
fn richpedias_keys_are_the_answers_and_stay_outside() {
    let source = Source::new();
    let record = |qid: &str, mention: &str| json!({"id": qid, "sentence": "Washington resigned.", "mentions": mention, "entities": "George", "answer": qid});
    source.json("Richpedia-MEL.json", json!({"Q23": record("Q23", "Washington"), "Q42": record("Q42", " ")}));
    source.refuse("melbench", &["Richpedia-MEL.json:9:", "`Q42` has an empty mention"]);
    let printed = succeed(&["import", "melbench", source.arg("src"), source.arg("dst"), "--skip-bad"]);
    assert!(printed.contains("fissfuse candidates"), "{printed}");
    let test = fs::read_to_string(source.path("dst/test.jsonl"))
        .or(fs::read_to_string(source.path("dst/valid.jsonl")))
        .unwrap();
    assert!(test.contains("richpedia-1") && !test.contains("\"mention_id\":\"Q23\""), "{test}");
    source.json(
        "Richpedia-MEL.json",
        json!({"Q1": {"id": "Q1", "sentence": "s", "mentions": ["a", "b"], "entities": ["A"], "answer": ["Q1"]}}),
    );
    source.refuse("melbench", &["2 mentions, 1 entities and 1 answers"]);
}
