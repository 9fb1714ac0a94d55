//! Importers on small copies, made by hand, of what the field publishes, with every oddity that is known of it.

use std::fs;
use std::path::{Path, PathBuf};

use fissfuse::data::import::{Description, Format, Imported, Protocol, Settings, SplitUnit, import};
use fissfuse::data::{Dataset, Mention, Skipped, Split, Tolerance};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{refuse, run, succeed};

/// A folder to put files of a format in.
struct Source(TempDir);

impl Source {
    fn new() -> Source {
        Source(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn arg(&self, name: &str) -> &'static str {
        self.path(name).to_str().unwrap().to_string().leak()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Source {
        let path = self.path(&format!("src/{name}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn json(&self, name: &str, value: Value) -> &Source {
        self.write(name, format!("{value:#}"))
    }

    fn picture(&self, name: &str, side: u32) -> &Source {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_pixel(side, side, image::Rgb([9, 99, 199]))
            .write_to(&mut bytes, image::ImageFormat::Png)
            .unwrap();
        self.write(name, bytes.into_inner())
    }

    /// Imports into `name`, strictly.
    fn import(&self, format: Format, name: &str, settings: Settings) -> (Imported, Imports) {
        let (source, destination) = (self.path("src"), self.path(name));
        let done =
            import(format, &source, &destination, &settings, Tolerance::Strict, &mut Skipped::default()).unwrap();
        let dataset = Dataset::open(&destination, Tolerance::Strict, &mut Skipped::default()).unwrap();
        (done, Imports { folder: destination, dataset })
    }

    /// Wants an import to fail and to leave nothing behind.
    fn refuse(&self, format: &str, says: &[&str]) {
        refuse(&["import", format, self.arg("src"), self.arg("refused")], says);
        let left: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name == "refused" || name.to_string_lossy().ends_with(".tmp")), "{left:?}");
    }
}

/// What was imported.
struct Imports {
    folder: PathBuf,
    dataset: Dataset,
}

impl Imports {
    fn mentions(&self, split: Split) -> Vec<Mention> {
        self.dataset.mentions(split, &mut Skipped::default()).unwrap()
    }

    fn qids(&self, entities: &[u32]) -> Vec<&str> {
        entities.iter().map(|&e| self.dataset.entities()[e as usize].qid.as_str()).collect()
    }

    fn entity(&self, qid: &str) -> &fissfuse::data::Entity {
        &self.dataset.entities()[self.dataset.entity(qid).unwrap() as usize]
    }

    fn file(&self, image: &Option<String>) -> Vec<u8> {
        fs::read(self.folder.join(image.as_deref().unwrap())).unwrap()
    }
}

fn note(done: &Imported, what: &str) -> usize {
    done.notes.iter().find(|note| note.what.contains(what)).map_or(0, |note| note.count)
}

fn drin_wikimel() -> Source {
    let source = Source::new();
    let record = |id: &str, mention: &str, answer: &str| {
        json!({"id": id, "sentence": "Powers with Noel Harrison in The Girl from U.N.C.L.E.",
               "imgPath": format!("KVQAimgs/{id}.jpg"), "mentions": mention, "entities": mention, "answer": answer})
    };
    source
        .json(
            "wikimel/mentions/WIKIMEL_train.json",
            json!({
                "46351-0": record("46351", "Noel Harrison", "Q1"),
                "46351-1": record("46351", "Powers", "Q2"),
                "7": record("7", "Nobody here", "Q3"),
            }),
        )
        .json("wikimel/mentions/WIKIMEL_test.json", json!({"8": record("8", "Powers", "Q4")}))
        .write(
            "wikimel/candidates/top100/candidates-answer.tsv",
            "46351-0\tQ1\tQ2\tQ1\n46351-1\tQ1\tQ3\n7\tQ3\tQ4\t\n8\tQ1\tQ2\n",
        )
        .json(
            "wikimel/candidates/qid2ne.json",
            json!({"Q1": "Noel Harrison", "Q2": "Stefanie Powers", "Q3": "No", "Q4": "Four"}),
        )
        .json("wikimel/entities/qid2abs.json", json!({"Q1": "actor; born 1934.", "Q2": 7, "Q3": null}))
        .json("wikimel/entities/qid2brief.json", json!({"Q1": "Noel Harrison was\nan actor."}))
        .picture("wikimel/mentions/KVQAimgs/46351.JPG", 60)
        .picture("wikimel/mentions/KVQAimgs/7.png", 49)
        .picture("wikimel/entities/cleaned-images/Q1", 60)
        .write("wikimel/entities/cleaned-images/Q2.jpg", "no image")
        .picture("wikimel/entities/cleaned-images/Q2.png", 60)
        .picture("default.jpg", 60);
    source
}

#[test]
fn drin_wikimel_with_its_images_and_lists() {
    let source = drin_wikimel();
    let (done, imports) = source.import(Format::DrinWikimel, "dst", Settings::default());
    let train = imports.mentions(Split::Train);
    assert_eq!(train.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["46351-0", "46351-1", "7"]);
    // A repeated candidate goes; the gold entity comes where it was not retrieved.
    assert_eq!(imports.qids(&train[0].candidates), ["Q1", "Q2"]);
    assert_eq!(imports.qids(&train[1].candidates), ["Q1", "Q3", "Q2"]);
    assert_eq!((note(&done, "repeated candidates"), note(&done, "lists of train without")), (1, 1));
    // Both mentions of the sentence have its image; one of 49 pixels counts as none.
    assert!(train[0].image.is_some() && train[0].image == train[1].image && train[2].image.is_none());
    assert_eq!((note(&done, "mentions: image is too small"), note(&done, "mentions: image is missing")), (1, 1));
    // The first file that exists counts, readable or not.
    let [q1, q2] = ["Q1", "Q2"].map(|qid| imports.entity(qid));
    assert_eq!((q1.image.as_deref(), q2.image.as_deref()), (Some("images/entities/Q1"), None));
    assert_eq!(imports.file(&q1.image), fs::read(source.path("src/wikimel/entities/cleaned-images/Q1")).unwrap());
    assert_eq!((q1.description.as_str(), q2.description.as_str()), ("actor; born 1934.", "7"));
    assert_eq!((done.default_image, done.published.unwrap().name), (Some("images/default.jpg"), "WikiMEL"));
    assert!(imports.folder.join("images/default.jpg").is_file());
    assert_eq!(done.statistics.splits[0].not_in_sentence, 1);

    let settings = Settings {
        protocol: Protocol::AsRetrieved,
        description: Description::Brief,
        copy: true,
        ..Settings::default()
    };
    let (_, imports) = source.import(Format::DrinWikimel, "retrieved", settings);
    let train = imports.mentions(Split::Train);
    assert_eq!(imports.qids(&train[1].candidates), ["Q1", "Q3"]);
    assert_eq!(imports.entity("Q1").description, "Noel Harrison was an actor.");
}

#[cfg(unix)]
#[test]
fn images_are_linked_unless_copies_are_asked_for() {
    use std::os::unix::fs::MetadataExt;
    let source = drin_wikimel();
    let links = |name: &str, copy: bool| {
        let (_, imports) = source.import(Format::DrinWikimel, name, Settings { copy, ..Settings::default() });
        fs::metadata(imports.folder.join("images/entities/Q1")).unwrap().nlink()
    };
    assert_eq!((links("linked", false), links("copied", true)), (2, 1));
}

#[test]
fn drin_wikimel_names_what_is_wrong() {
    let source = drin_wikimel();
    source.write("wikimel/candidates/top100/candidates-answer.tsv", "46351-0\tQ1\n46351-0\tQ2\n");
    source.refuse("drin-wikimel", &["candidates-answer.tsv:2:", "has a line already"]);
    source.write("wikimel/candidates/top100/candidates-answer.tsv", "46351-0\tQ1\n");
    source.refuse("drin-wikimel", &["WIKIMEL_train.json:10:", "`46351-1` has no line"]);
    source.write("wikimel/candidates/top100/candidates-answer.tsv", "46351-0\tQ99\n");
    source.refuse("drin-wikimel", &["WIKIMEL_train.json:2:", "`Q99` is not in the knowledge base"]);
    source.write("wikimel/mentions/WIKIMEL_train.json", b"\x89HDF\r\n\x1a\n123");
    source.refuse("drin-wikimel", &["WIKIMEL_train.json", "HDF5"]);
    source.write("wikimel/candidates/qid2ne.json", b"\x93NUMPY\x01\0");
    source.refuse("drin-wikimel", &["qid2ne.json", "NumPy"]);
    source.refuse("mimic", &["has no kb_entity.json"]);
}

fn wikidiverse() -> Source {
    let wiki = "https://en.wikipedia.org/wiki/";
    let upload = "https://upload.wikimedia.org/wikinews/en/c/ca/";
    let sentence = "Bart writing \"HDTV is worth é cent\" by AC/DC.";
    let mention = |field: &str, gold: &str, candidates: &[&str], start: usize, end: usize| {
        json!([
            sentence,
            format!("{upload}Simpsons_new_title_sequence_screenshot.png"),
            field,
            "Other",
            ["bart"],
            [" "],
            gold,
            candidates,
            "entertainment",
            start,
            end
        ])
    };
    let source = Source::new();
    let high = format!("{wiki}High-definition_television");
    source
        .json("candidates/train_w_10cands.json", json!([
            // The field is misspelt; offsets count, in characters.
            mention("HDTB", &high, &["High-definition television", "__nil__", &format!("{wiki}Bj%C3%B6rk")], 14, 18),
            mention("AC/DC", &format!("n{wiki}AC/DC"), &[&high], 39, 44),
            mention("Bart", "NIL", &[&high], 0, 4),
        ]))
        .json("candidates/valid_w_10cands.json", json!([mention("Bart", &format!("]{wiki}Bart%20Simpson"), &[], 0, 4)]))
        .json("candidates/test_w_10cands.json", json!([mention("Bart", &high, &[
            "A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K"], 0, 4)]))
        .json("entities/entity2brief_train.json", json!({"High-definition_television": "A resolution.", "DC": "A band."}))
        .json("entities/entity2brief_test.json", json!({"High-definition_television": "Another text.", "A": null}))
        .write("entities/wikipedia_entity2imgs.tsv",
            "entity@@@@images\nHigh-definition_television@@@@https://x.org/a/none.jpg[AND]https://x.org/Ugaritic-alphabet-chart.svg\n\
             DC@@@@https://x.org/Foo%20bar.JPEG\nBjörk@@@@https://x.org/Anim.gif\n")
        .picture("images/cac8fb8bc5f16bec6813f58801cdd7a6.png", 60)
        .picture("images/dd5af8788695e95bba3e27bf56b768f7.png", 60)
        .picture("images/6365991e14c6a9cd186353e756b8fca6.JPEG", 60)
        .picture("images/7392e2c97bda83a49ba3059daa9d784aAnim.gif", 20);
    source
}

#[test]
fn drin_wikidiverse_by_titles_and_offsets() {
    let source = wikidiverse();
    let (done, imports) = source.import(Format::DrinWikidiverse, "dst", Settings::default());
    let train = imports.mentions(Split::Train);
    assert_eq!(train.iter().map(|m| m.mention.as_str()).collect::<Vec<_>>(), ["HDTV", "AC/DC"]);
    assert_eq!((note(&done, "NIL"), note(&done, "differs from that at their offsets")), (1, 1));
    assert_eq!(imports.qids(&train[0].candidates), ["High-definition_television", "Björk"]);
    assert_eq!(imports.qids(&train[1].candidates), ["High-definition_television", "AC/DC"]);
    assert!(train[0].image.as_deref().unwrap().ends_with("cac8fb8bc5f16bec6813f58801cdd7a6.png"));
    let high = imports.entity("High-definition_television");
    assert_eq!((high.name.as_str(), high.description.as_str()), ("High-definition television", "A resolution."));
    // Its first image was never downloaded; the second one was a drawing.
    assert!(high.image.as_deref().unwrap().ends_with("dd5af8788695e95bba3e27bf56b768f7.png"));
    // DRIN's files know a title from its last slash on.
    let band = imports.entity("AC/DC");
    assert_eq!((band.description.as_str(), band.image.is_some()), ("A band.", true));
    assert_eq!((imports.entity("Björk").image.is_none(), note(&done, "entities: image is too small")), (true, 1));
    // Ten places: the gold entity takes the last one.
    let test = imports.mentions(Split::Test);
    assert_eq!((test[0].candidates.len(), imports.qids(&test[0].candidates)[9]), (10, "High-definition_television"));
    assert_eq!(imports.qids(&imports.mentions(Split::Valid)[0].candidates), ["Bart_Simpson"]);

    let settings = Settings { protocol: Protocol::AsRetrieved, ..Settings::default() };
    let (_, imports) = source.import(Format::DrinWikidiverse, "retrieved", settings);
    assert_eq!(imports.mentions(Split::Test)[0].candidates.len(), 11);
    assert_eq!(imports.qids(&imports.mentions(Split::Train)[1].candidates), ["High-definition_television"]);
}

#[test]
fn wikidiverse_passages_have_several_mentions() {
    let source = wikidiverse();
    let wiki = "https://en.wikipedia.org/wiki/";
    let passage = json!([[
        "The Lions versus the Packers (2007).",
        "https://x.org/a/DetroitLionsRunningPlay-2007.jpg",
        "sports",
        [
            ["Lions", "Organization", 4, 9, format!("{wiki}Detroit_Lions")],
            ["Packers", "Organization", 21, 28, format!("{wiki}Green_Bay_Packers")],
            ["2007", "Time", 30, 34, "nil"]
        ]
    ]]);
    source.json("mentions/train.json", passage.clone()).picture("images/062ce5e341a566a4208d801e53557538.jpg", 60);
    let (_, imports) = source.import(Format::Wikidiverse, "dst", Settings::default());
    let train = imports.mentions(Split::Train);
    assert_eq!(train.iter().map(|m| m.mention.as_str()).collect::<Vec<_>>(), ["Lions", "Packers"]);
    assert!(train[0].image.is_some() && train[0].image == train[1].image && train[0].candidates.is_empty());
    assert_eq!(imports.entity("Detroit_Lions").name, "Detroit Lions");

    source.json("candidates/train_w_10cands.json", passage.clone());
    source.refuse("drin-wikidiverse", &["train_w_10cands.json:2:", "`fissfuse import wikidiverse`"]);
    source.json("mentions/train.json", json!([["s", "u", "m", "t", [], [], "g", [], "t", 0, 1]]));
    source.refuse("wikidiverse", &["train.json:2:", "`fissfuse import drin-wikidiverse`"]);
    source.json("mentions/train.json", json!([["short", "", "", [["short", "", 3, 9, "X"]]]]));
    source.refuse("wikidiverse", &["train.json:2:", "lies at 3..9 of 5 characters"]);
}

fn mimic(prefix: &str, images: &str) -> Source {
    let source = Source::new();
    let record = |id: Value, image: &str, answer: &str| {
        json!({"id": id, "sentence": "Gert Steegmans winning stage 3.", "mentions": "Gert Steegmans",
               "entities": "Gert Steegmans", "answer": answer, "imgPath": image})
    };
    source
        .json(&format!("{prefix}train.json"), json!([
            record(json!(106), "mention_54.jpg", "Q1"),
            record(json!("106"), "KVQAimgs/St._John.png", "Q2"),
            record(json!(7), "", "nil"),
            record(json!(8), "", "Q1"),
        ]))
        .json(&format!("{prefix}dev.json"), json!([record(json!(9), "gone.jpg", "Q1")]))
        .json("kb_entity.json", json!([
            {"id": 0, "qid": "Q1", "type": "entity", "entity_name": "Bj%C3%B6rk_G", "attr": "a singer", "desc": "brief", "image_list": ["none.jpg", "Q1.b.png"]},
            {"id": 1, "qid": "Q2", "type": "entity", "entity_name": "Q. Two", "attr": "", "image_list": []},
        ]))
        .write("qid2id.json", r#"{"Q1": 0, "Q2": 1}"#)
        .picture("kb_image/Q1.b.png", 30)
        .picture(&format!("{images}/mention_54.jpg"), 30)
        .picture(&format!("{images}/St.jpg"), 30);
    source
}

#[test]
fn mimic_with_numbers_for_ids_and_names_up_to_a_dot() {
    for (prefix, images, paper) in [
        ("WIKIMEL_", "mention_image", Some("WikiMEL")),
        ("RichpediaMEL_", "mention_images", None),
        ("wiki_diverse_", "mention_image", Some("WikiDiverse")),
    ] {
        let source = mimic(prefix, images);
        let (done, imports) = source.import(Format::Mimic, "dst", Settings::default());
        let train = imports.mentions(Split::Train);
        assert_eq!(train.iter().map(|m| m.id.as_str()).collect::<Vec<_>>(), ["106", "106-1", "8"]);
        assert_eq!((note(&done, "NIL"), note(&done, "mentions: image is missing")), (1, 1));
        assert!(train[0].image.is_some() && train[1].image.as_deref().unwrap().ends_with("St.jpg"));
        let singer = imports.entity("Q1");
        assert_eq!((singer.name.as_str(), singer.description.as_str()), ("Björk G", "a singer"));
        assert!(singer.image.as_deref().unwrap().ends_with("Q1.b.png"));
        assert_eq!(done.published.map(|p| p.name), paper);
        assert!(imports.dataset.has(Split::Valid) && !imports.dataset.has(Split::Test));
    }
}

#[test]
fn mimic_of_two_releases_is_refused() {
    let source = mimic("WIKIMEL_", "mention_image");
    source.write("qid2id.json", r#"{"Q1": 0, "Q2": 5}"#);
    source.refuse("mimic", &["kb_entity.json", "`Q2` has id 1 here and 5 in qid2id.json"]);
    source.write("qid2id.json", r#"{"Q1": 0, "Q2": 1, "Q3": 2}"#);
    source.refuse("mimic", &["lacks entity `Q3` of qid2id.json"]);
    source.write("qid2id.json", r#"{"Q1": 0, "Q2": 1}"#);
    let kb = |second: Value| json!([{"id": 0, "qid": "Q1", "entity_name": "One", "attr": "a"}, second]);
    source.json("kb_entity.json", kb(json!({"id": 0, "qid": "Q1", "entity_name": "One", "attr": "b"})));
    source.refuse("mimic", &["kb_entity.json:8:", "two different descriptions"]);
    source.json("kb_entity.json", kb(json!({"id": 1, "qid": "Q2", "entity_name": "Two"})));
    source.json(
        "WIKIMEL_train.json",
        json!([{"id": 1, "sentence": "A map.", "imgPath": "", "mention": ["A", "map"],
        "entity": ["A", "B"], "answer": ["Q1", "Q2"]}]),
    );
    source.refuse("mimic", &["WIKIMEL_train.json:2:", "KGMEL"]);
}

fn melbench() -> Source {
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
    let source = melbench();
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

#[test]
fn the_authors_lines_have_the_gold_entity_first() {
    let source = Source::new();
    let mention = |id: &str, extra: Value| {
        let mut record = json!({"mention_id": id, "mentions": "Noel", "sentence": "Noel sings.", "imgPath": "KVQAimgs/46351.jpg",
                                "candidates": ["Q2", "Q1"]});
        record.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        record.to_string()
    };
    source
        .write(
            "WIKIMEL_train.jsonl",
            format!("{}\n{}\n", mention("46351-0", json!({})), mention("46351-1", json!({"answer": "Q1"}))),
        )
        .write(
            "entities.jsonl",
            "{\"qid\":\"Q1\",\"id\":0,\"name\":\"One\",\"desc\":\"d\"}\n{\"qid\":\"Q2\",\"id\":1,\"name\":\"Two\"}\n",
        )
        .write("wikimel_image.h5", b"\x89HDF\r\n\x1a\n");
    source.refuse("fissfuse", &["wikimel_image.h5", "docs/importing.md"]);
    source.picture("mention_image/46351", 30).picture("entity_image/Q1", 30);
    let (done, imports) = source.import(Format::Fissfuse, "dst", Settings::default());
    let train = imports.mentions(Split::Train);
    assert_eq!(train.iter().map(|m| imports.qids(&[m.gold.unwrap()])[0]).collect::<Vec<_>>(), ["Q2", "Q1"]);
    assert!(train[0].image.is_some() && imports.entity("Q1").image.is_some() && imports.entity("Q2").image.is_none());
    assert_eq!(note(&done, "entities: image is missing"), 1);
}

#[test]
fn what_is_no_folder_of_the_format_is_named() {
    let source = melbench();
    for format in ["mimic", "drin-wikimel", "drin-wikidiverse", "wikidiverse", "fissfuse"] {
        source.refuse(format, &["Wikidata-MEL.json is of another format", "`fissfuse import melbench"]);
    }
    let other = Source::new();
    other.write("answer_train.npy", b"\x93NUMPY");
    other.refuse("drin-wikimel", &["answer_train.npy is a preprocessed feature of DRIN"]);
    for (name, says) in [("raw-data-1.mp4", "data_tools.py"), ("data.tar.gz", "unpack it")] {
        let source = Source::new();
        source.write(name, "x");
        source.refuse("mimic", &[name, says]);
        let file = source.arg(&format!("src/{name}"));
        refuse(&["import", "mimic", file, source.arg("dst")], &[name, says]);
    }
    refuse(&["import", "melbench", source.arg("nowhere"), source.arg("dst")], &["nowhere", "cannot read"]);
    assert_eq!(run(&["import", "unheard-of", "a", "b"]).status.code(), Some(2));
}

#[test]
fn a_destination_in_use_is_left_alone() {
    let source = melbench();
    let arguments = ["import", "melbench", source.arg("src"), source.arg("dst")];
    succeed(&arguments);
    let about: Value = serde_json::from_str(&fs::read_to_string(source.path("dst/import.json")).unwrap()).unwrap();
    assert_eq!((&about["format"], &about["settings"]["protocol"]), (&json!("melbench"), &json!("gold-in-list")));
    let before = fs::read(source.path("dst/train.jsonl")).unwrap();
    refuse(&arguments, &["dst", "exists already"]);
    assert_eq!(fs::read(source.path("dst/train.jsonl")).unwrap(), before);
    assert!(Path::new(source.arg("dst")).join("images/mentions/46351.jpg").is_file());
}
