//! WikiMEL in DRIN's raw layout, and WikiDiverse with and without candidates.

use std::fs;

use fissfuse::data::import::{Description, Format, Settings};
use fissfuse::data::{Protocol, Split};
use serde_json::json;

use super::{Source, note};

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
    assert_eq!(imports.qids(train[0].listed()), ["Q1", "Q2"]);
    assert_eq!(imports.qids(train[1].listed()), ["Q1", "Q3", "Q2"]);
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
    assert_eq!(imports.qids(train[1].listed()), ["Q1", "Q3"]);
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
    assert_eq!(imports.qids(train[0].listed()), ["High-definition_television", "Björk"]);
    assert_eq!(imports.qids(train[1].listed()), ["High-definition_television", "AC/DC"]);
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
    assert_eq!((test[0].listed().len(), imports.qids(test[0].listed())[9]), (10, "High-definition_television"));
    assert_eq!(imports.qids(imports.mentions(Split::Valid)[0].listed()), ["Bart_Simpson"]);

    let settings = Settings { protocol: Protocol::AsRetrieved, ..Settings::default() };
    let (_, imports) = source.import(Format::DrinWikidiverse, "retrieved", settings);
    assert_eq!(imports.mentions(Split::Test)[0].listed().len(), 11);
    assert_eq!(imports.qids(imports.mentions(Split::Train)[1].listed()), ["High-definition_television"]);
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
    assert!(train[0].image.is_some() && train[0].image == train[1].image && train[0].candidates.is_none());
    assert_eq!(imports.entity("Detroit_Lions").name, "Detroit Lions");

    source.json("candidates/train_w_10cands.json", passage.clone());
    source.refuse("drin-wikidiverse", &["train_w_10cands.json:2:", "`fissfuse import wikidiverse`"]);
    source.json("mentions/train.json", json!([["s", "u", "m", "t", [], [], "g", [], "t", 0, 1]]));
    source.refuse("wikidiverse", &["train.json:2:", "`fissfuse import drin-wikidiverse`"]);
    source.json("mentions/train.json", json!([["short", "", "", [["short", "", 3, 9, "X"]]]]));
    source.refuse("wikidiverse", &["train.json:2:", "lies at 3..9 of 5 characters"]);
}
